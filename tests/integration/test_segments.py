"""Segments over real published tables, ledger and vault, beside a row-by-row reference written here."""

import csv
import hashlib
import io
import json
import sqlite3
import threading
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from consent.errors import LedgerError
from consent.events import Event
from consent.receipts import decisions
from consent.vault import open_vault
from models.decisions import folder_of, replay
from models.errors import ModelsError
from models.segments import export as export_module
from models.segments import preview as preview_module
from models.segments.conditions import Happened, Unless
from models.segments.definition import Comparison, Segment, SegmentError, load, names
from models.segments.export import ExportReport, protected
from models.segments.preview import ChannelPreview, SegmentPreview
from models.segments.rules import Rules
from models.segments.sql import compiled, rendered
from models.tables import write
from tests.integration.segment_shop import AS_OF, EVERYBODY, NAIVE, Shop, plain_segment, ref, said
from troth.home import Home
from troth.published import current

NO_RULES = Rules()
EVENTS = 60  # in the ledger of a shop


def export(
    home: Home, segment: Segment, folder: Path, at: datetime, dry_run: bool = False, **named: Any
) -> ExportReport:
    """An export over and over, so without caps unless they are what is tested."""
    return export_module.export(home, segment, folder, at, dry_run, **{"rules": NO_RULES, **named})


def preview(home: Home, segment: Segment, at: datetime, **named: Any) -> SegmentPreview:
    return preview_module.preview(home, segment, at, **{"rules": NO_RULES, **named})


def only(found: SegmentPreview) -> ChannelPreview:
    (channel,) = found.channels.values()
    return channel


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return Shop(Home(tmp_path_factory.mktemp("home")))


@pytest.fixture
def own_shop(tmp_path: Path) -> Shop:
    """A shop that a test may change."""
    return Shop(Home(tmp_path / "home"))


def test_a_dry_run_counts_as_the_preview_does_and_writes_nothing(shop: Shop, tmp_path: Path) -> None:
    segment = plain_segment(EVERYBODY, channels=("sms",), holdout_percent=20, name="dry")
    before = sorted((path, path.stat().st_mtime_ns) for path in shop.home.root.rglob("*") if path.is_file())
    report = export(shop.home, segment, tmp_path / "out", AS_OF, dry_run=True)
    counts = preview(shop.home, segment, AS_OF)
    assert report.folder is None
    assert report.matched == counts.matched
    assert (report.exported, report.refused) == (only(counts).may_be_contacted, only(counts).refused)
    assert sorted((path, path.stat().st_mtime_ns) for path in shop.home.root.rglob("*") if path.is_file()) == before
    assert list(tmp_path.iterdir()) == []


def exported(folder: Path) -> dict[str, str]:
    rows = list(csv.reader(io.StringIO((folder / "members.csv").read_text())))
    return {row[0]: row[-1] for row in rows[1:]}


def test_an_export_names_everything_it_rests_on(shop: Shop, tmp_path: Path) -> None:
    segment = plain_segment(EVERYBODY, holdout_percent=10, name="held")
    report = export(shop.home, segment, tmp_path / "out", AS_OF)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    data = (tmp_path / "out" / "members.csv").read_bytes()
    assert manifest["files"]["members.csv"] == {"sha256": hashlib.sha256(data).hexdigest(), "rows": report.exported}
    assert manifest["segment"]["hash"] == segment.hash
    assert manifest["segment"]["version"] == 1
    counts = manifest["counts"]
    assert counts["matched"] == counts["exported"] + sum(counts["refused"].values())
    with shop.ledger() as ledger:
        assert manifest["consent"]["checkpoint"] == ledger.checkpoint()
        assert manifest["consent"]["ledger_size"] == ledger.size
        assert manifest["consent"]["ledger_root"] == ledger.root().hex()
    assert len(manifest["consent"]["policy_hash"]) == 64
    assert {"customers", "customer_identities"} <= set(manifest["tables"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_contact_data_goes_to_those_who_may_be_contacted_and_to_no_other_file(shop: Shop, tmp_path: Path) -> None:
    segment = plain_segment(EVERYBODY)
    export(shop.home, segment, tmp_path / "out", AS_OF)
    people = {who["customer_id"]: who for who in shop.customers}
    sent = exported(tmp_path / "out")
    assert sent
    for who, address in sent.items():
        assert ref("email", address) == people[who]["email_ref"]
    assert len(set(sent.values())) == len(sent)
    assert "@" not in (tmp_path / "out" / "manifest.json").read_text()
    assert (tmp_path / "out").stat().st_mode & 0o077 == 0


def test_a_contact_point_the_vault_does_not_hold_is_counted_as_none(own_shop: Shop, tmp_path: Path) -> None:
    own_shop.home.vault.unlink()
    with open_vault(own_shop.home) as vault:
        assert vault.size == 0
    counts = preview(own_shop.home, plain_segment(EVERYBODY), AS_OF)
    report = export(own_shop.home, plain_segment(EVERYBODY), tmp_path / "out", AS_OF)
    assert report.exported == 0
    assert report.refused["no_contact_point"] == only(counts).may_be_contacted + only(counts).refused.get(
        "no_contact_point", 0
    )


def test_withdrawn_consent_leaves_the_next_export(own_shop: Shop, tmp_path: Path) -> None:
    segment = plain_segment(EVERYBODY)
    export(own_shop.home, segment, tmp_path / "first", AS_OF)
    gone = min(exported(tmp_path / "first"))
    subject = next(who["email_ref"] for who in own_shop.customers if who["customer_id"] == gone)
    counts = preview(own_shop.home, segment, AS_OF)
    # Only the ledger hears of it: the marts are those of the last run.
    own_shop.tell([said(subject, "withdraw", 1_000, AS_OF - timedelta(minutes=1))], publish=False)
    report = export(own_shop.home, segment, tmp_path / "second", AS_OF)
    assert gone not in exported(tmp_path / "second")
    assert preview(own_shop.home, segment, AS_OF) == counts
    assert report.ledger_size == EVENTS + 1


def test_a_withdrawal_received_after_the_time_asked_for_still_counts(own_shop: Shop, tmp_path: Path) -> None:
    segment = plain_segment(EVERYBODY)
    export(own_shop.home, segment, tmp_path / "first", AS_OF)
    gone = min(exported(tmp_path / "first"))
    subject = next(who["email_ref"] for who in own_shop.customers if who["customer_id"] == gone)
    own_shop.tell([said(subject, "withdraw", 1_000, AS_OF + timedelta(hours=3))], publish=False)
    export(own_shop.home, segment, tmp_path / "second", AS_OF)
    assert gone not in exported(tmp_path / "second")


def tell_while_a_file_is_written(shop: Shop, monkeypatch: pytest.MonkeyPatch, *events: Event) -> None:
    pending, write_file = list(events), export_module.write_atomically

    def tell_then_write(path: Path, data: bytes) -> None:
        while pending:
            shop.tell([pending.pop(0)], publish=False)
        write_file(path, data)

    monkeypatch.setattr(export_module, "write_atomically", tell_then_write)


def test_a_withdrawal_while_the_file_is_written_is_not_in_it(
    own_shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segment = plain_segment(EVERYBODY)
    export(own_shop.home, segment, tmp_path / "first", AS_OF)
    gone = min(exported(tmp_path / "first"))
    subject = next(who["email_ref"] for who in own_shop.customers if who["customer_id"] == gone)
    tell_while_a_file_is_written(own_shop, monkeypatch, said(subject, "withdraw", 1_000, AS_OF))
    report = export(own_shop.home, segment, tmp_path / "second", AS_OF)
    assert gone not in exported(tmp_path / "second")
    assert report.ledger_size == EVENTS + 1


def test_a_withdrawal_while_others_are_asked_is_not_in_the_file(
    own_shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(own_shop.home, plain_segment(EVERYBODY), tmp_path / "first", AS_OF)
    refs = {who["customer_id"]: who["email_ref"] for who in own_shop.customers}
    gone = sorted(exported(tmp_path / "first"))[:3]
    pending = [said(refs[who], "withdraw", number, AS_OF) for number, who in enumerate(gone, start=1_000)]
    open_checkpoint = export_module.open_checkpoint

    def open_then_tell(*asked: Any) -> Any:
        """A size is known; before anything is read under it, the ledger grows."""
        found = open_checkpoint(*asked)
        if pending:
            own_shop.tell([pending.pop(0)], publish=False)
        return found

    monkeypatch.setattr(export_module, "open_checkpoint", open_then_tell)
    report = export(own_shop.home, plain_segment(EVERYBODY), tmp_path / "second", AS_OF)
    assert pending == []
    assert not set(gone) & set(exported(tmp_path / "second"))
    assert report.ledger_size == EVENTS + 3
    with own_shop.ledger() as ledger:
        assert report.manifest["consent"]["checkpoint"] == ledger.checkpoint()


def test_a_yes_that_ends_while_the_file_is_written_is_not_in_it(
    own_shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(own_shop.home, plain_segment(EVERYBODY), tmp_path / "first", AS_OF)
    people = {who["customer_id"]: who for who in own_shop.customers}
    heard_of = {one.event.subject_id for one in own_shop.told}
    other, *rest = sorted(exported(tmp_path / "first"))
    ending = next(who for who in rest if people[who]["card_ref"] not in heard_of)
    long_ago = AS_OF - timedelta(days=730) + timedelta(hours=1)
    own_shop.tell([said(people[ending]["card_ref"], "grant", 1_000, long_ago)], publish=False)
    late = said(people[other]["email_ref"], "withdraw", 1_001, AS_OF + timedelta(hours=2))
    tell_while_a_file_is_written(own_shop, monkeypatch, late)
    report = export(own_shop.home, plain_segment(EVERYBODY), tmp_path / "second", AS_OF)
    assert set(exported(tmp_path / "first")) - set(exported(tmp_path / "second")) == {ending, other}
    with (
        own_shop.ledger() as ledger
    ):  # whoever decides again finds the same: everybody, then those who were asked again
        for name, count in (("decision", report.matched + report.test_customers), ("decided_again", 2)):
            assert replay(own_shop.home, report.manifest[name]["number"], ledger).subject_count == count
        receipt = decisions.load(folder_of(own_shop.home), report.manifest["decided_again"]["number"], ledger.verifier)
    assert [(count["reason_code"], count["subject_count"]) for count in receipt.counts] == [
        ("expired", 1),
        ("withdrawn", 1),
    ]
    assert receipt.use.outputs["members.csv"] == report.manifest["files"]["members.csv"]["sha256"]
    assert receipt.size == report.ledger_size


def test_who_speaks_while_the_file_is_written_is_asked_again_with_all_they_were_ever_joined_to(
    own_shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(own_shop.home, plain_segment(EVERYBODY), tmp_path / "first", AS_OF)
    gone = min(exported(tmp_path / "first"))
    who = next(each for each in own_shop.customers if each["customer_id"] == gone)
    stranger = ref("card", 9_999)
    linked = [
        said(
            one,
            "identity_linked",
            number,
            purpose_code="*",
            channel_code="*",
            linked_subject_id=other,
            link_type="contact",
        )
        for number, (one, other) in enumerate([(who["card_ref"], stranger), (stranger, who["card_ref"])], start=1_000)
    ]
    own_shop.tell([*linked, said(stranger, "withdraw", 1_002)], publish=False)
    tell_while_a_file_is_written(own_shop, monkeypatch, said(who["email_ref"], "grant", 1_003, AS_OF))
    export(own_shop.home, plain_segment(EVERYBODY), tmp_path / "second", AS_OF)
    assert gone not in exported(tmp_path / "second")


def test_an_export_is_finished_while_people_keep_talking_and_nobody_who_withdrew_before_it_is_in_it(
    own_shop: Shop, tmp_path: Path
) -> None:
    export(own_shop.home, plain_segment(EVERYBODY), tmp_path / "first", AS_OF)
    refs = {who["customer_id"]: who["email_ref"] for who in own_shop.customers}
    gone: list[str] = []
    is_done = threading.Event()

    def withdraw_one_by_one() -> None:
        for number, customer_id in enumerate(exported(tmp_path / "first"), start=1_000):
            if is_done.is_set():
                return
            own_shop.tell([said(refs[customer_id], "withdraw", number, AS_OF)], publish=False)
            gone.append(customer_id)

    talking = threading.Thread(target=withdraw_one_by_one)
    talking.start()
    for number in range(4):
        before = list(gone)
        export(own_shop.home, plain_segment(EVERYBODY), tmp_path / f"out-{number}", AS_OF)
        assert not set(before) & set(exported(tmp_path / f"out-{number}"))
    is_done.set()
    talking.join()


def test_a_person_nobody_asked_is_refused_whatever_the_mart_lacks(own_shop: Shop, tmp_path: Path) -> None:
    write(own_shop.home, "consent_standing", pl.read_parquet(current(own_shop.home, "consent_standing")).clear())
    found = preview(own_shop.home, plain_segment(EVERYBODY), AS_OF)
    assert only(found) == ChannelPreview(0, {"never_asked": found.matched})
    assert found.ledger_size is None
    write(own_shop.home, "customer_identities", own_shop.identities.clear())
    report = export(own_shop.home, plain_segment(EVERYBODY), tmp_path / "out", AS_OF)
    assert report.refused == {"never_asked": report.matched}


def test_a_grant_that_has_ended_by_then_is_expired_in_preview_and_export(shop: Shop, tmp_path: Path) -> None:
    later = AS_OF + timedelta(days=3_000)
    found = preview(shop.home, plain_segment(EVERYBODY), later)
    assert only(found).may_be_contacted == 0
    assert only(found).refused["expired"] > 0
    assert export(shop.home, plain_segment(EVERYBODY), tmp_path / "out", later).exported == 0


def test_a_ledger_changed_by_hand_lets_nobody_out(own_shop: Shop, tmp_path: Path) -> None:
    with sqlite3.connect(own_shop.home.ledger) as connection:
        connection.execute("drop trigger batches_refuse_update")
        connection.execute(
            "update batches set payloads = substr(payloads, 1, 60) || zeroblob(1) || substr(payloads, 62)"
        )
    connection.close()
    with pytest.raises(LedgerError):
        export(own_shop.home, plain_segment(EVERYBODY), tmp_path / "out", AS_OF)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("missing", "told"),
    [
        (("ledger.db",), "ledger: expected the one that ledger.checkpoint in the home remembers, found none"),
        (("ledger.db", "ledger.checkpoint"), "ledger: expected one in .*, found none"),
        (("vault.db",), "vault: expected one in .*, found none"),
    ],
)
def test_without_ledger_or_vault_nobody_is_exported(
    own_shop: Shop, tmp_path: Path, missing: Sequence[str], told: str
) -> None:
    for name in missing:
        (own_shop.home.root / name).unlink()
    with pytest.raises((SegmentError, LedgerError), match=told):
        export(own_shop.home, plain_segment(EVERYBODY), tmp_path / "out", AS_OF)
    assert not (own_shop.home.root / missing[0]).exists()


def test_an_export_never_replaces_another(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(SegmentError, match="export folder: expected a new one, found out already there"):
        export(shop.home, plain_segment(EVERYBODY), tmp_path / "out", AS_OF)


def test_every_segment_that_is_shipped_fits_the_published_tables(shop: Shop) -> None:
    for name in names():
        found = preview_module.preview(shop.home, load(name), AS_OF)
        assert found.matched == only(found).may_be_contacted + sum(only(found).refused.values())


@pytest.mark.filterwarnings("ignore:sqlglotrs is deprecated:DeprecationWarning")  # another tool brings it in
@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("dialect", ["spark", "snowflake", "bigquery", "postgres"])
def test_a_segments_sql_is_portable(shop: Shop, name: str, dialect: str) -> None:
    import sqlglot

    query = compiled(shop.home, load(name), NAIVE)
    statement = sqlglot.parse_one(rendered(query, dialect), read=dialect)
    parameters = {each.name for each in statement.find_all(sqlglot.exp.Placeholder, sqlglot.exp.Parameter)}
    assert len(parameters) == len(query.parameters)


def test_another_dialect_than_those_known_is_named(shop: Shop) -> None:
    with pytest.raises(SegmentError, match=r"dialect: expected one of .*spark.*, found 'cobol'"):
        rendered(compiled(shop.home, load(names()[0]), NAIVE), "cobol")


def test_no_value_of_a_definition_reaches_the_sql_text(shop: Shop) -> None:
    where = Comparison("customers", "tier_code", "=", ("gold'); drop table customers; --",))
    query = compiled(shop.home, plain_segment(where), NAIVE)
    assert "drop table" not in query.sql
    assert preview(shop.home, plain_segment(where), AS_OF).matched == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"where": Comparison("customer", "tier_code", "=", ("gold",))},
            "expected a subject of customers, .* found customer",
        ),
        (
            {"where": Comparison("customers", "tier", "=", ("gold",))},
            r"expected a field of customers \(.*tier_code.*\), found tier",
        ),
        (
            {"where": Comparison("customers", "email_ref", "=", ("x",))},
            "expected a field of customers .* found email_ref",
        ),
        (
            {"where": Comparison("customers", "customer_id", "=", ("x",))},
            "expected a field of customers .* found customer_id",
        ),
        (
            {"where": Comparison("customers", "tier_code", "<", ("gold",))},
            "expected one of = != in known missing for a text field, found <",
        ),
        (
            {"where": Comparison("customers", "has_card", "=", ("yes",))},
            "expected a boolean such as true or false, found 'yes'",
        ),
        ({"where": Comparison("customers", "first_seen_at", ">", ("May",))}, "expected a timestamp such as 2026"),
        (
            {"where": Comparison("churn", "churn_probability", ">", ("nan",))},
            "expected a number such as 0.5, found 'nan'",
        ),
        ({"where": EVERYBODY, "purpose": "fun"}, "purpose: expected one of personalization, .* found fun"),
        ({"where": EVERYBODY, "channels": ("fax",)}, "channel: expected one of email, .* found fax"),
        (
            {"where": Happened("viewed", (), "net_cents", ">=", 5, 24)},
            "expected one of times for viewed, found net_cents",
        ),
        (
            {"where": Happened("bought", (), "gross_cents", ">=", 5, 24)},
            "expected one of times, units, net_cents for bought, found gross_cents",
        ),
        (
            {"where": Happened("ordered", (), "times", ">=", 1, 24, Unless("bought", (), "sku", 24))},
            r"expected a field of both that names a thing \(none\), found sku",
        ),
        (
            {"where": Happened("viewed", (), "times", ">=", 1, 24, Unless("lent", (), "sku", 24))},
            "expected an event of ordered, .* found lent",
        ),
        (
            {"where": EVERYBODY, "purpose": "personalization"},
            "purpose: expected one that people are asked about for email, found personalization",
        ),
    ],
)
def test_what_the_tables_or_the_policy_do_not_have_is_named(shop: Shop, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelsError, match=message):
        preview(shop.home, plain_segment(**changes), AS_OF)


@pytest.mark.parametrize("channel", ["post", "push"])
def test_nobody_has_a_letter_box_or_a_device_that_no_source_lands(shop: Shop, tmp_path: Path, channel: str) -> None:
    by = {which: plain_segment(EVERYBODY, channels=(which,), name=f"by_{which}") for which in ("email", channel)}
    found = {which: preview(shop.home, segment, AS_OF, rules=Rules()) for which, segment in by.items()}
    counts = found[channel].channels[channel]
    assert counts.may_be_contacted == 0
    assert counts.refused["no_contact_point"] > 0
    assert sum(counts.refused.values()) == found[channel].matched == found["email"].matched
    report = export(shop.home, by[channel], tmp_path / "out", AS_OF, rules=Rules())
    assert (report.exported, report.refused) == (0, counts.refused)
    assert (tmp_path / "out" / "members.csv").read_text().splitlines() == [f"customer_id,{channel}"]


def test_what_they_looked_at_and_bought_is_no_longer_what_they_only_looked_at(shop: Shop) -> None:
    found = {}
    for unless in (None, Unless("bought", (), "sku", 90 * 24)):
        where = Happened("viewed", (Comparison("", "sku", "known", ()),), "times", ">=", 1, 90 * 24, unless)
        found[unless is None] = preview(shop.home, plain_segment(where), AS_OF, rules=Rules()).matched
    assert 0 < found[False] < found[True]


def test_a_segment_shown_on_the_site_needs_no_contact_point(shop: Shop, tmp_path: Path) -> None:
    segment = plain_segment(EVERYBODY, purpose="service", channels=("onsite",), name="shown")
    report = export(shop.home, segment, tmp_path / "out", AS_OF)
    assert report.exported == report.matched > 0
    assert (tmp_path / "out" / "members.csv").read_text().splitlines()[0] == "customer_id"


@pytest.mark.parametrize(
    ("cell", "written"),
    [
        ("=1+1", "'=1+1"),
        ("+SUM(A1)@x", "'+SUM(A1)@x"),
        ("-2+3+cmd|' /C calc'!A0", "'-2+3+cmd|' /C calc'!A0"),
        ("@x", "'@x"),
        ("\t=1", "'\t=1"),
        ("\r=1", "'\r=1"),
        ("+1 503 555-0100", "+1 503 555-0100"),
        ("-12", "-12"),
        ("ada@example.com", "ada@example.com"),
        ("", ""),
    ],
)
def test_no_cell_is_taken_for_a_formula(cell: str, written: str) -> None:
    assert protected(cell) == written


def test_a_formula_in_an_address_is_harmless_in_the_file(own_shop: Shop, tmp_path: Path) -> None:
    export(own_shop.home, plain_segment(EVERYBODY), tmp_path / "first", AS_OF)
    who = min(exported(tmp_path / "first"))
    subject = next(row["email_ref"] for row in own_shop.customers if row["customer_id"] == who)
    own_shop.home.vault.unlink()
    with open_vault(own_shop.home) as vault:
        vault.put([(subject, "=cmd()@example.com")])
    export(own_shop.home, plain_segment(EVERYBODY), tmp_path / "second", AS_OF)
    assert exported(tmp_path / "second") == {who: "'=cmd()@example.com"}
