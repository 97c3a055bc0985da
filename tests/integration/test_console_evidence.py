"""The auditor's and the privacy officer's pages over a retailer whose people change their minds: what pages say is what the ledger decides."""

import io
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from starlette.applications import Starlette

from consent.receipts.uses import folder_of
from consent.rights import open_rights
from models.permission import LINKS, identities
from orchestration.rights.desk import seams_of
from serving.audit.people import subject
from serving.console import accounts
from serving.console.routes import Console
from tests.integration.audited_shop import AuditedShop
from tests.unit.serving.open_console import PASSWORD, Browser
from troth.home import Home
from troth.published import current

USES = 12


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> AuditedShop:
    shop = AuditedShop(Home(tmp_path_factory.mktemp("lived") / "home"), seed=11, people=14)
    shop.live(USES)
    shop.export()
    return shop


@pytest.fixture(scope="module")
def browser(lived: AuditedShop) -> Iterator[Browser]:
    accounts.add(lived.home, "ada", ["privacy_officer"], lived.at, PASSWORD)
    console = Console(lived.home, lived.clock, lived.clock, seams_of(lived.home))
    browser = Browser(Starlette(routes=console.routes()))
    assert browser.enter() == 303
    yield browser
    console.close()


def _receipts(lived: AuditedShop) -> list[int]:
    return sorted(int(path.stem) for path in folder_of(lived.home).glob("*.note"))


def test_every_recorded_use_has_a_page_and_comes_out_the_same_again(lived: AuditedShop, browser: Browser) -> None:
    for number in _receipts(lived)[::3]:
        assert browser.get(f"/console/audit/uses/{number}").status_code == 200
        assert browser.send(f"/console/audit/uses/{number}").status_code == 200
        assert "The same to the byte" in browser.text()


def test_the_page_of_a_person_says_what_the_audit_says_whoever_they_are(lived: AuditedShop, browser: Browser) -> None:
    known = identities(current(lived.home, LINKS))["customer_id"].unique().sort().to_list()
    for customer in known[:6]:
        assert browser.get(f"/console/audit/subjects/{customer}").status_code == 200
        found, text = subject(lived.home, customer, lived.at, prove=False), browser.text()
        assert "Proofs all verify" in text
        for stands in found.standing:
            assert stands.in_words.split(".")[0] in text
        assert browser.shown.text.count("/console/audit/uses/") == len(found.uses)


def test_an_export_is_followed_back_and_what_was_changed_in_its_files_is_named(
    lived: AuditedShop, browser: Browser
) -> None:
    number = _receipts(lived)[-1]
    assert browser.get(f"/console/audit/exports/{number}").status_code == 200
    assert browser.send(f"/console/audit/exports/{number}").status_code == 200
    assert "everybody decided again is decided alike" in browser.text()
    members = next(lived.exports[-1].glob("members*"))
    was = members.read_bytes()
    members.write_bytes(was + b"cus_nobody,x\r\n")
    try:
        browser.send(f"/console/audit/exports/{number}")
        assert "Not everything agrees" in browser.text()
        assert members.name in browser.text()
    finally:
        members.write_bytes(was)


def test_rows_of_a_receipt_that_were_changed_are_found_on_the_page_of_the_use(
    lived: AuditedShop, browser: Browser
) -> None:
    number = _receipts(lived)[0]
    root = browser.get(f"/console/audit/uses/{number}").text.split("Decisions root <code>")[1].split("<")[0]
    rows = folder_of(lived.home) / f"{root}.parquet"
    was = rows.read_bytes()
    pl.read_parquet(rows).with_columns(~pl.col("is_allowed")).write_parquet(rows)
    try:
        browser.send(f"/console/audit/uses/{number}")
        assert "does NOT come out the same" in browser.text()
        assert "What differs" in browser.text()
    finally:
        rows.write_bytes(was)


def test_evidence_taken_along_verifies_alone(lived: AuditedShop, browser: Browser, tmp_path: Path) -> None:
    customer = identities(current(lived.home, LINKS))["customer_id"].unique().sort()[0]
    packed = browser.send("/console/audit/bundle", kind="subject", name=customer, why="she asked for it")
    with zipfile.ZipFile(io.BytesIO(packed.content)) as archive:
        archive.extractall(tmp_path)
    (folder,) = tmp_path.iterdir()
    done = subprocess.run(
        [sys.executable, "-I", str(folder / "verifier.py"), str(folder)],
        env={},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_open_request_shows_who_it_is_about_by_id_and_what_was_looked_at_stands_in_the_audit(
    lived: AuditedShop, browser: Browser
) -> None:
    links = identities(current(lived.home, LINKS)).filter(link_type="hub").sort("customer_id")
    customer, token = links.row(3, named=True)["customer_id"], links.row(3, named=True)["identity_ref"]
    with open_rights(lived.home) as log:
        number = log.receive(
            "access", [token], lived.at - timedelta(days=40), "preference_centre", "subject"
        ).request_id
    browser.get(f"/console/requests/{number}")
    assert customer in browser.shown.text
    assert "Overdue by" in browser.text()
    browser.get("/console/audit")
    assert "of them overdue 1" in browser.text()
    browser.get(f"/console/audit/subjects/{customer}")
    assert number in browser.text()
    assert "request opened" in browser.text()
