"""The desk's pages: what is due, what a step needs, what an erasure asks, and that every look and act is written down."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from consent.ledger.opening import open_ledger
from consent.rights import EXTENSIONS, open_rights
from consent.rule.standing import IDENTITIES
from serving.hub.seams import Seams
from serving.rights.work import Foreseen, Holdings, Progress, Work
from tests.unit.serving.open_console import AT, Browser, open_console
from troth.clock import Clock, FixedClock
from troth.home import Home
from troth.ids import tokeniser
from troth.published import publish

CUSTOMER = f"cus_{'a' * 22}"
ANNA = "ann@pier.example"


@dataclass
class Hands:
    """Work that is done by nobody, and remembered."""

    begun: list[str] = field(default_factory=list)
    running: Progress | None = None

    def foresee(self, subjects: Sequence[str]) -> Foreseen:
        kept = [{"table": "raw_pos__transactions", "rows": 3, "why": "The books must be kept."}]
        return Foreseen({"raw": {"raw_loyalty__members": 1}, "published": {"customers": 2}}, kept, ["export:spring"])

    def erase(self, request_id: str) -> None:
        self.begun.append(request_id)

    def progress(self, request_id: str) -> Progress | None:
        return self.running

    def holdings(self, subjects: Sequence[str], clock: Clock, portable: bool) -> Holdings:
        return Holdings({"raw_loyalty__members": 1}, {"customers": 2}, {"contact_points": 1}, "Nothing.")

    def package(self, subjects: Sequence[str], clock: Clock, portable: bool) -> bytes:
        return f"{len(subjects)} {portable}".encode()

    @property
    def seams(self) -> Seams:
        return Seams(work=Work(self.foresee, self.erase, self.progress, self.holdings, self.package))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home that knows one person by an e-mail."""
    home = Home(tmp_path / "home")
    identities = pl.DataFrame([(CUSTOMER, _email(home), "deterministic")], IDENTITIES[:3], orient="row")
    identities.write_parquet(tmp_path / "draft.parquet")
    publish(home, "customer_identities", tmp_path / "draft.parquet")
    return home


@pytest.fixture
def hands() -> Hands:
    return Hands()


@pytest.fixture
def wall() -> FixedClock:
    return FixedClock(AT)


@pytest.fixture
def browser(home: Home, hands: Hands, wall: FixedClock) -> Browser:
    return open_console(home, FixedClock(AT), "privacy_officer", wall=wall, seams=hands.seams)


def _email(home: Home) -> str:
    found = tokeniser(home.key("token"))("email", ANNA)
    assert found is not None
    return found


def _asked(home: Home, kind: str, *states: str, at: datetime = AT) -> str:
    """A request that came in, and went on to these states."""
    with open_rights(home) as log:
        made = log.receive(kind, [_email(home)], at, "preference_centre", "subject").request_id
        for state in states:
            log.advance(made, state, at, "privacy_desk")
    return made


def _looks(home: Home) -> list[dict[str, Any]]:
    path = home.root / "logs" / "console_looks.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_what_is_due_first_is_at_the_top_and_what_is_overdue_says_so_in_words(
    browser: Browser, home: Home, wall: FixedClock
) -> None:
    old, young = _asked(home, "erasure", at=AT - timedelta(days=40)), _asked(home, "access", at=AT - timedelta(days=1))
    text = browser.get("/console/requests").text
    assert browser.shown.status_code == 200
    assert text.index(old) < text.index(young)
    assert "Overdue by 9 days" in browser.text()
    assert "30 days left" in browser.text()


def test_a_request_that_comes_in_by_an_identifier_is_kept_without_it(browser: Browser, home: Home) -> None:
    answer = browser.send("/console/requests", kind="access", subject=ANNA)
    assert answer.status_code == 303
    number = answer.headers["location"].rpartition("/")[2]
    with open_rights(home) as log:
        assert log.subjects(number) == [_email(home)]
    assert ANNA not in browser.get(answer.headers["location"]).text
    assert ANNA not in json.dumps(_looks(home))
    assert [each["act"] for each in _looks(home)] == ["request_received", "request_opened"]


@pytest.mark.parametrize("subject", ["", "cus_nobody", "17850"])
def test_who_is_not_known_is_told_on_the_form(browser: Browser, subject: str) -> None:
    answer = browser.send("/console/requests", kind="access", subject=subject)
    assert answer.status_code == 422
    assert "who: expected" in browser.text()


def test_steps_are_taken_in_order_with_a_reason_that_is_written_down(browser: Browser, home: Home) -> None:
    number = _asked(home, "access")
    path = f"/console/requests/{number}"
    assert browser.send(f"{path}/advance", state="done", why="handed over").status_code == 422
    assert "Take the steps in order" in browser.text()
    assert browser.send(f"{path}/advance", state="identity_checked").status_code == 422
    assert "why: expected a reason" in browser.text()
    assert browser.send(f"{path}/advance", state="identity_checked", why="passport shown").status_code == 303
    assert "who asks was checked" in browser.get(path).text.lower()
    (done,) = [each for each in _looks(home) if each["act"] == "request_advanced"]
    assert (done["staff"], done["why"]) == ("ada", f"{number}, identity_checked: passport shown")


def test_a_refusal_needs_a_reason_there_is_and_ends_the_request(browser: Browser, home: Home) -> None:
    path = f"/console/requests/{_asked(home, 'access')}"
    assert browser.send(f"{path}/advance", state="refused", reason="no time", why="no time").status_code == 422
    assert browser.send(f"{path}/advance", state="refused", reason="not_held", why="looked twice").status_code == 303
    shown = browser.get(path).text
    assert "We hold nothing about you." in shown
    assert "What to do" not in shown


def test_time_is_taken_once_and_the_page_says_what_the_person_is_to_be_told(browser: Browser, home: Home) -> None:
    path = f"/console/requests/{_asked(home, 'access')}"
    assert browser.send(f"{path}/extend", reason="complexity", why="two systems").status_code == 303
    browser.get(path)
    assert EXTENSIONS["complexity"] in browser.text()
    assert "92 days left" in browser.text()
    assert "More time" not in browser.shown.text
    assert browser.send(f"{path}/extend", reason="complexity", why="two systems").status_code == 422


def test_a_recipient_that_has_done_its_part_is_written_down_once_it_was_told(browser: Browser, home: Home) -> None:
    number = _asked(home, "erasure")
    with open_rights(home) as log:
        log.tell(number, [("export:spring", "privacy_desk")], AT - timedelta(days=1))
    path = f"/console/requests/{number}"
    assert "overdue" in browser.get(path).text
    assert browser.send(f"{path}/acknowledge", recipient="somebody else", why="they wrote").status_code == 422
    assert browser.send(f"{path}/acknowledge", recipient="export:spring", why="they wrote").status_code == 303
    browser.get(path)
    assert "acknowledged" in browser.text()


def test_an_erasure_is_shown_before_it_is_done_and_asked_twice(browser: Browser, home: Home, hands: Hands) -> None:
    number = _asked(home, "erasure", "identity_checked")
    path = f"/console/requests/{number}/erasure"
    shown = browser.get(path)
    assert shown.status_code == 200
    assert "raw_loyalty__members" in shown.text
    assert "The books must be kept." in shown.text
    assert browser.send(path).status_code == 422
    asked = browser.send(path, why="their wish")
    assert asked.status_code == 200
    assert "This cannot be undone" in asked.text
    assert browser.send(path, why="their wish", sure="yes").status_code == 422
    assert hands.begun == []
    assert browser.send(path, why="their wish", sure=number).status_code == 303
    assert hands.begun == [number]
    assert [each["act"] for each in _looks(home)][-1] == "erasure_begun"


def test_an_erasure_says_how_far_it_is_and_why_it_stopped(browser: Browser, home: Home, hands: Hands) -> None:
    path = f"/console/requests/{_asked(home, 'erasure', 'identity_checked', 'in_progress')}"
    hands.running = Progress(4, 14, True)
    browser.get(path)
    assert "It is running: 4 of 14 steps are done." in browser.text()
    hands.running = Progress(4, 14, False, "<b>disk</b> full")
    browser.get(path)
    assert "It stopped after 4 of 14 steps" in browser.text()
    assert "<b>disk</b> full" in browser.text()


@pytest.mark.parametrize(
    ("kind", "state"), [("erasure", "received"), ("access", "identity_checked"), ("erasure", "done")]
)
def test_nothing_is_erased_for_a_request_that_is_not_for_it(
    browser: Browser, home: Home, hands: Hands, kind: str, state: str
) -> None:
    steps = {
        "received": (),
        "identity_checked": ("identity_checked",),
        "done": ("identity_checked", "in_progress", "done"),
    }
    path = f"/console/requests/{_asked(home, kind, *steps[state])}/erasure"
    assert browser.get(path).status_code == 409
    assert browser.send(path, why="their wish", sure=path.split("/")[3]).status_code == 409
    assert hands.begun == []


def test_what_would_be_handed_over_is_counted_and_the_package_goes_out_with_a_reason(
    browser: Browser, home: Home
) -> None:
    number = _asked(home, "portability", "identity_checked")
    path = f"/console/requests/{number}"
    assert browser.get(f"{path}/holdings").status_code == 200
    assert browser.send(f"{path}/package").status_code == 422
    packed = browser.send(f"{path}/package", why="by letter")
    assert packed.content == b"1 True"
    assert f"{number}.zip" in packed.headers["content-disposition"]
    assert [each["act"] for each in _looks(home)][-1] == "package_downloaded"


def test_an_objection_counts_in_the_ledger_from_the_click_on(browser: Browser, home: Home) -> None:
    path = f"/console/requests/{_asked(home, 'objection', 'identity_checked')}"
    assert browser.send(f"{path}/no", purpose="marketing", why="by phone").status_code == 303
    with open_ledger(home, FixedClock(AT)) as ledger:
        (event,) = [each.event for each in ledger.events_of(_email(home))]
    assert (event.event_type, event.purpose_code) == ("object", "marketing")
    assert "done" in browser.get(path).text


def test_without_hands_the_page_names_the_command(home: Home) -> None:
    browser = open_console(home, FixedClock(AT), "privacy_officer", wall=FixedClock(AT))
    path = f"/console/requests/{_asked(home, 'erasure', 'identity_checked')}"
    assert "troth privacy erase" in browser.get(path).text
    assert browser.get(f"{path}/erasure").status_code == 409


def test_contact_data_alone_hands_nobody_a_package(home: Home, hands: Hands) -> None:
    browser = open_console(home, FixedClock(AT), "contact_centre", wall=FixedClock(AT), seams=hands.seams)
    number = _asked(home, "access", "identity_checked")
    assert browser.send(f"/console/requests/{number}/package", why="by letter").status_code == 403


@pytest.mark.parametrize("number", ["req_nothing", "req_<script>", "x" * 300])
def test_a_number_nobody_gave_is_a_page_that_says_so(browser: Browser, number: str) -> None:
    assert browser.get(f"/console/requests/{number}").status_code in (400, 404)


def test_others_see_no_request(home: Home) -> None:
    browser = open_console(home, FixedClock(AT), "auditor", wall=FixedClock(AT))
    number = _asked(home, "erasure", "identity_checked")
    for path in ("", f"/{number}", f"/{number}/erasure", f"/{number}/holdings"):
        assert browser.get(f"/console/requests{path}").status_code == 403
    assert (
        browser.send(f"/console/requests/{number}/advance", state="refused", reason="not_held", why="never").status_code
        == 403
    )
