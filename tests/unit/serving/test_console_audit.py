"""The auditor's pages: who is found and how they are named, what is verified on demand and kept, what is masked, who may see it."""

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from starlette.applications import Starlette

from consent.ledger.opening import open_ledger
from consent.log.entry import subject_key
from consent.receipts.uses import Basis, record
from consent.rule.policy import read_policy
from models.permission import LINKS, FrameStanding, identities
from models.tables import naive, versions
from serving.console import accounts
from serving.console.charts import Row, Stay, over_time
from serving.console.roles import ROLES, rights_of
from serving.console.routes import Console
from serving.console.worked import Worked, keep, kept
from tests.unit.feature_repo.published_home import ADA, BRAM, CLEO
from tests.unit.serving.open_console import PASSWORD, Browser, open_console
from tests.unit.serving.open_counter import ADAS_PHONE, EMAILS, Shop, lines_of, open_counter, republish
from tests.unit.serving.open_shop import AT
from troth.clock import FixedClock
from troth.home import Home
from troth.published import current

PAGES = (
    "", "/subjects", f"/subjects/{ADA}", "/ledger", "/measures", "/uses", "/uses/1", "/exports", "/models", "/record", "/record/html",
    "/record/csv", "/record/json", "/events", "/events?kind=look&days=365", "/events/csv", "/flow",
)  # fmt: skip


def _use(shop: Shop) -> None:
    """A segment asked who may be written to."""
    clock, at = FixedClock(AT), naive(AT)
    links = identities(current(shop.home, LINKS))
    with open_ledger(shop.home, clock) as ledger:
        basis = Basis(ledger.checkpoint(), versions(shop.home, [LINKS])[LINKS])
        rule = FrameStanding(ledger.frame(), links, read_policy())
    standing = rule.known_at("marketing", "email", at)
    people = pl.Series([ADA, BRAM, CLEO])
    record(shop.home, "segment", "segment:lapsed_regulars", ("marketing", "email", at), people, standing, basis, clock)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    made = open_counter(tmp_path_factory.mktemp("audited"))
    republish(made, customers=pl.read_parquet(current(made.home, "customers")).with_columns(is_test=False))
    _use(made)
    return made


@pytest.fixture(scope="module")
def doors(shop: Shop) -> Iterator[dict[str, Browser]]:
    """Somebody of each role, signed in under its name."""
    console, found = Console(shop.home, FixedClock(AT), FixedClock(AT + timedelta(hours=1))), {}
    for role in ROLES:
        accounts.add(shop.home, role, [role], AT, PASSWORD)
        found[role] = Browser(Starlette(routes=console.routes()))
        assert found[role].enter(role) == 303
    yield found
    console.close()


@pytest.fixture(scope="module")
def browser(doors: dict[str, Browser]) -> Browser:
    return doors["privacy_officer"]


def test_every_page_of_the_audit_is_shown(browser: Browser) -> None:
    for path in PAGES:
        assert browser.get(f"/console/audit{path}").status_code == 200, path


@pytest.mark.parametrize("typed", [EMAILS[ADA], ADAS_PHONE, "7001 0000 42", ADA])
def test_a_person_is_found_by_what_leads_to_them_and_named_by_none_of_it(
    browser: Browser, shop: Shop, typed: str
) -> None:
    answer = browser.send("/console/audit/subjects", who=typed)
    assert answer.status_code == 303
    there = answer.headers["location"]
    assert EMAILS[ADA].lower() not in there.lower()
    assert browser.get(there).status_code == 200
    assert ADAS_PHONE not in browser.shown.text
    assert EMAILS[ADA].lower() not in browser.shown.text.lower()
    assert not any(EMAILS[ADA].lower() in line.lower() or ADAS_PHONE in line for line in lines_of(shop))


@pytest.mark.parametrize("typed", ["nobody@pier.example", "cus_nobody", "17850", "<script>", "../../keys"])
def test_nobody_is_told_alike_whoever_was_asked_for(browser: Browser, typed: str) -> None:
    answer = browser.send("/console/audit/subjects", who=typed)
    there = answer.headers.get("location")
    assert (browser.get(there) if there else answer).status_code == 404
    assert "found nobody" in browser.text()


def test_what_a_person_said_stands_with_its_proof_and_what_it_allows(browser: Browser) -> None:
    browser.get(f"/console/audit/subjects/{CLEO}")
    text = browser.text()
    assert "Took the yes back" in text
    assert "in the ledger, and nothing left out" in text
    assert "all verify" in text
    assert "withdrawn" in text
    assert "<svg" in browser.shown.text
    assert "The numbers: what was allowed when" in text


def test_a_use_about_a_person_names_its_receipt_and_is_held_against_it_on_demand(browser: Browser) -> None:
    browser.get(f"/console/audit/subjects/{ADA}")
    assert "segment:lapsed_regulars" in browser.text()
    assert "not asked" in browser.text()
    assert browser.send(f"/console/audit/subjects/{ADA}/proofs").status_code == 200
    assert "row is signed" in browser.text()


def test_contact_data_is_masked_until_it_is_asked_for_with_a_reason(browser: Browser, shop: Shop) -> None:
    path = f"/console/audit/subjects/{ADA}"
    assert "A•••@P•••.example" in browser.get(path).text
    assert browser.send(f"{path}/reveal").status_code == 422
    assert browser.send(f"{path}/reveal", why="she wrote to us").status_code == 200
    assert EMAILS[ADA] in browser.shown.text
    last = json.loads(lines_of(shop)[-1])
    assert (last["act"], last["why"], last["subject_key"]) == ("reveal", "she wrote to us", subject_key(ADA).hex())


def test_an_auditor_without_the_right_is_shown_nothing_in_the_clear(doors: dict[str, Browser]) -> None:
    browser = doors["auditor"]
    assert "reveal" not in rights_of(["auditor"])
    assert "Show contact data" not in browser.get(f"/console/audit/subjects/{ADA}").text
    assert browser.send(f"/console/audit/subjects/{ADA}/reveal", why="out of curiosity").status_code == 403


def test_the_ledger_is_verified_on_demand_and_the_outcome_stays_with_its_time(browser: Browser) -> None:
    assert browser.send("/console/audit/ledger").status_code == 303
    browser.get("/console/audit/ledger")
    assert "It verifies; that took" in browser.text()
    assert "Outcome verifies" in browser.text()
    browser.get("/console/audit")
    assert "Ledger verified yes, 2026" in browser.text()


def test_measures_are_counted_on_demand_and_small_numbers_are_not_shown(browser: Browser) -> None:
    assert browser.send("/console/audit/measures").status_code == 303
    browser.get("/console/audit/measures")
    assert "fewer than 10 people" in browser.text()
    assert browser.get("/console/audit").status_code == 200


def test_a_use_is_decided_again_on_demand(browser: Browser) -> None:
    browser.get("/console/audit/uses/1")
    assert "The signature verifies." in browser.text()
    assert browser.send("/console/audit/uses/1").status_code == 200
    assert "The same to the byte" in browser.text()
    assert browser.get("/console/audit/uses/2").status_code == 404
    assert browser.get("/console/audit/exports/1").status_code == 404  # of another kind


def test_evidence_goes_out_as_a_zip_with_a_reason(browser: Browser, shop: Shop) -> None:
    assert browser.send("/console/audit/bundle", kind="subject", name=ADA).status_code == 422
    answer = browser.send("/console/audit/bundle", kind="subject", name=ADA, why="she asked for it")
    assert answer.headers["content-type"] == "application/zip"
    assert answer.content.startswith(b"PK")
    assert browser.send("/console/audit/bundle", kind="subject", name="../keys", why="a bad name").status_code == 404
    assert browser.send("/console/audit/bundle", kind="model", name="nothing", why="a bad name").status_code == 404
    assert browser.send("/console/audit/bundle", kind="home", name="x", why="a bad kind").status_code == 400
    assert any('"act":"bundle"' in line for line in lines_of(shop))


@pytest.mark.parametrize(
    "path",
    [
        "/uses/x", "/uses/99999999999", "/uses?before=-1", "/uses?use=other", "/events?kind=other", "/events?days=2", "/record/pdf",
        "/models/..%2f..", "/models/nothing", "/models/churn?version=..", "/exports/7", "/flow/use?name=nothing", "/subjects/x@y.example",
    ],
)  # fmt: skip
def test_an_address_that_makes_no_sense_is_refused_as_a_page(browser: Browser, path: str) -> None:
    assert browser.get(f"/console/audit{path}").status_code in (400, 404)
    assert "expected" in browser.text()


def test_the_sheets_are_downloads_and_the_record_to_print_loads_nothing(browser: Browser) -> None:
    for form in ("csv", "json"):
        assert "attachment" in browser.get(f"/console/audit/record/{form}").headers["content-disposition"]
    policy = browser.get("/console/audit/record/html").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    assert "attachment" in browser.get("/console/audit/events/csv").headers["content-disposition"]


def test_who_may_not_audit_sees_none_of_it(doors: dict[str, Browser]) -> None:
    for role in (name for name, role in ROLES.items() if "audit" not in role.rights):
        browser = doors[role]
        for path in PAGES:
            assert browser.get(f"/console/audit{path}").status_code == 403, (role, path)
        for path in ("/subjects", "/ledger", "/measures", "/uses/1", "/bundle", f"/subjects/{ADA}/reveal"):
            assert browser.send(f"/console/audit{path}", who=ADA, why="no reason").status_code == 403, (role, path)


def test_a_home_without_a_ledger_says_so(tmp_path: Path) -> None:
    browser = open_console(Home(tmp_path), FixedClock(AT), "auditor", wall=FixedClock(AT))
    assert browser.get("/console/audit").status_code == 200
    assert "ledger: expected one in this home" in browser.text()
    assert browser.send("/console/audit/ledger").status_code == 409
    for path in ("/uses", "/exports", "/models", "/events", "/flow"):
        assert browser.get(f"/console/audit{path}").status_code == 200, path


def test_what_is_kept_is_read_again_and_what_an_older_one_kept_is_not(tmp_path: Path) -> None:
    home = Home(tmp_path)
    found = Worked(at=AT, by="ada", seconds=1.5, answer={"a": 1})
    keep(home, "numbers", found)
    assert kept(home, "numbers", dict[str, int]) == found
    assert kept(home, "numbers", list[int]) is None
    assert kept(home, "others", list[int]) is None


def test_a_yes_is_drawn_filled_and_a_no_empty_within_the_time_shown() -> None:
    begin, end = AT, AT + timedelta(days=10)
    stays = [
        Stay(begin - timedelta(days=5), begin + timedelta(days=5), True, "granted"),
        Stay(begin + timedelta(days=5), end, False, "<withdrawn>"),
    ]
    drawn = str(over_time("When", begin, end, [Row("marketing, email", stays)]))
    assert drawn.count('class="stay on"') == 1
    assert drawn.count('class="stay"') == 1
    assert 'x="200.0"' in drawn  # what began before is drawn from where the chart begins
    assert "<withdrawn>" not in drawn
