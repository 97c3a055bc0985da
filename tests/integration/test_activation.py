"""Segments on their way to where they are used: asked for, let out, sent whole, and called back."""

import csv
import hashlib
import io
import json
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from moto.server import ThreadedMotoServer
from pyarrow import fs

from consent.vault import open_vault
from models.decisions import replay
from models.segments import kept
from models.segments.rules import Rules
from serving.activation import members
from serving.activation.approving import approve, ask, refuse
from serving.activation.deliveries import Book, Delivery, acts, deliveries, delivery, recalls, sharing
from serving.activation.dispatch import Dispatch
from serving.activation.errors import ActivationError
from serving.activation.recalling import acknowledge, deliveries_of, recall_erased
from serving.activation.rounds import follow_schedule, go_round
from serving.activation.sending import send, staged_folder, turn
from tests.integration.activation_shop import (
    S3,
    MovingClock,
    declare,
    describe,
    dispatch_of,
    receiving,
    withdraws,
)
from tests.integration.segment_shop import AS_OF, Shop, customer, ref
from troth.home import Home


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    made = Shop(Home(tmp_path / "home"))
    declare(made.home)
    describe(made.home)
    return made


@pytest.fixture
def wall() -> MovingClock:
    return MovingClock()


@pytest.fixture
def dispatch(shop: Shop, wall: MovingClock) -> Dispatch:
    return dispatch_of(shop.home, wall)


def asked(dispatch: Dispatch, destination: str = "own_folder", segment: str = "everybody", **named: Any) -> Delivery:
    return ask(dispatch, segment, destination, **{"channel": "email", "by": "kim", "why": "spring letter", **named})


def sent(dispatch: Dispatch, destination: str = "own_folder", segment: str = "everybody", **named: Any) -> Delivery:
    found = asked(dispatch, destination, segment, **named)
    if found.state == "asked":
        approve(dispatch, found.delivery_id, by="ada", why="looked at it")
    done = send(dispatch, found.delivery_id)
    assert done.state == "sent"
    return done


def folder(of: Delivery, home: Home) -> Path:
    return home.root / of.to.where / of.delivery_id


def rows(of: Delivery, home: Home) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((folder(of, home) / "members.csv").read_text())))


def test_a_dry_run_counts_what_would_go_out_and_keeps_nothing(dispatch: Dispatch) -> None:
    before = sorted(path for path in dispatch.home.root.rglob("*") if path.is_file())
    found = asked(dispatch, dry_run=True)
    assert (found.state, found.matched) == ("approved", found.expected + sum(found.refused.values()))
    assert found.expected > 0
    assert sorted(path for path in dispatch.home.root.rglob("*") if path.is_file()) == before
    assert deliveries(dispatch.home) == []


def test_what_is_sent_has_a_manifest_with_everything_it_rests_on(shop: Shop, dispatch: Dispatch) -> None:
    done = sent(dispatch)
    manifest = json.loads((folder(done, shop.home) / "manifest.json").read_text())
    for name, file in manifest["files"].items():
        data = (folder(done, shop.home) / name).read_bytes()
        assert file["sha256"] == hashlib.sha256(data).hexdigest()
    assert set(manifest["files"]) == {"members.csv"}
    assert manifest["files"]["members.csv"]["rows"] == done.exported == len(rows(done, shop.home))
    assert (manifest["segment"]["version"], manifest["segment"]["hash"]) == (1, done.definition_hash)
    assert manifest["counts"]["matched"] == done.exported + sum(manifest["counts"]["refused"].values())
    assert manifest["delivery"]["recipient"] == {"legal_name": "Troth Outfitters", "role": "own", "country": "US"}
    assert manifest["delivery"]["purposes"] == ["marketing"]
    assert hashlib.sha256((folder(done, shop.home) / "manifest.json").read_bytes()).hexdigest() == done.manifest_sha256
    with shop.ledger() as ledger:
        assert manifest["consent"]["checkpoint"] == ledger.checkpoint()
        (number,) = done.receipt_numbers
        assert number == manifest["decision"]["number"]
        assert replay(shop.home, number, ledger).subject_count == done.matched + manifest["counts"]["test_customers"]
    (shared,) = sharing(shop.home)
    assert (shared.event, shared.people, shared.purposes, shared.recipient.legal_name) == (
        "sent", done.exported, ("marketing",), "Troth Outfitters",
    )  # fmt: skip


def test_contact_data_is_with_the_recipient_and_nowhere_else(shop: Shop, dispatch: Dispatch) -> None:
    done = sent(dispatch)
    people = {who["customer_id"]: who for who in shop.customers}
    for row in rows(done, shop.home):
        assert ref("email", row["email"]) == people[row["customer_id"]]["email_ref"]
    addresses = [row["email"].encode() for row in rows(done, shop.home)]
    for path in dispatch.home.root.rglob("*"):
        if path.is_file() and "exports" not in path.parts and path.name != "vault.db":
            assert not any(address in path.read_bytes() for address in addresses), path
    assert not staged_folder(shop.home, done.delivery_id).exists()


def test_a_cell_that_a_spreadsheet_would_run_goes_out_as_text(shop: Shop, dispatch: Dispatch) -> None:
    payload = '=cmd|"/c calc"!A1@example.com'
    who = sorted(row["customer_id"] for row in rows(sent(dispatch), shop.home))[0]
    token = next(each["email_ref"] for each in shop.customers if each["customer_id"] == who)
    with open_vault(shop.home) as vault:
        vault.erase([token])
        vault.put([(token, payload)])
    in_csv = {row["customer_id"]: row["email"] for row in rows(sent(dispatch), shop.home)}
    assert in_csv[who] == f"'{payload}"
    done = sent(dispatch, "desk")
    in_parquet = pl.read_parquet(folder(done, shop.home) / "members.parquet")
    assert dict(in_parquet.select("customer_id", "email").iter_rows())[who] == payload


def test_a_destination_gets_the_fields_it_declares(shop: Shop, dispatch: Dispatch) -> None:
    done = sent(dispatch, "desk")
    frame = pl.read_parquet(folder(done, shop.home) / "members.parquet")
    assert frame.columns == ["member_ref", "customer_id", "email"]
    assert frame["member_ref"].n_unique() == frame.height == done.exported
    describe(shop.home, "in_app", channels=("in_app",))
    shop.tell([], publish=False)
    found = asked(dispatch, segment="in_app", channel="in_app", dry_run=True)
    assert found.to.fields == ("customer_id", "contact")


def test_purposes_and_channels_that_a_destination_does_not_declare_are_refused(dispatch: Dispatch) -> None:
    with pytest.raises(ActivationError, match="purpose: expected one of personalization, found marketing"):
        asked(dispatch, "advice")
    describe(dispatch.home, "by_sms", channels=("sms",))
    with pytest.raises(ActivationError, match="channel: expected one of email, found sms"):
        asked(dispatch, "desk", "by_sms", channel="sms")
    assert deliveries(dispatch.home) == []


def test_a_third_party_gets_only_who_said_yes_to_sharing_and_no_id_of_ours(shop: Shop, dispatch: Dispatch) -> None:
    before = asked(dispatch, "partner", dry_run=True)
    assert before.expected == 0
    assert before.refused["third_party_sharing_never_asked"] == asked(dispatch, dry_run=True).expected
    willing = sorted(row["customer_id"] for row in rows(sent(dispatch), shop.home))[:4]
    for number, who in enumerate(willing):
        withdraws(shop, who, 1_000 + number, "grant", purpose_code="third_party_sharing", channel_code="*")
    withdraws(shop, willing[0], 1_010, "withdraw", purpose_code="third_party_sharing", channel_code="*")
    withdraws(shop, willing[1], 1_011, "withdraw")
    done = sent(dispatch, "partner")
    assert list(rows(done, shop.home)[0]) == ["member_ref", "email"]
    emails = {row["email"] for row in rows(done, shop.home)}
    people = {who["customer_id"]: who["email_ref"] for who in shop.customers}
    assert {ref("email", each) for each in emails} == {people[who] for who in willing[2:]}
    manifest = json.loads(done.manifest or "")
    assert manifest["counts"]["refused"]["third_party_sharing_withdrawn"] == 1
    assert manifest["delivery"]["purposes"] == ["marketing", "third_party_sharing"]
    assert manifest["delivery"]["is_third_party"] is True
    other = manifest["also_asked"]["third_party_sharing"]["decision"]["number"]
    assert done.receipt_numbers == (manifest["decision"]["number"], other)
    with shop.ledger() as ledger:
        for number in done.receipt_numbers:
            assert (
                replay(shop.home, number, ledger).subject_count == done.matched + manifest["counts"]["test_customers"]
            )


def test_whoever_asked_cannot_let_it_out(dispatch: Dispatch) -> None:
    found = asked(dispatch, "desk")
    assert found.state == "asked"
    with pytest.raises(ActivationError, match="expected one that is approved, found asked"):
        send(dispatch, found.delivery_id)
    for name in ("kim", "KIM", " kim "):
        with pytest.raises(ActivationError, match="approval: expected another person than asked for it"):
            approve(dispatch, found.delivery_id, by=name, why="it is fine")
    done = approve(dispatch, found.delivery_id, by="ada", why="looked at it")
    assert (done.state, done.decided_by, done.decided_why) == ("approved", "ada", "looked at it")
    with pytest.raises(ActivationError, match="expected one that is asked, found approved"):
        approve(dispatch, found.delivery_id, by="otto", why="me too")
    assert [(each.act, each.who) for each in acts(dispatch.home, found.delivery_id)] == [
        ("asked", "kim"),
        ("approved", "ada"),
    ]


def test_who_refuses_says_why_and_nothing_goes_out(dispatch: Dispatch) -> None:
    found = asked(dispatch, "desk")
    with pytest.raises(ActivationError, match="why: expected 1 to 300 characters"):
        refuse(dispatch, found.delivery_id, by="ada", why=" ")
    assert refuse(dispatch, found.delivery_id, by="ada", why="too many").state == "refused"
    with pytest.raises(ActivationError, match="expected one that is approved, found refused"):
        send(dispatch, found.delivery_id)
    assert not (dispatch.home.exports / "desk").exists()


@pytest.mark.parametrize("when", ["before the yes", "after it"])
@pytest.mark.parametrize("what", ["definition", "destination"])
def test_an_approval_is_for_what_was_asked_for_and_nothing_else(dispatch: Dispatch, what: str, when: str) -> None:
    found = asked(dispatch, "desk")
    if when == "after it":
        approve(dispatch, found.delivery_id, by="ada", why="looked at it")
    if what == "definition":
        describe(dispatch.home, holdout_percent=5)
    else:
        path = dispatch.home.root / "destinations.yml"
        path.write_text(path.read_text().replace("exports/desk", "exports/another"))
    act = partial(send, dispatch) if when == "after it" else partial(approve, dispatch, by="ada", why="looked at it")
    with pytest.raises(ActivationError, match=f"expected the {what} that was asked for, found it changed"):
        act(found.delivery_id)
    assert delivery(dispatch.home, found.delivery_id).state == "void"
    assert not (dispatch.home.exports / "another").exists()


def test_questions_and_approvals_end(dispatch: Dispatch, wall: MovingClock) -> None:
    waits, let_out = asked(dispatch, "desk"), asked(dispatch, "desk")
    approve(dispatch, let_out.delivery_id, by="ada", why="looked at it")
    wall.at += timedelta(days=3, minutes=1)
    with pytest.raises(ActivationError, match="expected one that is still valid"):
        send(dispatch, let_out.delivery_id)
    wall.at += timedelta(days=4)
    assert go_round(dispatch).expired == [waits.delivery_id]
    assert {each.state for each in deliveries(dispatch.home)} == {"expired"}


def test_what_has_grown_far_beyond_what_was_approved_does_not_go_out(tmp_path: Path, wall: MovingClock) -> None:
    big = Shop(Home(tmp_path / "big"), people=500, grants=9)
    declare(big.home)
    describe(big.home)
    dispatch, everybody = dispatch_of(big.home, wall), [who["customer_id"] for who in big.customers]
    kept.change_exclusions(big.home, "complaints", AS_OF.replace(tzinfo=None), add=everybody[30:])
    found = asked(dispatch, "desk")
    approve(dispatch, found.delivery_id, by="ada", why="looked at it")
    kept.change_exclusions(big.home, "complaints", AS_OF.replace(tzinfo=None), remove=everybody)
    with pytest.raises(ActivationError, match=r"expected at most .* people, some more than the .* asked for, found"):
        send(dispatch, found.delivery_id)
    assert delivery(big.home, found.delivery_id).state == "failed"
    assert not (big.home.exports / "desk").exists()


def test_withdrawn_between_preview_and_write_is_never_in_the_file(shop: Shop, dispatch: Dispatch) -> None:
    first = {row["customer_id"] for row in rows(sent(dispatch), shop.home)}
    found = asked(dispatch, "desk")
    approve(dispatch, found.delivery_id, by="ada", why="looked at it")
    gone = min(first)
    withdraws(shop, gone)
    done = send(dispatch, found.delivery_id)
    frame = pl.read_parquet(folder(done, shop.home) / "members.parquet")
    assert first - set(frame["customer_id"]) == {gone}
    assert done.exported == found.expected - 1


def test_withdrawn_while_it_is_under_way_is_not_in_what_is_committed(shop: Shop, wall: MovingClock) -> None:
    first = {row["customer_id"] for row in rows(sent(dispatch_of(shop.home)), shop.home)}
    gone, pending = min(first), [1]

    def advance(stage: str, _done: int, _total: int) -> None:
        if stage == "send" and pending:
            pending.pop()
            withdraws(shop, gone)

    done = sent(dispatch_of(shop.home, wall, advance=advance))
    assert first - {row["customer_id"] for row in rows(done, shop.home)} == {gone}
    assert done.attempt == 2
    assert recalls(shop.home) == []


def test_who_withdraws_later_is_called_back_from_a_folder_and_the_answer_is_taken(
    shop: Shop, dispatch: Dispatch, wall: MovingClock
) -> None:
    done = sent(dispatch)
    assert go_round(dispatch).recalled_people == 0
    gone = sorted(row["customer_id"] for row in rows(done, shop.home))[:2]
    refs = {row["customer_id"]: row["member_ref"] for row in rows(done, shop.home)}
    withdraws(shop, gone[0], 1_000)
    withdraws(shop, gone[1], 1_001, "object")
    assert go_round(dispatch).recalled_people == 2
    told = json.loads((folder(done, shop.home) / "recalls" / "00001.json").read_text())
    assert {each["member_ref"]: each["reason"] for each in told["members"]} == {
        refs[gone[0]]: "withdrawn",
        refs[gone[1]]: "objected",
    }
    assert (told["delivery_id"], told["manifest_sha256"]) == (done.delivery_id, done.manifest_sha256)
    (recall,) = recalls(shop.home)
    assert (recall.state, recall.count, recall.is_overdue(wall.at)) == ("told", 2, False)
    wall.at += timedelta(hours=73)
    assert go_round(dispatch).overdue == 1
    (folder(done, shop.home) / "recalls" / "00001.ack").write_text('{"receipt_id": "T-77"}')
    again = go_round(dispatch)
    assert (again.acknowledged, again.overdue, again.recalled_people) == (1, 0, 0)
    (recall,) = recalls(shop.home)
    assert (recall.state, recall.receipt_id, recall.age(wall.at)) == ("acknowledged", "T-77", timedelta(hours=73))
    assert recall.is_overdue(wall.at)
    assert [each.act for each in acts(shop.home, done.delivery_id)] == [
        "asked", "began", "sent", "recalled", "told", "acknowledged",
    ]  # fmt: skip
    assert [(each.event, each.people) for each in sharing(shop.home)] == [("sent", done.exported), ("recalled", 2)]


def test_an_answer_by_letter_is_written_down_by_hand(shop: Shop, dispatch: Dispatch) -> None:
    done = sent(dispatch)
    with pytest.raises(ActivationError, match="expected one that waits for an answer, found none"):
        acknowledge(dispatch, done.delivery_id, by="kim")
    withdraws(shop, rows(done, shop.home)[0]["customer_id"])
    go_round(dispatch)
    (recall,) = acknowledge(dispatch, done.delivery_id, by="kim", receipt="letter of 2 May")
    assert (recall.state, recall.acknowledged_by, recall.receipt_id) == ("acknowledged", "kim", "letter of 2 May")


def test_who_no_longer_shares_is_called_back_from_a_third_party_alone(shop: Shop, dispatch: Dispatch) -> None:
    own = sent(dispatch)
    who = rows(own, shop.home)[0]["customer_id"]
    shared = {"purpose_code": "third_party_sharing", "channel_code": "*"}
    withdraws(shop, who, 1_000, "grant", **shared)
    partner = sent(dispatch, "partner")
    withdraws(shop, who, 1_001, "withdraw", **shared)
    go_round(dispatch)
    (recall,) = recalls(shop.home)
    assert (recall.delivery_id, recall.reasons) == (partner.delivery_id, {"third_party_sharing_withdrawn": 1})


def test_a_yes_that_ends_by_itself_is_called_back_too(shop: Shop, dispatch: Dispatch, wall: MovingClock) -> None:
    done = sent(dispatch)
    later = Dispatch(shop.home, MovingClock(AS_OF + timedelta(days=800)), wall, rules=Rules())
    assert go_round(later).recalled_people == done.exported
    assert set(recalls(shop.home)[0].reasons) == {"expired"}


def test_nobody_is_asked_about_where_nothing_was_said_since(shop: Shop, dispatch: Dispatch) -> None:
    done = sent(dispatch)
    go_round(dispatch)
    path = members.path_of(shop.home, done.delivery_id)
    people = pl.read_parquet(path)
    nobody = people.with_columns(customer_id=pl.lit("cus_nobody"), contact_ref=pl.lit("email_nobody"))
    nobody.write_parquet(path)  # would all be called back, were they asked about
    assert go_round(dispatch).recalled_people == 0
    withdraws(shop, customer(1))
    assert go_round(dispatch).recalled_people == done.exported
    assert set(recalls(shop.home)[0].reasons) == {"no_longer_known"}


def test_what_a_recipient_may_no_longer_use_is_forgotten(shop: Shop, dispatch: Dispatch, wall: MovingClock) -> None:
    done = sent(dispatch)
    wall.at += timedelta(days=365, minutes=1)
    assert go_round(dispatch).forgotten == [done.delivery_id]
    assert members.read_members(shop.home, done.delivery_id).height == 0
    assert deliveries(shop.home)[0].delivery_id == done.delivery_id


def test_an_erased_person_is_called_back_and_no_trace_of_them_is_kept(shop: Shop, dispatch: Dispatch) -> None:
    done = sent(dispatch)
    row = rows(done, shop.home)[0]
    token = next(who["email_ref"] for who in shop.customers if who["customer_id"] == row["customer_id"])
    identifiers = [row["customer_id"], token]
    assert [each.delivery_id for each in deliveries_of(shop.home, identifiers)] == [done.delivery_id]
    assert recall_erased(shop.home, identifiers, AS_OF) == {"deliveries": 1, "recalled": 1}
    assert recall_erased(shop.home, identifiers, AS_OF) == {"deliveries": 0, "recalled": 0}
    assert deliveries_of(shop.home, identifiers) == []
    go_round(dispatch)
    told = json.loads((folder(done, shop.home) / "recalls" / "00001.json").read_text())
    assert told["members"] == [{"member_ref": row["member_ref"], "reason": "erased"}]
    for path in [*(shop.home.root / "activation").rglob("*"), *shop.home.root.glob("activation.db*")]:
        if path.is_file():
            assert not any(each.encode() in path.read_bytes() for each in identifiers), path


def test_what_is_staged_with_an_erased_person_is_staged_anew_without_them(shop: Shop, wall: MovingClock) -> None:
    with receiving(shop.home) as receiver:
        dispatch = dispatch_of(shop.home, wall)
        found = asked(dispatch, "letters")
        receiver.refuses, receiver.is_deaf_after_taking = 1, True
        stopped = send(dispatch, found.delivery_id)
        assert (stopped.state, stopped.is_out, stopped.last_fault) == ("sending", True, "refused (503)")
        (part,) = receiver.of("activation.members")
        gone = part["members"][0]
        recall_erased(shop.home, [gone["customer_id"]], wall.at)
        shop.tell([], publish=False)
        with open_vault(shop.home) as vault:
            vault.erase([ref("email", gone["email"])])
        wall.at += timedelta(hours=1)
        assert go_round(dispatch).sent == [found.delivery_id]
    (done,) = receiver.of("activation.completed")
    assert done["counts"]["exported"] == stopped.exported - 1
    first, second = receiver.of("activation.members")
    assert gone in first["members"]
    assert gone["member_ref"] not in {each["member_ref"] for each in second["members"]}
    assert [each["members"] for each in receiver.of("activation.recalled")] == [
        [{"member_ref": gone["member_ref"], "reason": "erased"}]
    ]


def test_a_webhook_gets_signed_parts_then_the_manifest_that_names_each(shop: Shop, wall: MovingClock) -> None:
    with receiving(shop.home) as receiver:
        dispatch = dispatch_of(shop.home, wall)
        done = sent(dispatch, "letters")
        (manifest,), parts = receiver.of("activation.completed"), receiver.of("activation.members")
        hashes = [hashlib.sha256(receiver.bodies[f"{done.delivery_id}.1.{n}"]).hexdigest() for n in (1,)]
        assert [each["sha256"] for each in manifest["files"].values()] == hashes
        assert len(parts[0]["members"]) == done.exported
        assert set(parts[0]["members"][0]) == {"member_ref", "customer_id", "email"}
        assert done.receipt_id == f"took-{done.delivery_id}.1.manifest"
        withdraws(shop, parts[0]["members"][0]["customer_id"])
        go_round(dispatch)
        (told,) = receiver.of("activation.recalled")
    assert told["members"] == [{"member_ref": parts[0]["members"][0]["member_ref"], "reason": "withdrawn"}]
    (recall,) = recalls(shop.home)
    assert (recall.state, recall.receipt_id) == ("acknowledged", f"took-{done.delivery_id}.recall.1")


def test_a_webhook_that_answers_late_gets_the_same_message_and_takes_it_once(shop: Shop, wall: MovingClock) -> None:
    with receiving(shop.home) as receiver:
        dispatch = dispatch_of(shop.home, wall)
        found = asked(dispatch, "letters")
        receiver.refuses, receiver.is_deaf_after_taking = 2, True
        for _ in range(4):
            send(dispatch, found.delivery_id)
            wall.at += timedelta(hours=1)
    assert delivery(shop.home, found.delivery_id).state == "sent"
    part, manifest = f"{found.delivery_id}.1.1", f"{found.delivery_id}.1.manifest"
    assert receiver.arrivals == [part, part, part, manifest]
    assert (len(receiver.of("activation.members")), len(receiver.of("activation.completed"))) == (1, 1)


def test_what_is_given_up_half_way_is_called_back_from_whoever_took_a_part(shop: Shop, wall: MovingClock) -> None:
    with receiving(shop.home) as receiver:
        dispatch = dispatch_of(shop.home, wall)
        found = asked(dispatch, "letters")
        receiver.refuses, receiver.is_deaf_after_taking = 12, True
        for _ in range(12):
            done = send(dispatch, found.delivery_id)
            wall.at += timedelta(days=1)
        assert done.state == "failed"
        assert not staged_folder(shop.home, found.delivery_id).exists()
        go_round(dispatch)
    (told,) = receiver.of("activation.recalled")
    assert {each["reason"] for each in told["members"]} == {"abandoned"}
    assert len(told["members"]) == found.expected


def test_who_was_given_up_and_not_called_back_before_a_kill_is_called_back_by_the_next_round(
    shop: Shop, dispatch: Dispatch
) -> None:
    done = sent(dispatch)
    go_round(dispatch)
    with Book(shop.home) as book:
        book.change(done, AS_OF, state="failed")
    assert go_round(dispatch).recalled_people == done.exported
    assert go_round(dispatch).recalled_people == 0
    assert set(recalls(shop.home)[0].reasons) == {"abandoned"}


def test_a_delivery_that_never_left_counts_nobody_as_contacted(shop: Shop, wall: MovingClock) -> None:
    path = shop.home.root / "destinations.yml"
    path.write_text(path.read_text().replace("exports/own", "/proc/nowhere"))
    dispatch = dispatch_of(shop.home, wall)
    found = asked(dispatch)
    for _ in range(12):
        done = send(dispatch, found.delivery_id)
        wall.at += timedelta(days=1)
    assert (done.state, done.is_out) == ("failed", False)
    assert list((kept.folder_of(shop.home) / "contacts").glob("*.parquet")) == []
    assert members.read_members(shop.home, found.delivery_id).height == 0
    assert sharing(shop.home) == []


def test_two_do_not_send_the_same_delivery_at_once(dispatch: Dispatch) -> None:
    found = asked(dispatch)
    with turn(dispatch.home, found.delivery_id), pytest.raises(ActivationError, match="expected nobody else at it"):
        send(dispatch, found.delivery_id)
    assert send(dispatch, found.delivery_id).state == "sent"
    assert send(dispatch, found.delivery_id).attempt == 1


def test_everybody_sent_counts_as_contacted_once(shop: Shop, dispatch: Dispatch) -> None:
    done = sent(dispatch)
    contacts = list((kept.folder_of(shop.home) / "contacts").glob("*.parquet"))
    assert [path.name.split("-")[-1] for path in contacts] == [f"{done.mark}.parquet"]
    assert pl.read_parquet(contacts[0]).height == done.exported


def test_a_schedule_asks_again_and_sends_what_needs_nobody(shop: Shop, wall: MovingClock) -> None:
    declare(
        shop.home,
        "schedules:\n"
        '  daily: {segment: everybody, destination: own_folder, channel: email, cron: "0 6 * * *", asked_by: kim}\n'
        '  weekly: {segment: everybody, destination: desk, channel: email, cron: "0 6 * * 1", asked_by: kim}\n',
    )
    dispatch = dispatch_of(shop.home, wall)
    assert follow_schedule(dispatch, "daily").state == "sent"
    first = follow_schedule(dispatch, "weekly")
    wall.at += timedelta(minutes=1)
    second = follow_schedule(dispatch, "weekly")
    assert (delivery(shop.home, first.delivery_id).state, second.state) == ("expired", "asked")
    with pytest.raises(ActivationError, match="expected another person"):
        approve(dispatch, second.delivery_id, by="kim", why="mine")
    approve(dispatch, second.delivery_id, by="ada", why="looked at it")
    assert go_round(dispatch).sent == [second.delivery_id]
    with pytest.raises(ActivationError, match="schedule: expected one of daily, weekly"):
        follow_schedule(dispatch, "hourly")


@pytest.fixture
def bucket(shop: Shop) -> Iterator[fs.S3FileSystem]:
    """A real S3 server on the loopback address, with a bucket in it; declared as `lake`."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        declare(shop.home, S3 % f"http://{host}:{port}")
        path = shop.home.root / "keys" / "lake.s3"
        path.write_text('{"access_key": "testing", "secret_key": "testing"}')
        path.chmod(0o600)
        files = fs.S3FileSystem(
            access_key="testing", secret_key="testing", region="us-east-1", scheme="http",
            endpoint_override=f"{host}:{port}", allow_bucket_creation=True,
        )  # fmt: skip
        files.create_dir("troth-exports")
        yield files
    finally:
        server.stop()


def read(files: fs.S3FileSystem, path: str) -> bytes:
    with files.open_input_stream(path) as stream:
        return bytes(stream.read())


def test_a_bucket_gets_every_file_before_the_manifest_and_the_recall_with_its_answer(
    shop: Shop, wall: MovingClock, bucket: fs.S3FileSystem
) -> None:
    top = "troth-exports/crm"
    seen: list[list[str]] = []

    def advance(stage: str, _done: int, _total: int) -> None:
        if stage == "send":
            found = bucket.get_file_info(fs.FileSelector(top, recursive=True))
            seen.append([each.base_name for each in found if each.is_file])

    dispatch = dispatch_of(shop.home, wall, advance=advance)
    done = sent(dispatch, "lake")
    assert seen == [["members.parquet"]]
    manifest = read(bucket, f"{top}/{done.delivery_id}/manifest.json")
    assert hashlib.sha256(manifest).hexdigest() == done.manifest_sha256
    data = read(bucket, f"{top}/{done.delivery_id}/members.parquet")
    assert json.loads(manifest)["files"] == {
        "members.parquet": {"sha256": hashlib.sha256(data).hexdigest(), "rows": done.exported}
    }
    who = pl.read_parquet(io.BytesIO(data)).row(0, named=True)
    withdraws(shop, who["customer_id"])
    go_round(dispatch)
    told = json.loads(read(bucket, f"{top}/{done.delivery_id}/recalls/00001.json"))
    assert told["members"] == [{"member_ref": who["member_ref"], "reason": "withdrawn"}]
    assert recalls(shop.home)[0].state == "told"
    with bucket.open_output_stream(f"{top}/{done.delivery_id}/recalls/00001.ack") as stream:
        stream.write(b"ticket-9")
    assert go_round(dispatch).acknowledged == 1
    assert recalls(shop.home)[0].receipt_id == "ticket-9"


def test_a_bucket_that_refuses_is_tried_again_and_its_fault_has_a_code_and_no_secret(
    shop: Shop, wall: MovingClock, bucket: fs.S3FileSystem
) -> None:
    dispatch = dispatch_of(shop.home, wall)
    path = shop.home.root / "destinations.yml"
    path.write_text(path.read_text().replace("troth-exports/crm", "no-such-bucket/crm"))
    found = asked(dispatch, "lake")
    stopped = send(dispatch, found.delivery_id)
    assert (stopped.state, stopped.is_out, stopped.last_fault) == ("sending", False, "no_such_bucket")
    assert not staged_folder(shop.home, found.delivery_id).exists()
    bucket.create_dir("no-such-bucket")
    assert send(dispatch, found.delivery_id).state == "sent"
