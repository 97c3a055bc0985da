"""Receipts without a loyalty card tied by payment, on a small retailer: shown and explained, ended by a withdrawal, by a steward and by erasure."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

from consent.events import Event
from consent.ledger.opening import open_ledger
from models.identity.payments import judged
from orchestration import stages, taking
from orchestration.catalog import SOURCES
from orchestration.cli import app
from orchestration.deciding import decide, undo
from orchestration.errors import RunError
from orchestration.identities import CHANGES, LINKS, MEMBERS, TABLES, evidence_of, resolve_identities
from orchestration.raw import made_table, raw_rows, read_table
from orchestration.rights import tables
from orchestration.stewarding import explain, show
from simulator import TINY, simulate
from tests.unit.consent.builders import event
from troth.clock import FixedClock
from troth.home import Home

WHY = ("kim", "it is her mother who pays with it")
SAID_AT = timedelta(seconds=1)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A retailer whose customers all said yes to being recognised, resolved."""
    home = Home(tmp_path_factory.mktemp("payments"))
    lively = replace(TINY, people=150, days=6, web_orders_per_person_day=0.6, hall_share=0.0)
    simulate(home, lively, 7, lambda *_: None)
    shutil.rmtree(home.truth)  # a retailer whose clock goes on
    taking.take(home, [plan for source in SOURCES for plan in taking.plan(home, source.name)], workers=1)
    resolve(home)
    hubs = read(home, MEMBERS)["hub_identity_ref"].unique().sort()
    say(home, lambda at: [said(hub, "grant", at, number) for number, hub in enumerate(hubs)])
    resolve(home)
    return home


@pytest.fixture
def home(shop: Home, tmp_path: Path) -> Home:
    """A copy of it to change something in."""
    return Home(Path(shutil.copytree(shop.root, tmp_path / "home")))


def resolve(home: Home) -> None:
    """As much of a run as identity needs."""
    until = stages.known_until(home)
    stages.append_consents(home, FixedClock(until), lambda *_: None)
    resolve_identities(home, until, lambda *_: None)


def say(home: Home, told: Callable[[datetime], list[Event]]) -> None:
    at = stages.known_until(home) - SAID_AT
    with open_ledger(home, FixedClock(at)) as ledger:
        ledger.append(told(at))


def said(subject: str, event_type: str, at: datetime, number: int = 0) -> Event:
    return event(at, subject_id=subject, event_type=event_type, purpose_code="profile_unification", signal_id=f"{event_type}-{number}")  # fmt: skip


def read(home: Home, table: str) -> pl.DataFrame:
    found = read_table(home, table)
    assert found is not None
    return found


def ties(home: Home) -> dict[str, str]:
    return dict(read(home, MEMBERS).filter(identity_type="payment").select("identity_ref", "customer_id").iter_rows())


def people(home: Home) -> list[tuple[Any, ...]]:
    return read(home, MEMBERS).filter(pl.col("identity_type") != "payment").sort("identity_type", "identity_ref").rows()


def a_tie(home: Home) -> dict[str, Any]:
    return read(home, MEMBERS).filter(identity_type="payment").sort("identity_ref").row(0, named=True)


def test_every_tied_card_paid_for_receipts_and_was_seen_with_its_customer_alone(shop: Home) -> None:
    assert ties(shop)
    receipts = raw_rows(shop, "raw_pos__transactions", ["loyalty_card_ref", "payment_ref"])
    orders = raw_rows(shop, "raw_ecommerce__orders", ["account_ref", "email_ref", "payment_ref"])
    customers = dict(read(shop, MEMBERS).select("identity_ref", "customer_id").iter_rows())
    lent = receipts.drop_nulls().group_by("loyalty_card_ref").agg(pl.col("payment_ref").n_unique()).filter(pl.col("payment_ref") > 3)  # fmt: skip
    for card, customer in ties(shop).items():
        bought = orders.filter(payment_ref=card).select(pl.coalesce("account_ref", "email_ref")).to_series()
        shown = receipts.filter(pl.col("payment_ref") == card)["loyalty_card_ref"]
        assert shown.null_count()
        seen = {*bought.drop_nulls(), *shown.drop_nulls()} - {*lent["loyalty_card_ref"]}
        assert {customers[ref] for ref in seen} == {customer}


def test_a_tied_card_is_shown_and_explained_and_says_that_it_proves_nothing(shop: Home) -> None:
    tie = a_tie(shop)
    shown = show(shop, tie["identity_ref"])
    assert shown["customer_id"] == tie["customer_id"]
    row = next(row for row in shown["identifiers"] if row["identity_type"] == "payment")
    assert (row["link_type"], row["group"]) == ("payment", tie["hub_identity_ref"])
    pair = explain(shop, tie["identity_ref"], tie["hub_identity_ref"], stages.known_until(shop))
    assert (pair.outcome, [link.how for link in pair.chain]) == ("tied", ["tied"])
    assert "no proof" in pair.sentence
    whole = explain(shop, tie["customer_id"], None, stages.known_until(shop))
    assert "tied to it by 1 payment card" in whole.sentence
    other = next(ref for ref, customer in read(shop, MEMBERS).select("identity_ref", "customer_id").iter_rows() if customer != tie["customer_id"])  # fmt: skip
    assert explain(shop, tie["identity_ref"], other, stages.known_until(shop)).outcome == "tied_to_another"


def test_a_run_again_changes_nothing(home: Home) -> None:
    before = {name: read(home, name) for name in (MEMBERS, LINKS)}
    resolve(home)
    assert all(read(home, name).equals(frame) for name, frame in before.items())


def test_who_withdraws_from_being_recognised_loses_the_receipts_and_nobody_else_moves(home: Home) -> None:
    tie, before = a_tie(home), people(home)
    members = read(home, MEMBERS)
    alone = members.filter(customer_id=tie["customer_id"])["hub_identity_ref"].n_unique() == 1
    others = {card: customer for card, customer in ties(home).items() if customer != tie["customer_id"]}
    say(home, lambda at: [said(tie["hub_identity_ref"], "withdraw", at)])
    told = read(home, CHANGES)
    resolve(home)
    assert tie["identity_ref"] not in ties(home)
    kept = {card: customer for card, customer in ties(home).items() if card in others}
    assert kept.items() <= others.items()
    if alone:  # else a part of them is a customer of its own now: of a house where somebody may pay with another's card
        assert kept == others
        assert people(home) == before
        assert read(home, CHANGES).equals(told)


def test_a_stewards_no_ends_a_tie_until_it_is_taken_back(home: Home) -> None:
    tie, before, at = a_tie(home), people(home), stages.known_until(home)
    parting = (home, at, "forbid", tie["identity_ref"], tie["customer_id"], *WHY)
    foreseen = decide(*parting, dry_run=True)
    assert (foreseen["payment_cards_tied_otherwise"], foreseen["becomes"]) == (1, [])
    assert "why_nothing" not in foreseen
    word = decide(*parting)["decision_id"]
    take_steward(home)
    assert tie["identity_ref"] not in ties(home)
    assert people(home) == before
    evidence, members = evidence_of(home, stages.known_until(home)), read(home, MEMBERS)
    assert judged(evidence, members.filter(pl.col("identity_type") != "payment"), evidence.decisions).filter(payment_ref=tie["identity_ref"])["outcome"].to_list() == ["forbidden"]  # fmt: skip
    undo(home, stages.known_until(home), word, *WHY)
    take_steward(home)
    assert ties(home)[tie["identity_ref"]] == tie["customer_id"]


def take_steward(home: Home) -> None:
    taking.take(home, taking.plan(home, "steward"), workers=1)
    resolve(home)


def test_a_payment_card_makes_nobody_one_person(home: Home) -> None:
    tie = a_tie(home)
    other = read(home, MEMBERS).filter(pl.col("customer_id") != tie["customer_id"], identity_type="account")
    with pytest.raises(RunError, match="found a payment card"):
        decide(home, stages.known_until(home), "link", tie["identity_ref"], other["identity_ref"][0], *WHY)
    done = CliRunner().invoke(app, ["identity", "explain", tie["identity_ref"], other["identity_ref"][0], "--home", str(home.root)])  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "another customer's" in " ".join(done.output.split())


def test_nothing_of_a_tie_is_left_when_its_customer_is_erased(home: Home) -> None:
    tie, others = a_tie(home), ties(home)
    identifiers = read(home, MEMBERS).filter(customer_id=tie["customer_id"])["identity_ref"].to_list()
    # The card may be another's as well, and is then no identifier of the person alone.
    left_over = {tie["customer_id"], *identifiers} - {*ties(home)}
    for table in TABLES:
        tables.erase_file(made_table(home, table), left_over)
    assert ties(home) == {card: customer for card, customer in others.items() if customer != tie["customer_id"]}
    assert not read(home, MEMBERS).filter(identity_ref=tie["identity_ref"]).height
