"""What the pages are made of: structure, words, headers. No browser here; structure is read as a browser would."""

import re
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from consent.rule.policy import read_policy
from consent.rule.standing import REASONS
from serving.hub import pages
from serving.hub.pages import language_of, languages
from serving.hub.seams import Seams
from tests.unit.serving.open_hub import OpenHub, grant

POLICY = read_policy()
_VOID = ("meta", "input", "br")


class Structure(HTMLParser):
    """The elements of a page, with attributes and text, and what was left open."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str], list[str]]] = []
        self.open: list[tuple[str, list[str]]] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        text: list[str] = []
        self.elements.append((tag, {name: value or "" for name, value in attrs}, text))
        if tag not in _VOID:
            self.open.append((tag, text))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        for _, text in self.open:
            text.append(data)

    def all(self, tag: str) -> list[tuple[dict[str, str], str]]:
        return [(attrs, " ".join("".join(text).split())) for name, attrs, text in self.elements if name == tag]


def every_page(shop: OpenHub) -> dict[str, Any]:
    shop.say(grant(1), grant(2, channel_code="sms", event_type="refuse"))
    mine = shop.link()
    paths = [mine, f"{mine}?kept=2", f"{mine}/delete", shop.link("unsubscribe"), shop.link("confirm")]
    paths += ["/thanks", "/preferences/nowhere", "/notices/web_banner/2/es", f"{mine}?language=es"]
    return {path: shop.person.get(path, headers={"Sec-GPC": "1"}) for path in paths}


def shop_with_rights(root: Path) -> OpenHub:
    return OpenHub(root, Seams(receipt=lambda *_: {"a": 1}, export=lambda *_: b"{}", erase=lambda *_: "R-7"))


def test_every_page_is_whole_named_in_a_language_and_has_no_script(tmp_path: Path) -> None:
    for path, response in every_page(shop_with_rights(tmp_path)).items():
        page = Structure(response.text)
        assert page.open == [], path
        assert page.all("html")[0][0]["lang"] == ("es" if path.endswith("es") else "en")
        assert page.all("title")[0][1] == page.all("h1")[0][1]
        assert [len(page.all(tag)) for tag in ("main", "header", "footer", "h1", "script", "img")] == [1, 1, 1, 1, 0, 0]
        assert not any(name.startswith("on") for _, attrs, _ in page.elements for name in attrs)
        assert "style" not in {name for _, attrs, _ in page.elements for name in attrs}


def test_headings_go_down_one_step_at_a_time_and_what_refers_finds_its_target(tmp_path: Path) -> None:
    for path, response in every_page(shop_with_rights(tmp_path)).items():
        page = Structure(response.text)
        levels = [int(tag[1]) for tag, _, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
        assert all(after <= before + 1 for before, after in pairwise(levels)), path
        ids = [attrs["id"] for _, attrs, _ in page.elements if "id" in attrs]
        assert len(ids) == len(set(ids))
        meant = [attrs["aria-labelledby"] for _, attrs, _ in page.elements if "aria-labelledby" in attrs]
        meant += [attrs["href"][1:] for attrs, _ in page.all("a") if attrs["href"].startswith("#")]
        assert set(meant) <= set(ids)


def test_every_button_says_by_itself_what_it_does_and_no_input_is_without_a_label(tmp_path: Path) -> None:
    for response in every_page(shop_with_rights(tmp_path)).values():
        page = Structure(response.text)
        said = [text for _, text in page.all("button")]
        assert all(said)
        assert len(said) == len(set(said))
        assert {attrs["type"] for attrs, _ in page.all("input")} <= {"hidden"}
        assert {attrs["method"] for attrs, _ in page.all("form")} <= {"post"}


def test_saying_no_is_as_easy_as_saying_yes(tmp_path: Path) -> None:
    shop = OpenHub(tmp_path)
    buttons = Structure(shop.person.get(shop.link()).text).all("button")
    said = [(*attrs["value"].split(":"), set(attrs)) for attrs, _ in buttons]
    yes, no = ([each[1:] for each in said if each[0] == word and each[1] != "*"] for word in ("yes", "no"))
    assert yes == no
    asked = {(p.purpose_code, c) for p in POLICY.purposes.values() for c in p.channels if p.legal_basis != "contract"}
    assert {each[:2] for each in yes} == asked
    assert ("no", "*", "*") in {each[:3] for each in said}
    css = (pages.FOLDER / "hub.css").read_text()
    assert not re.search(r"value|nth|first-|last-", css)  # no button is dressed otherwise than the next


def test_a_person_reads_what_stands_why_since_when_and_under_which_text(tmp_path: Path) -> None:
    shop = OpenHub(tmp_path)
    shop.say(grant(1), grant(2, channel_code="sms", event_type="refuse"))
    text = " ".join(re.sub(r"<[^>]+>", " ", shop.person.get(shop.link()).text).split())
    assert "Now: yes You said yes on 1 March 2026. Ends by itself on 29 February 2028." in text
    assert "You were shown “May we use your data?”, version 2." in text
    assert "Now: no You said no on 1 March 2026." in text
    assert "You have not been asked about this, so we do not do it." in text
    assert "Taking payment, delivering, refunding, answering you." in text


def test_a_change_is_acknowledged_with_its_place_in_the_record(tmp_path: Path) -> None:
    shop = OpenHub(tmp_path)
    path = shop.link()
    location = shop.choose(path, "yes:marketing:email").headers["location"]
    assert 'role="status"' in shop.person.get(location).text
    assert "entry 1 of our consent record" in shop.person.get(location).text
    assert "&lt;" not in shop.person.get(f"{path}?kept=<b>").text
    assert "<b>" not in shop.person.get(f"{path}?kept=<b>").text


def test_pages_let_nothing_in_nothing_out_and_are_not_kept(tmp_path: Path) -> None:
    for response in every_page(shop_with_rights(tmp_path)).values():
        style = re.search(r"<style>(.*?)</style>", response.text, re.DOTALL)
        assert style is not None
        digest = b64encode(sha256(style[1].encode()).digest()).decode()
        assert response.headers["content-security-policy"] == (
            f"default-src 'none'; style-src 'sha256-{digest}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
        )
        assert response.headers["referrer-policy"] == "no-referrer"
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["x-frame-options"] == "DENY"
        assert response.headers["x-content-type-options"] == "nosniff"
        assert "set-cookie" not in response.headers


def test_no_page_names_a_subject(tmp_path: Path) -> None:
    shop = OpenHub(tmp_path)
    token = shop.alma()
    for response in every_page(shop).values():
        assert token not in response.text
        assert token.partition("_")[2] not in response.text


def test_every_language_has_the_same_words_with_the_same_gaps() -> None:
    def shape(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: shape(each) for key, each in value.items()}
        return len(value) if isinstance(value, list) else sorted(re.findall(r"\{\w+\}", value))

    shapes = {code: shape(words) for code, words in languages().items()}
    assert shapes["en"] == shapes["es"]


@pytest.mark.parametrize("words", languages().values(), ids=languages())
def test_words_cover_the_policy_and_every_reason(words: dict[str, Any]) -> None:
    assert set(POLICY.purposes) == set(words["purposes"])
    assert {"*", *POLICY.channels} == set(words["channels"])
    assert set(REASONS) <= set(words["reasons"])


def test_a_yes_in_the_files_is_a_word_and_no_truth_value() -> None:
    assert (languages()["en"]["yes"], languages()["en"]["no"]) == ("Yes", "No")


@pytest.mark.parametrize(
    ("asked", "accepted", "expected"),
    [
        (None, "", "en"),
        (None, "es-MX,es;q=0.9,en;q=0.8", "es"),
        (None, "fr, en;q=0.3, es;q=0.5", "es"),
        (None, "de", "en"),
        (None, "es;q=x, en", "en"),
        ("es", "en", "es"),
        ("xx", "es", "es"),
    ],
)
def test_the_language_is_the_one_asked_for_else_the_browsers_else_english(
    asked: str | None, accepted: str, expected: str
) -> None:
    assert language_of(asked, accepted) == expected


def test_receipt_export_and_deletion_are_offered_where_they_exist_and_asked_twice(tmp_path: Path) -> None:
    shop = shop_with_rights(tmp_path / "with")
    path = shop.link()
    links = {attrs["href"] for attrs, _ in Structure(shop.person.get(path).text).all("a")}
    assert {f"/v1{path}/receipt", f"/v1{path}/export", f"{path}/delete"} <= links
    assert shop.person.get(f"/v1{path}/receipt").json() == {"a": 1}
    assert shop.person.get(f"/v1{path}/export").headers["content-disposition"].startswith("attachment")
    assert shop.choose(f"{path}/delete", "keep").headers["location"].startswith(path)
    assert "R-7" in shop.choose(f"{path}/delete", "delete").text
    bare = OpenHub(tmp_path / "without", Seams())
    path = bare.link()
    assert not any(f"{path}/delete" in attrs["href"] for attrs, _ in Structure(bare.person.get(path).text).all("a"))
    assert [bare.person.get(f"/v1{path}/{what}").status_code for what in ("receipt", "export")] == [404, 404]
    assert (
        bare.person.get(f"{path}/delete").status_code
        == bare.person.post(f"{path}/delete", data={"choice": "delete"}).status_code
        == 404
    )


def test_deletion_is_not_taken_from_a_form_of_nobody(tmp_path: Path) -> None:
    taken: list[str] = []
    shop = OpenHub(tmp_path, Seams(erase=lambda subject_id, _: taken.append(subject_id) or "R-7"))
    assert shop.person.post(f"{shop.link()}/delete", data={"choice": "delete"}).status_code == 403
    assert taken == []


def test_a_receipt_of_the_shopper_comes_from_the_ledger(tmp_path: Path) -> None:
    shop = OpenHub(tmp_path)
    shop.say(grant(1))
    receipt = shop.person.get(f"/v1{shop.link()}/receipt").json()
    assert receipt["checkpoint"] == shop.hub.ledger.checkpoint()


def test_a_record_that_cannot_be_read_is_said_in_words_and_nothing_else_is_said(tmp_path: Path) -> None:
    shop = OpenHub(tmp_path)
    paths = [shop.link(kind) for kind in ("preferences", "unsubscribe", "confirm")]
    (tmp_path / "ledger.db").write_bytes(b"not a database, and long enough to be looked at" * 40)
    for path in paths:
        response = shop.person.get(path)
        assert (response.status_code, Structure(response.text).all("h1")[0][1]) == (503, "Please try again soon")
    assert shop.person.post(paths[1], data={"List-Unsubscribe": "One-Click"}).status_code == 503
    assert shop.person.get(f"/v1{paths[0]}").headers["content-type"] == "application/problem+json"
