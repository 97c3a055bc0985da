"""Segments over real published tables, ledger and vault, beside a row-by-row reference written here."""

import csv
import hashlib
import io
import json
import operator
import random
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consent.errors import LedgerError
from consent.events import Event
from consent.ledger.ledger import Ledger, Recorded
from consent.ledger.opening import open_ledger
from consent.receipts import decisions
from consent.rule.policy import read_policy
from consent.rule.standing import merged, standing, standing_frame
from consent.vault import open_vault
from models.decisions import folder_of, replay
from models.errors import ModelsError
from models.segments import export as export_module
from models.segments.decision import counted, decided, members
from models.segments.definition import Comparison, Condition, Group, Segment, SegmentError, load, names
from models.segments.export import export, protected
from models.segments.preview import preview
from models.segments.sql import compiled
from models.tables import write
from troth.clock import FixedClock
from troth.home import Home
from troth.ids import tokeniser
from troth.published import current

AS_OF = datetime(2026, 5, 1, 2, tzinfo=UTC)
NAIVE = AS_OF.replace(tzinfo=None)
TIMESTAMP = pl.Datetime("us")
POLICY = read_policy()
token = tokeniser(b"k" * 32)


def customer(number: int) -> str:
    return f"cus_{number:022x}"


def ref(kind: str, value: object) -> str:
    found = token(kind, str(value))
    assert found is not None
    return found


def said(
    subject_id: str, event_type: str, number: int, at: datetime = AS_OF - timedelta(days=10), **named: Any
) -> Event:
    plain = Event(
        subject_id=subject_id,
        event_type=event_type,
        purpose_code="marketing",
        channel_code="email",
        occurred_at=at,
        recorded_at=at,
        received_at=at,
        notice_id="web_banner",
        notice_version=1,
        language_code="en",
        capture_method="form_tick",
        capture_place="web_banner",
        actor_type="subject",
        jurisdiction_code="US-OR",
        signal_id=f"signal-{number}",
    )
    return replace(plain, **named)


def plain_segment(where: Condition, **named: Any) -> Segment:
    plain = Segment("plain", 1, "Plain.", "crm", "marketing", "email", 0, where)
    return replace(plain, **named)


EVERYBODY = Comparison("customers", "customer_number", ">=", ("0",))


class Shop:
    """A small retailer: forty customers with gaps in what is known of them, their consent in a real ledger."""

    def __init__(self, home: Home, seed: int = 3) -> None:
        self.home = home
        chance = random.Random(seed)
        self.customers = [self._customer(number, chance) for number in range(40)]
        self.purchases = [
            self._purchases(number, chance, at) for number in range(30) for at in (NAIVE, NAIVE - timedelta(7))
        ]
        self.stock = [
            {
                "sku": f"SKU-{sku:05d}",
                "location_code": location,
                "feature_at": NAIVE,
                "has_stock": chance.random() < 0.6,
            }
            for sku in range(12)
            for location in ("S001", "S002")
        ]
        self.products = [
            {"sku": f"SKU-{sku:05d}", "category_name": ("Tents", "Boots", "Stoves")[sku % 3]} for sku in range(12)
        ]
        self.views = [self._view(number, chance) for number in range(300)]
        self.locations = [
            {"location_code": "S001", "timezone_name": "America/Los_Angeles"},
            {"location_code": "S002", "timezone_name": "America/New_York"},
        ]
        self.churn = [{"customer_id": customer(n), "churn_probability": chance.random()} for n in range(0, 40, 3)]
        self.links = [
            link
            for row in self.customers
            for link in (
                (row["email_ref"], "hub"),
                (row["phone_ref"], chance.choice(["deterministic", "contact"])),
                (row["card_ref"], "deterministic"),
            )
            if link[0]
        ]
        self.publish()
        subjects = sorted({subject for subject, _ in self.links})
        self.tell(
            [
                said(
                    subject,
                    chance.choice(["grant", "grant", "grant", "refuse", "withdraw", "object"]),
                    number,
                    AS_OF - timedelta(days=chance.choice([5, 20, 800])),
                    channel_code=chance.choice(["email", "sms", "*"]),
                    notice_version=chance.choice([1, 2, None]),
                )
                for number, subject in enumerate(chance.choices(subjects, k=60))
            ]
        )
        with open_vault(home) as vault:
            vault.put((ref("email", f"p{n}@example.com"), f"p{n}@example.com") for n in range(38))
            vault.put((ref("phone", 5550000 + n), f"+1 503 {5550000 + n}") for n in range(40))

    def _customer(self, number: int, chance: random.Random) -> dict[str, Any]:
        mailbox = number - number % 10 if number % 7 == 0 else number  # some share one
        return {
            "customer_id": customer(number),
            "customer_number": number,
            "is_test": number % 13 == 12,
            "email_ref": ref("email", f"p{mailbox}@example.com") if chance.random() < 0.85 else None,
            "phone_ref": ref("phone", 5550000 + number) if chance.random() < 0.5 else None,
            "card_ref": ref("card", number),
            "tier_code": chance.choice(["gold", "silver", "basic", None]),
            "region_code": chance.choice(["CA", "OR", None]),
            "home_location_code": chance.choice(["S001", "S002", None]),
            "has_card": chance.choice([True, False, None]),
            "first_seen_at": NAIVE - timedelta(days=chance.randrange(60)),
        }

    def _purchases(self, number: int, chance: random.Random, at: datetime) -> dict[str, Any]:
        return {
            "customer_id": customer(number),
            "feature_at": at,
            "order_count_90d": chance.randrange(6),
            "days_since_last_order": chance.choice([None, 1, 7, 29, 40]),
            "store_order_share_90d": chance.choice([None, 0.0, 0.25, 0.5, 1.0]),
            "favourite_category_name": chance.choice(["Tents", "Boots", None]),
        }

    def _view(self, number: int, chance: random.Random) -> dict[str, Any]:
        return {
            "message_id": str(number),
            "customer_id": customer(chance.randrange(25)) if chance.random() < 0.9 else None,
            "event_name": chance.choice(["Product Viewed", "Product Viewed", "Product Added"]),
            "occurred_at": NAIVE - timedelta(hours=chance.randrange(24 * 40)),
        }

    def publish(self) -> None:
        engagement = [
            {"customer_id": row["customer_id"], "feature_at": NAIVE, "cart_count_30d": row["customer_number"] % 4}
            for row in self.customers
        ]
        identities = [
            {"customer_id": row["customer_id"], "identity_ref": subject, "link_type": kind}
            for row in self.customers
            for subject, kind in self.links
            if subject in (row["email_ref"], row["phone_ref"], row["card_ref"])
        ]
        for table, rows in {
            "customers": self.customers,
            "ftr_customer_purchases": self.purchases,
            "ftr_customer_engagement": engagement,
            "ftr_sku_location_availability": self.stock,
            "products": self.products,
            "locations": self.locations,
            "web_events": self.views,
            "pred_churn": self.churn,
            "customer_identities": identities,
        }.items():
            write(self.home, table, pl.DataFrame(rows, infer_schema_length=None).unique(maintain_order=True))
        self.identities = pl.DataFrame(identities).unique(maintain_order=True)

    def ledger(self) -> Ledger:
        return open_ledger(self.home, FixedClock(AS_OF))

    def tell(self, events: Sequence[Event], *, publish: bool = True) -> None:
        with self.ledger() as ledger:
            ledger.append(events)
            frame = ledger.frame()
            self.told = list(ledger.events())
        if publish:
            marts = standing_frame(frame, self.identities, POLICY, AS_OF)
            times = [pl.col(name).dt.replace_time_zone(None) for name in ("since_at", "expires_at")]
            write(self.home, "consent_standing", marts.with_columns(times))


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return Shop(Home(tmp_path_factory.mktemp("home")))


@pytest.fixture
def own_shop(tmp_path: Path) -> Shop:
    """A shop that a test may change."""
    return Shop(Home(tmp_path / "home"))


# The reference: one person at a time, in plain Python.

OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
READ: dict[str, Callable[[str], Any]] = {
    "tier_code": str, "region_code": str, "favourite_category_name": str,
    "has_card": lambda text: text == "true", "first_seen_at": datetime.fromisoformat,
}  # fmt: skip


def facts(shop: Shop, who: dict[str, Any]) -> dict[tuple[str, str], Any]:
    """Every field of a person, by subject and name."""
    known: dict[tuple[str, str], Any] = {("customers", name): value for name, value in who.items()}
    for row in shop.purchases:
        if row["customer_id"] == who["customer_id"] and row["feature_at"] == NAIVE:
            known |= {("customer_purchases", name): value for name, value in row.items()}
    known["customer_engagement", "cart_count_30d"] = who["customer_number"] % 4
    for row in shop.churn:
        if row["customer_id"] == who["customer_id"]:
            known["churn", "churn_probability"] = row["churn_probability"]
    category = {row["sku"]: row["category_name"] for row in shop.products}
    if who["home_location_code"]:
        there = [row for row in shop.stock if row["has_stock"] and row["location_code"] == who["home_location_code"]]
        favourite = known.get(("customer_purchases", "favourite_category_name"))
        known["home_store", "in_stock_sku_count"] = len(there)
        known["home_store", "favourite_in_stock_sku_count"] = sum(category[row["sku"]] == favourite for row in there)
    zones = {row["location_code"]: row["timezone_name"] for row in shop.locations}
    zone = ZoneInfo(zones.get(who["home_location_code"], "UTC"))
    days = [
        row["occurred_at"].replace(tzinfo=UTC).astimezone(zone).weekday()
        for row in shop.views
        if row["customer_id"] == who["customer_id"]
        and row["event_name"] == "Product Viewed"
        and row["occurred_at"] > NAIVE - timedelta(days=28)
    ]
    if days:
        known["browsing", "view_count_28d"] = len(days)
        known["browsing", "weekend_view_share_28d"] = sum(day >= 5 for day in days) / len(days)
    return known


def matches(condition: Condition, known: dict[tuple[str, str], Any]) -> bool:
    if isinstance(condition, Group):
        inner = [matches(one, known) for one in condition.conditions]
        return not inner[0] if condition.kind == "not" else (all(inner) if condition.kind == "all" else any(inner))
    value = known.get((condition.subject, condition.field))
    if value is None:
        return False
    read = READ.get(condition.field, float)
    values = [read(text) for text in condition.values]
    return value in values if condition.operator == "in" else OPERATORS[condition.operator](value, values[0])


def reason(shop: Shop, who: dict[str, Any], segment: Segment, recorded: list[Recorded]) -> str:
    """Why a person may not be contacted, or `may_be_contacted`; contact points shared with others aside."""
    if who["is_test"]:
        return "test_customer"
    found = merged(
        (kind, standing(recorded, subject, "marketing", segment.channel, AS_OF, policy=POLICY))
        for customer_id, subject, kind in shop.identities.iter_rows()
        if customer_id == who["customer_id"]
    )
    if not found.is_allowed:
        return found.reason_code
    if who["email_ref" if segment.channel == "email" else "phone_ref"] is None:
        return "no_contact_point"
    share = int(hashlib.md5(f"{segment.name}:{who['customer_id']}".encode(), usedforsecurity=False).hexdigest()[:8], 16)
    return "held_out" if share < segment.holdout_percent * 2**32 // 100 else "may_be_contacted"


def expected(shop: Shop, segment: Segment, recorded: list[Recorded]) -> tuple[list[str], Counter[str]]:
    """Everybody who matches, and how many by reason."""
    people = [who for who in shop.customers if matches(segment.where, facts(shop, who))]
    reasons: Counter[str] = Counter()
    taken: set[str] = set()
    for who in people:
        why = reason(shop, who, segment, recorded)
        point = who["email_ref" if segment.channel == "email" else "phone_ref"]
        if why == "may_be_contacted":
            why = "same_contact_point" if point in taken else why
            taken.add(point)
        reasons[why] += 1
    return [who["customer_id"] for who in people], reasons


def compared(
    subject: str, field: str, operators: Sequence[str], values: Sequence[str]
) -> st.SearchStrategy[Comparison]:
    one = st.builds(
        lambda how, value: Comparison(subject, field, how, (value,)),
        st.sampled_from(operators),
        st.sampled_from(values),
    )
    if "=" not in operators or field == "has_card":
        return one
    several = st.lists(st.sampled_from(values), min_size=1, max_size=3).map(
        lambda v: Comparison(subject, field, "in", tuple(v))
    )
    return one | several


ORDERED = ("=", "!=", "<", "<=", ">", ">=")
COMPARISONS = st.one_of(
    compared("customers", "tier_code", ("=", "!="), ("gold", "silver", "none such")),
    compared("customers", "region_code", ("=", "!="), ("CA", "O'R", "OR")),
    compared("customers", "has_card", ("=", "!="), ("true", "false")),
    compared("customers", "first_seen_at", ORDERED, ("2026-04-01", "2026-04-20T02:00:00")),
    compared("customer_purchases", "order_count_90d", ORDERED, ("0", "3", "2.5")),
    compared("customer_purchases", "days_since_last_order", ORDERED, ("7", "28")),
    compared("customer_purchases", "store_order_share_90d", ORDERED, ("0.25", "1")),
    compared("customer_engagement", "cart_count_30d", ORDERED, ("1", "2")),
    compared("churn", "churn_probability", (">", "<="), ("0.5",)),
    compared("home_store", "favourite_in_stock_sku_count", ORDERED, ("0", "2")),
    compared("home_store", "in_stock_sku_count", ORDERED, ("6", "8")),
    compared("browsing", "weekend_view_share_28d", ORDERED, ("0.3", "0.5")),
)
CONDITIONS = st.recursive(
    COMPARISONS,
    lambda inner: st.builds(
        lambda kind, some: Group(kind, tuple(some[:1] if kind == "not" else some)),
        st.sampled_from(["all", "any", "not"]),
        st.lists(inner, min_size=1, max_size=3),
    ),
    max_leaves=6,
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=CONDITIONS, channel=st.sampled_from(["email", "sms"]), holdout=st.sampled_from([0, 20]))
def test_a_random_segment_has_the_members_and_reasons_of_a_reference_row_by_row(
    shop: Shop, where: Condition, channel: str, holdout: int
) -> None:
    segment = plain_segment(where, channel=channel, holdout_percent=holdout)
    people, reasons = expected(shop, segment, shop.told)
    found = members(shop.home, segment, NAIVE).rows
    assert found["customer_id"].to_list() == people
    asked = (pl.col("purpose_code") == "marketing") & (pl.col("channel_code") == channel)
    counts = counted(decided(found, pl.read_parquet(current(shop.home, "consent_standing")).filter(asked))["decision"])
    allowed, tests = reasons.pop("may_be_contacted", 0), reasons.pop("test_customer", 0)
    assert (counts.may_be_contacted, counts.refused, counts.test_customers) == (allowed, dict(reasons), tests)
    assert counts.matched == allowed + sum(reasons.values())


@pytest.mark.parametrize("channel", ["email", "sms"])
@pytest.mark.parametrize("holdout", [0, 20])
def test_a_preview_counts_as_the_reference_does(shop: Shop, channel: str, holdout: int) -> None:
    segment = plain_segment(EVERYBODY, channel=channel, holdout_percent=holdout)
    _, reasons = expected(shop, segment, shop.told)
    found = preview(shop.home, segment, AS_OF)
    assert found.matched == 40 - reasons["test_customer"] == found.may_be_contacted + sum(found.refused.values())
    assert Counter({**found.refused, "may_be_contacted": found.may_be_contacted, "test_customer": 3}) == reasons
    assert found.ledger_size == 60


def test_a_dry_run_counts_as_the_preview_does_and_writes_nothing(shop: Shop, tmp_path: Path) -> None:
    segment = plain_segment(EVERYBODY, channel="sms", holdout_percent=20)
    before = sorted((path, path.stat().st_mtime_ns) for path in shop.home.root.rglob("*") if path.is_file())
    report = export(shop.home, segment, tmp_path / "out", AS_OF, dry_run=True)
    counts = preview(shop.home, segment, AS_OF)
    assert report.folder is None
    assert (report.matched, report.exported, report.refused) == (
        counts.matched,
        counts.may_be_contacted,
        counts.refused,
    )
    assert sorted((path, path.stat().st_mtime_ns) for path in shop.home.root.rglob("*") if path.is_file()) == before
    assert list(tmp_path.iterdir()) == []


def exported(folder: Path) -> dict[str, str]:
    rows = list(csv.reader(io.StringIO((folder / "members.csv").read_text())))
    return {row[0]: row[-1] for row in rows[1:]}


def test_an_export_names_everything_it_rests_on(shop: Shop, tmp_path: Path) -> None:
    segment = plain_segment(EVERYBODY, holdout_percent=10)
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
        assert reason(shop, people[who], segment, shop.told) == "may_be_contacted"
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
    assert report.refused["no_contact_point"] == counts.may_be_contacted + counts.refused.get("no_contact_point", 0)


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
    assert report.ledger_size == 61


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
    assert report.ledger_size == 61


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
    assert report.ledger_size == 63
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
    assert found.may_be_contacted == 0
    assert found.refused == {"never_asked": found.matched}
    assert found.ledger_size is None
    write(own_shop.home, "customer_identities", own_shop.identities.clear())
    report = export(own_shop.home, plain_segment(EVERYBODY), tmp_path / "out", AS_OF)
    assert report.refused == {"never_asked": report.matched}


def test_a_grant_that_has_ended_by_then_is_expired_in_preview_and_export(shop: Shop, tmp_path: Path) -> None:
    later = AS_OF + timedelta(days=3_000)
    found = preview(shop.home, plain_segment(EVERYBODY), later)
    assert found.may_be_contacted == 0
    assert found.refused["expired"] > 0
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
        found = preview(shop.home, load(name), AS_OF)
        assert found.matched == found.may_be_contacted + sum(found.refused.values())


@pytest.mark.filterwarnings("ignore:sqlglotrs is deprecated:DeprecationWarning")  # another tool brings it in
@pytest.mark.parametrize("name", names())
def test_a_segments_sql_is_portable_to_spark(shop: Shop, name: str) -> None:
    import sqlglot

    (statement,) = sqlglot.transpile(compiled(shop.home, load(name), NAIVE).sql, read="duckdb", write="spark")
    assert sqlglot.parse_one(statement, read="spark")


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
            "expected one of = != in for a text field, found <",
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
        ({"where": EVERYBODY, "channel": "fax"}, "channel: expected one of email, .* found fax"),
        ({"where": EVERYBODY, "channel": "post"}, "channel: expected one of email, sms, in_app, onsite, found post"),
        (
            {"where": EVERYBODY, "purpose": "personalization"},
            "purpose: expected one that people are asked about for email, found personalization",
        ),
    ],
)
def test_what_the_tables_or_the_policy_do_not_have_is_named(shop: Shop, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelsError, match=message):
        preview(shop.home, plain_segment(**changes), AS_OF)


def test_a_segment_shown_on_the_site_needs_no_contact_point(shop: Shop, tmp_path: Path) -> None:
    segment = plain_segment(EVERYBODY, purpose="service", channel="onsite")
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
