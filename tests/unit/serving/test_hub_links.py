from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import ServingError
from serving.hub.links import KINDS, LinkError, Links
from tests.unit.serving.open_hub import ALMA, MONDAY, OpenHub, problem
from troth.ids import IDENTIFIER_TYPES, tokeniser

LINKS = Links(b"s" * 32)
SUBJECT = "email_" + "alma" * 5 + "zz"
MADE = LINKS.make("preferences", SUBJECT, MONDAY)
TOKEN = tokeniser(b"k" * 32)


@given(
    st.sampled_from(KINDS),
    st.sampled_from(IDENTIFIER_TYPES),
    st.text(min_size=1).filter(str.strip),
    st.integers(1, 7),
)
def test_a_link_says_what_it_was_made_for(kind: str, identifier_type: str, value: str, days: int) -> None:
    subject = TOKEN(identifier_type, value)
    if subject is None:  # a phone without digits
        return
    made = LINKS.make(kind, subject, MONDAY, days, "marketing", "email")
    opened = LINKS.open(made.text, (kind,), MONDAY + timedelta(days=days, seconds=-1))
    assert opened == made
    assert (opened.subject_id, opened.purpose_code, opened.channel_code) == (subject, "marketing", "email")
    assert opened.expires_at == MONDAY + timedelta(days=days)


@given(st.data())
def test_a_link_changed_in_one_bit_or_spelt_otherwise_opens_nothing(data: st.DataObject) -> None:
    text = MADE.text
    at = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.characters(exclude_characters=text[at]))
    for forged in (text[:at] + other + text[at + 1 :], text[:at], text + other, text + "="):
        with pytest.raises(LinkError):
            LINKS.open(forged, KINDS, MONDAY)


@given(st.text())
def test_a_guess_opens_nothing(text: str) -> None:
    with pytest.raises(LinkError):
        LINKS.open(text, KINDS, MONDAY)


def test_a_link_says_nothing_readable_and_no_two_are_alike() -> None:
    one, other = (LINKS.make("preferences", SUBJECT, MONDAY).text for _ in range(2))
    assert one != other
    assert SUBJECT[6:] not in one
    assert one[:20] != other[:20]


def test_forged_expired_misplaced_and_foreign_links_are_refused_alike() -> None:
    made = LINKS.make("unsubscribe", SUBJECT, MONDAY, 30, "marketing", "email")
    refused = []
    for text, kinds, at, links in (
        ("A" + made.text[1:], KINDS, MONDAY, LINKS),
        (made.text, KINDS, MONDAY + timedelta(days=30), LINKS),
        (made.text, ("preferences", "confirm"), MONDAY, LINKS),
        (made.text, KINDS, MONDAY, Links(b"t" * 32)),
    ):
        with pytest.raises(LinkError) as error:
            links.open(text, kinds, at)
        refused.append(str(error.value))
    assert len(set(refused)) == 1


def test_a_link_is_made_for_a_known_kind_a_token_and_a_time_in_bounds() -> None:
    for kind, subject, days in (("login", SUBJECT, 1), ("confirm", "alma@pier.example", 1), ("confirm", SUBJECT, 31)):
        with pytest.raises(ServingError) as error:
            LINKS.make(kind, subject, MONDAY, days)
        assert "pier" not in str(error.value)


def test_a_form_token_is_good_for_its_link_alone() -> None:
    one, other = (LINKS.make("preferences", SUBJECT, MONDAY) for _ in range(2))
    token = LINKS.form_token(one, 1, "en")
    assert LINKS.shown_on(one, token) == (1, "en")
    assert LINKS.shown_on(other, token) is None
    assert [LINKS.shown_on(one, text) for text in ("", ".", token[:-1], "2" + token[1:], "é" + token)] == [None] * 5


def test_systems_make_links_for_what_the_policy_asks(tmp_path: Path) -> None:
    shop = OpenHub(tmp_path)
    about = {"purpose_code": "marketing", "channel_code": "email"}
    wanted = [
        {"kind": "preferences", "identifier": ALMA},
        {"kind": "unsubscribe", "subject_id": shop.alma(), **about, "valid_days": 500},
    ]
    made = shop.links.post("/v1/links", json={"links": wanted}).json()["links"]
    assert [each["path"].split("/")[1] for each in made] == ["preferences", "unsubscribe"]
    assert [each["expires_at"][:10] for each in made] == ["2026-04-01", "2027-07-15"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "unsubscribe", "identifier": ALMA},
        {"kind": "preferences", "identifier": ALMA, "purpose_code": "marketing", "channel_code": "email"},
        {"kind": "confirm", "identifier": ALMA, "purpose_code": "service"},
        {"kind": "confirm", "identifier": ALMA, "purpose_code": "marketing", "channel_code": "fax"},
        {"kind": "preferences"},
        {"kind": "preferences", "identifier": {"type": "email", "value": "alma"}},
        {"kind": "preferences", "identifier": ALMA, "valid_days": 91},
        {"kind": "admin", "identifier": ALMA},
    ],
)
def test_a_link_for_anything_else_is_not_made(wrong: dict[str, object], tmp_path: Path) -> None:
    shop = OpenHub(tmp_path)
    response = shop.links.post("/v1/links", json={"links": [wrong]})
    assert problem(response) == (422, "not_as_described")
    assert "pier" not in response.text.lower()
