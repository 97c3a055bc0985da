"""What went to destinations leads back to consents as well, and a person to everybody who was given their data or told what they said."""

import shutil
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from consent.receipts.uses import folder_of
from models.permission import LINKS
from models.tables import write
from serving.activation.approving import approve, ask
from serving.activation.deliveries import Delivery
from serving.activation.recalling import acknowledge
from serving.activation.rounds import go_round
from serving.activation.sending import send
from serving.audit.exports import export_of, made
from serving.audit.people import subject
from serving.hub.webhooks import NewDestination, Outbox, Outcome
from tests.integration.activation_shop import declare, describe, dispatch_of, withdraws
from tests.integration.segment_shop import AS_OF, POLICY, Shop, said
from troth.home import Home

LATER = AS_OF + timedelta(days=1)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    made_one = Shop(Home(tmp_path / "home"), grants=9)
    declare(made_one.home)
    describe(made_one.home)
    tokens = sorted({subject_id for subject_id, _ in made_one.links})
    sharing = {"purpose_code": "third_party_sharing", "channel_code": "*", "notice_version": 2}
    made_one.tell([said(one, "grant", 50_000 + n, **sharing) for n, one in enumerate(tokens)])
    return made_one


def sent(shop: Shop, destination: str) -> Delivery:
    dispatch = dispatch_of(shop.home)
    found = ask(dispatch, "everybody", destination, channel="email", by="kim", why="spring letter")
    if found.state == "asked":
        approve(dispatch, found.delivery_id, by="ada", why="looked at it")
    return send(dispatch, found.delivery_id)


@pytest.mark.parametrize("destination", ["own_folder", "desk", "partner"])
def test_what_was_sent_is_decided_again_with_every_purpose_that_was_asked(shop: Shop, destination: str) -> None:
    of = sent(shop, destination)
    (found,) = made(shop.home)
    told = export_of(shop.home, found.folder)
    assert told.is_verified, [check for check in told.checks if check.outcome == "failed"]
    assert [one.number for one in told.receipts] == list(of.receipt_numbers)
    assert len(told.receipts) == (2 if destination == "partner" else 1)
    assert sum(len(people) for people in found.people.values()) == of.exported
    shutil.rmtree(found.folder)  # it is with its recipient alone; the book has the manifest
    (elsewhere,) = made(shop.home)
    for which in (of.delivery_id, str(of.receipt_numbers[0])):
        again = export_of(shop.home, which)
        assert again.is_verified, [check for check in again.checks if check.outcome == "failed"]
        assert again.folder == elsewhere.name == f"delivery {of.delivery_id}"
        assert any(check.outcome == "not covered" and destination in check.evidence for check in again.checks)


def test_a_person_leads_to_everybody_who_was_given_their_data_and_to_what_was_called_back(shop: Shop) -> None:
    of = sent(shop, "desk")
    (found,) = made(shop.home)
    customer = sorted(next(iter(found.people.values())))[0]
    withdraws(shop, customer)
    dispatch = dispatch_of(shop.home)
    go_round(dispatch)
    acknowledge(dispatch, of.delivery_id, by="kim", receipt="letter of 2 May")
    told = subject(shop.home, customer, LATER)
    assert [(one.recipient, one.state, one.reference) for one in told.recipients] == [
        ("desk", "sent", of.delivery_id), ("desk", "acknowledged", "letter of 2 May"),
    ]  # fmt: skip
    assert [(one.is_in_file, one.is_allowed) for one in told.exports] == [(True, True)]
    nobody = next(
        one["customer_id"] for one in shop.customers if one["customer_id"] not in found.people["members.parquet"]
    )
    assert subject(shop.home, nobody, LATER).recipients == []


def test_webhooks_that_were_told_of_a_person_are_among_the_recipients(shop: Shop) -> None:
    outbox = Outbox(shop.home)
    try:
        wanted = NewDestination(name="crm", url="https://crm.example/troth", purposes=["marketing"], from_leaf=0)
        with shop.ledger() as ledger:
            destination = outbox.add(wanted, POLICY, ledger.size, AS_OF, allow_loopback=True).destination
            outbox.fill(destination, ledger, AS_OF)
            (first, *_) = outbox.due(destination.destination_id, AS_OF, 1)
            token = next(ledger.events(first.leaf_index, first.leaf_index + 1)).event.subject_id
        outbox.settle(first, Outcome(True, 200, receipt_id="T-1"), "delivered", AS_OF, AS_OF)
    finally:
        outbox.close()
    told = [one for one in subject(shop.home, token, LATER).recipients if one.state == "delivered"]
    assert [(one.recipient, one.what, one.reference) for one in told] == [
        ("webhook:crm", f"event of leaf {first.leaf_index}", "T-1")
    ]


def test_uses_under_a_former_customer_id_are_the_persons_too(shop: Shop) -> None:
    sent(shop, "own_folder")
    one, other = (each["customer_id"] for each in shop.customers[:2])
    merged = shop.identities.with_columns(pl.col("customer_id").replace({other: one})).unique(maintain_order=True)
    write(shop.home, LINKS, merged)
    told = subject(shop.home, one, LATER)
    assert {use.of for use in told.uses} == {one, other}
    assert all(use.is_proved for use in told.uses)


def test_rows_that_cannot_be_read_are_named_and_the_others_are_told(shop: Shop) -> None:
    sent(shop, "own_folder")
    sent(shop, "desk")
    customer = shop.customers[0]["customer_id"]
    assert len(subject(shop.home, customer, LATER).uses) == 2
    damaged = sorted(folder_of(shop.home).glob("*.parquet"))[0]
    damaged.write_bytes(b"nothing")
    told = subject(shop.home, customer, LATER)
    assert len(told.uses) == 1
    (failed,) = (check for check in told.checks if check.outcome == "failed")
    assert damaged.name[:16] in failed.check
