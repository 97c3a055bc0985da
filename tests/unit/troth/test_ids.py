from hypothesis import given
from hypothesis import strategies as st

from troth.ids import normalised, tokeniser

KEY = bytes(range(32))


@given(st.sampled_from(["email", "phone", "card", "account"]), st.text(max_size=60))
def test_normalising_twice_changes_nothing(identifier_type: str, value: str) -> None:
    once = normalised(identifier_type, value)
    assert normalised(identifier_type, once) == once


@given(st.text(min_size=1, max_size=60))
def test_another_key_gives_another_token(value: str) -> None:
    ours, theirs = tokeniser(KEY)("email", value), tokeniser(bytes(32))("email", value)
    assert ours is None or ours != theirs


def test_spellings_of_one_identifier_share_a_token() -> None:
    token = tokeniser(KEY)
    assert token("email", " Ada@Example.ORG ") == token("email", "ada@example.org")
    assert token("phone", "+1 (212) 555-0100") == token("phone", "2125550100")


def test_the_same_text_as_another_kind_of_identifier_is_another_token() -> None:
    token = tokeniser(KEY)
    assert token("card", "2125550100") != token("phone", "2125550100")


def test_nothing_has_no_token() -> None:
    token = tokeniser(KEY)
    assert token("email", None) is None
    assert token("phone", "n/a") is None
