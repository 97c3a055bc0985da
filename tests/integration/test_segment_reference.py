"""Random segments beside a reference written here: one person at a time, in plain Python, row by row."""

import hashlib
import operator
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consent.rule.standing import merged, standing
from models.segments import kept
from models.segments.conditions import COUNTED, Comparison, Condition, Group, Happened, Lookalike, Unless
from models.segments.decision import open_audience
from models.segments.definition import Rank, Segment, parse, written
from models.segments.fields import SCORES
from models.segments.preview import preview
from models.segments.rules import Cap, Exclusion, Rules, TestGroup
from models.tables import naive
from tests.integration.segment_shop import AS_OF, CATEGORIES, NAIVE, POLICY, ZONES, Shop, plain_segment, ref
from troth.home import Home
from troth.published import current

PEOPLE = 300
SEED = plain_segment(Comparison("customers", "region_code", "in", ("CA", "OR")), name="westerners")
RULES = Rules(
    exclusions=(
        Exclusion("late", "Waits for a late order.", Happened("ordered", (Comparison("", "is_late", "=", ("true",)),), "times", ">=", 2, 720)),
        Exclusion("unseen", "Has no tier and no region.", Group("all", (Comparison("customers", "tier_code", "missing", ()), Comparison("customers", "region_code", "missing", ())))),
    ),
    caps=(Cap("email", ("marketing",), 2, 7), Cap("*", ("marketing", "analytics"), 4, 30)),
    test_groups=(TestGroup("control", "A tenth.", "salt of 2026", 10, ("marketing",)), TestGroup("others", "For another purpose.", "x", 50, ("analytics",))),
)  # fmt: skip
OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
TEXTS = {"tier_code", "region_code", "favourite_category_name", "category_name", "brand_name", "sku", "channel_type", "order_stage", "device_type", "location_code", "currency_code"}  # fmt: skip
TIMES = {"ordered": "ordered_at", "bought": "ordered_at", "returned": "returned_at"}
WEB = {"viewed": "Product Viewed", "carted": "Product Added", "searched": "Products Searched"}


class World:
    """The shop, and what the reference works out once: facts of everybody at a time, standing at the time of the marts."""

    def __init__(self, shop: Shop, contacts: list[dict[str, Any]], listed: set[str]) -> None:
        self.shop = shop
        self.contacts = contacts
        self.listed = listed
        self.known: dict[datetime, list[dict[tuple[str, str], Any]]] = {}
        self.stood: dict[tuple[str, str], Any] = {}
        self.tired: dict[tuple[str, datetime], set[str]] = {}
        self.shut_out: dict[datetime, set[str]] = {}

    def facts(self, at: datetime) -> list[dict[tuple[str, str], Any]]:
        if at not in self.known:
            self.known[at] = [facts(self.shop, who, at) for who in self.shop.customers]
        return self.known[at]

    def standing(self, who: str, channel: str) -> Any:
        if (who, channel) not in self.stood:
            self.stood[who, channel] = merged(
                (kind, standing(self.shop.told, subject, "marketing", channel, AS_OF, policy=POLICY))
                for customer_id, subject, kind in self.shop.identities.iter_rows()
                if customer_id == who
            )
        return self.stood[who, channel]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    shop = Shop(Home(tmp_path_factory.mktemp("home")), people=PEOPLE, grants=8)
    chance = random.Random(5)
    contacts = []
    for day in (0, 1, 2, 6, 7, 8, 29, 30, 31):
        for channel, purpose, point in (
            ("email", "marketing", "email_ref"),
            ("sms", "marketing", "phone_ref"),
            ("email", "service", "email_ref"),
        ):
            at = NAIVE - timedelta(days=day)
            people = [
                {
                    "customer_id": who["customer_id"],
                    "contact_ref": who[point],
                    "channel_code": channel,
                    "purpose_code": purpose,
                    "contacted_at": at,
                }
                for who in chance.sample(shop.customers, 30)
                if who[point]
            ]
            kept.record_contacts(shop.home, pl.DataFrame(people), "past", purpose, channel, at)
            contacts += people
    listed = {ref("card", 5), ref("email", "p20@example.com"), shop.customers[33]["customer_id"], ref("card", 10_000)}
    kept.change_exclusions(shop.home, "complaints", NAIVE, add=listed)
    return World(shop, contacts, listed)


# The reference.


def facts(shop: Shop, who: dict[str, Any], at: datetime) -> dict[tuple[str, str], Any]:
    """Every field of a person, by subject and name, and what they did, by event."""
    mine = who["customer_id"]
    known: dict[tuple[str, str], Any] = {("customers", name): value for name, value in who.items()}
    for subject, rows in (("customer_purchases", shop.purchases), ("customer_engagement", shop.engagement)):
        newest = max((row["feature_at"] for row in rows if row["feature_at"] <= at), default=None)
        for row in rows:
            if row["customer_id"] == mine and row["feature_at"] == newest:
                known |= {(subject, name): value for name, value in row.items()}
    for row in shop.churn:
        if row["customer_id"] == mine:
            known["churn", "churn_probability"] = row["churn_probability"]
    products = {row["sku"]: row for row in shop.products}
    there = [row for row in shop.stock if row["has_stock"] and row["location_code"] == who["home_location_code"]]
    if there:
        favourite = known.get(("customer_purchases", "favourite_category_name"))
        known["home_store", "in_stock_sku_count"] = len(there)
        known["home_store", "favourite_in_stock_sku_count"] = sum(
            favourite is not None and products[row["sku"]]["category_name"] == favourite for row in there
        )
    did = {"ordered": shop.orders, "bought": shop.lines, "returned": shop.returns}
    for event, rows in did.items():
        known["did", event] = [
            {**products.get(row.get("sku"), {}), **row, "happened_at": row[TIMES[event]]}
            for row in rows
            if row["customer_id"] == mine and not row.get("is_cancelled", False)
        ]
    for event, name in WEB.items():
        known["did", event] = [
            {**products.get(row["sku"], {}), **row, "happened_at": row["occurred_at"]}
            for row in shop.views
            if row["customer_id"] == mine and row["event_name"] == name
        ]
    zone = ZoneInfo(ZONES.get(who["home_location_code"], "UTC"))
    days = [
        row["happened_at"].replace(tzinfo=UTC).astimezone(zone).weekday()
        for row in known["did", "viewed"]
        if at - timedelta(days=28) < row["happened_at"] <= at
    ]
    if days:
        known["browsing", "view_count_28d"] = len(days)
        known["browsing", "weekend_view_share_28d"] = sum(day >= 5 for day in days) / len(days)
    return known


def satisfies(value: Any, name: str, how: str, texts: Sequence[str], at: datetime) -> bool:
    if how in ("known", "missing"):
        return (value is None) == (how == "missing")
    if value is None:
        return False
    values = [read(text, name, value, at) for text in texts]
    return value in values if how == "in" else OPERATORS[how](value, values[0])


def read(text: str, name: str, value: Any, at: datetime) -> Any:
    if name in TEXTS:
        return text
    if isinstance(value, bool):
        return text == "true"
    if isinstance(value, datetime):
        if text.endswith("ago"):
            return at - timedelta(days=int(text.split(maxsplit=1)[0]))
        told = datetime.fromisoformat(text)
        return told.astimezone(UTC).replace(tzinfo=None) if told.tzinfo else told
    return float(text)


def matching(world: World, condition: Condition, at: datetime) -> list[bool]:
    """Who of all customers matches a condition."""
    everybody = world.facts(at)
    if isinstance(condition, Group):
        inner = [matching(world, one, at) for one in condition.conditions]
        if condition.kind == "not":
            return [not found for found in inner[0]]
        return [(all if condition.kind == "all" else any)(found) for found in zip(*inner, strict=True)]
    if isinstance(condition, Comparison):
        key = condition.subject, condition.field
        return [satisfies(known.get(key), key[1], condition.operator, condition.values, at) for known in everybody]
    if isinstance(condition, Happened):
        return [happened(condition, known, at) for known in everybody]
    return lookalikes(world, condition, at)


def happened(condition: Happened, known: dict[tuple[str, str], Any], at: datetime) -> bool:
    rows = such(known, condition.event, condition.filters, condition.hours, at)
    if condition.unless:
        unless = condition.unless
        gone = {row.get(unless.same) for row in such(known, unless.event, unless.filters, unless.hours, at)}
        rows = [row for row in rows if row.get(unless.same) is not None and row[unless.same] not in gone]
    if condition.counted == "units":
        count = sum(row["quantity_units"] for row in rows)
    elif condition.counted == "net_cents":
        asked = {one.values[0] for one in condition.filters if one.field == "currency_code" and one.operator == "="}
        count = sum(row["net_cents"] for row in rows if asked or row["currency_code"] == "USD")
    else:
        count = len({row["order_id"] for row in rows}) if condition.event == "bought" else len(rows)
    return OPERATORS[condition.operator](count, condition.count)


def such(
    known: dict[tuple[str, str], Any], event: str, filters: Sequence[Comparison], hours: int, at: datetime
) -> list[dict[str, Any]]:
    return [
        row
        for row in known["did", event]
        if at - timedelta(hours=hours) < row["happened_at"] <= at
        and all(satisfies(row.get(one.field), one.field, one.operator, one.values, at) for one in filters)
    ]


def lookalikes(world: World, condition: Lookalike, at: datetime) -> list[bool]:
    everybody = world.facts(at)
    scores = {
        known["customers", "customer_id"]: known.get(("churn", "churn_probability"))
        for known in everybody
        if not known["customers", "is_test"]
    }
    scored = {who: score for who, score in scores.items() if score is not None}
    if condition.like is None:
        first = sorted(scored, key=lambda who: (-scored[who], who))
        chosen = set(first[: len(first) * condition.percent // 100])
    else:
        seed = {
            known["customers", "customer_id"]
            for known, found in zip(everybody, matching(world, SEED.where, at), strict=True)
            if found
        }
        theirs = sorted(scored[who] for who in seed if who in scored)
        off = len(theirs) * (100 - condition.percent)
        middle = [
            score
            for place, score in enumerate(theirs, start=1)
            if place * 200 > off and (len(theirs) - place + 1) * 200 > off
        ]
        is_enough = len(theirs) >= 30 and middle
        chosen = {who for who, score in scored.items() if is_enough and middle[0] <= score <= middle[-1]} - seed
    return [known["customers", "customer_id"] in chosen for known in everybody]


def members(world: World, segment: Segment, at: datetime) -> list[dict[str, Any]]:
    """Everybody who matches, in order of ids; with a rank the first of people and of customers made for tests."""
    matched = matching(world, segment.where, at)
    found = [known for known, is_in in zip(world.facts(at), matched, strict=True) if is_in]
    if segment.rank:
        key = segment.rank.by.subject, segment.rank.by.field
        sign = -1 if segment.rank.order == "highest" else 1
        valued = [known for known in found if known.get(key) is not None]
        valued.sort(key=lambda known: (sign * known[key], known["customers", "customer_id"]))
        found = [
            known for is_test in (True, False) for known in [k for k in valued if k["customers", "is_test"] == is_test][: segment.rank.top]
        ]  # fmt: skip
    people = [{name: value for (subject, name), value in known.items() if subject == "customers"} for known in found]
    return sorted(people, key=lambda who: str(who["customer_id"]))


def share(salt: str, who: str) -> int:
    return int(hashlib.md5(f"{salt}:{who}".encode(), usedforsecurity=False).hexdigest()[:8], 16)


def contacted_too_often(world: World, channel: str, at: datetime) -> set[str]:
    """People, and addresses, that were contacted as often as they may be over a channel."""
    if (channel, at) not in world.tired:
        found: set[str] = set()
        for cap in RULES.caps:
            went = [
                one
                for one in world.contacts
                if one["contacted_at"] > at - timedelta(days=cap.days)
                and one["purpose_code"] in cap.purposes
                and cap.channel in (one["channel_code"], "*")
                and cap.channel in (channel, "*")
            ]
            for name in ("customer_id", "contact_ref"):
                found |= {who for who, count in Counter(one[name] for one in went).items() if count >= cap.at_most}
        world.tired[channel, at] = found
    return world.tired[channel, at]


def excluded(world: World, at: datetime) -> set[str]:
    """People whom a rule excludes, and whatever is on a list."""
    if at not in world.shut_out:
        world.shut_out[at] = set(world.listed)
        for rule in RULES.exclusions:
            found = zip(world.facts(at), matching(world, rule.where, at), strict=True)
            world.shut_out[at] |= {known["customers", "customer_id"] for known, is_in in found if is_in}
    return world.shut_out[at]


def decisions(world: World, segment: Segment, channel: str, at: datetime) -> dict[str, str]:
    """Everybody who matches, with the first reason against contacting them."""
    told: dict[str, str] = {}
    taken: set[str] = set()
    for who in members(world, segment, at):
        mine, point = who["customer_id"], "email_ref" if channel == "email" else "phone_ref"
        stands = world.standing(mine, channel)
        if who["is_test"]:
            why = "test_customer"
        elif not stands.is_allowed:
            why = stands.reason_code
        elif stands.expires_at and stands.expires_at <= at.replace(tzinfo=UTC):
            why = "expired"
        elif who[point] is None:
            why = "no_contact_point"
        elif excluded(world, at) & {mine, who["email_ref"], who["phone_ref"], who["card_ref"]}:
            why = "excluded"
        elif contacted_too_often(world, channel, at) & {mine, who[point]}:
            why = "capped"
        elif share("salt of 2026", mine) < 10 * 2**32 // 100:
            why = "in_test_group"
        elif share(segment.name, mine) < segment.holdout_percent * 2**32 // 100:
            why = "held_out"
        else:
            why = "same_contact_point" if who[point] in taken else "may_be_contacted"
            taken.add(who[point])
        told[mine] = why
    return told


# Random definitions.

ORDERED = ("=", "!=", "<", "<=", ">", ">=")
SPELLED = [category for category in CATEGORIES if category]


def compared(subject: str, name: str, operators: Iterable[str], values: Sequence[str]) -> st.SearchStrategy[Comparison]:
    one = st.builds(
        lambda how, value: Comparison(subject, name, how, (value,)),
        st.sampled_from([*operators]),
        st.sampled_from(values),
    )
    several = st.lists(st.sampled_from(values), min_size=1, max_size=3).map(
        lambda chosen: Comparison(subject, name, "in", tuple(chosen))
    )
    presence = st.sampled_from(["known", "missing"]).map(lambda how: Comparison(subject, name, how, ()))
    return one | presence if set(values) <= {"true", "false"} else one | several | presence


FIELDS = [
    compared("customers", "tier_code", ("=", "!="), ("gold", "silver", "none such")),
    compared("customers", "region_code", ("=", "!="), ("CA", "O'R", "OR")),
    compared("customers", "has_card", ("=", "!="), ("true", "false")),
    compared("customers", "first_seen_at", ORDERED, ("2026-04-01", "2026-04-20T02:00:00", "2026-04-20T02:00:00+05:45", "30 days ago")),
    compared("customer_purchases", "order_count_90d", ORDERED, ("0", "3", "2.5")),
    compared("customer_purchases", "days_since_last_order", ORDERED, ("7", "28")),
    compared("customer_purchases", "store_order_share_90d", ORDERED, ("0.25", "1")),
    compared("customer_purchases", "favourite_category_name", ("=", "!="), SPELLED),
    compared("customer_engagement", "cart_count_30d", ORDERED, ("1", "2")),
    compared("churn", "churn_probability", ORDERED, ("0.5",)),
    compared("home_store", "favourite_in_stock_sku_count", ORDERED, ("0", "2")),
    compared("home_store", "in_stock_sku_count", ORDERED, ("6", "8")),
    compared("browsing", "weekend_view_share_28d", ORDERED, ("0.3", "0.5")),
]  # fmt: skip
OF_PRODUCTS = [
    compared("", "category_name", ("=", "!="), SPELLED),
    compared("", "brand_name", ("=", "!="), ("North", "Süd")),
    compared("", "sku", ("=", "!="), ("SKU-00001", "SKU-00013")),
]
OF_EVENTS = {
    "ordered": [
        compared("", "is_late", ("=", "!="), ("true", "false")),
        compared("", "order_stage", ("=", "!="), ("placed", "sold")),
        compared("", "net_cents", ORDERED, ("0", "4900")),
        compared("", "currency_code", ("=", "!="), ("USD", "EUR")),
    ],
    "bought": [
        *OF_PRODUCTS,
        compared("", "net_cents", ORDERED, ("990",)),
        compared("", "channel_type", ("=",), ("web",)),
        compared("", "currency_code", ("=",), ("EUR",)),
    ],
    "returned": [*OF_PRODUCTS, compared("", "quantity_units", ORDERED, ("2",))],
    "viewed": [*OF_PRODUCTS, compared("", "device_type", ("=", "!="), ("phone",))],
    "carted": OF_PRODUCTS,
    "searched": [compared("", "device_type", ("=", "!="), ("phone",))],
}


HOURS = st.sampled_from([1, 14 * 24, 28 * 24, 30 * 24, 90 * 24])
OF_THINGS = ["bought", "returned", "viewed", "carted"]
COUNTED_IN = {
    "ordered": ["times", "net_cents"],
    "bought": ["times", "units", "net_cents"],
    "returned": ["times", "units"],
}


@st.composite
def events(draw: st.DrawFn) -> Happened:
    event = draw(st.sampled_from(sorted(OF_EVENTS)))
    counted = draw(st.sampled_from(COUNTED_IN.get(event, ["times"])))
    return Happened(
        event=event,
        filters=draw(filters(event)),
        counted=counted,
        operator=draw(st.sampled_from(sorted(COUNTED.values()))),
        count=draw(st.sampled_from([0, 500, 4_900, 13_000]) if counted == "net_cents" else st.integers(0, 4)),
        hours=draw(HOURS),
        unless=draw(st.none() | unless()) if event in OF_THINGS else None,
    )


def filters(event: str) -> st.SearchStrategy[tuple[Comparison, ...]]:
    return st.lists(st.one_of(OF_EVENTS[event]), max_size=2).map(tuple)


@st.composite
def unless(draw: st.DrawFn) -> Unless:
    event = draw(st.sampled_from(OF_THINGS))
    return Unless(event, draw(filters(event)), "sku", draw(HOURS))


LOOKALIKES = st.builds(Lookalike, st.just("churn"), st.integers(1, 100), st.sampled_from([None, SEED.name]))
CONDITIONS = st.recursive(
    st.one_of(st.one_of(FIELDS), events(), LOOKALIKES),
    lambda inner: st.builds(
        lambda kind, some: Group(kind, tuple(some[:1] if kind == "not" else some)),
        st.sampled_from(["all", "any", "not"]),
        st.lists(inner, min_size=1, max_size=3),
    ),
    max_leaves=7,
)
RANKS = st.builds(
    lambda by, order, top: Rank(Comparison(*by, "known", ()), order, top),
    st.sampled_from([("customer_purchases", "order_count_90d"), ("churn", "churn_probability"), ("customers", "customer_number")]),
    st.sampled_from(["highest", "lowest"]),
    st.sampled_from([1, 10, 40, 1_000]),
)  # fmt: skip
TIMES_ASKED = [
    AS_OF,
    AS_OF.astimezone(ZoneInfo("America/Los_Angeles")),  # another day there
    AS_OF.astimezone(timezone(timedelta(hours=5, minutes=45))),
    AS_OF - timedelta(days=7),
    datetime(2026, 3, 29, 3, 30, tzinfo=ZoneInfo("Europe/Berlin")),  # within a window stands an hour that never was
    AS_OF + timedelta(days=20),  # some yeses have ended by then
]
SEGMENTS = st.builds(
    lambda where, rank, holdout, name: plain_segment(where, rank=rank, holdout_percent=holdout, name=name, channels=("email", "sms")),
    CONDITIONS, st.none() | st.none() | RANKS, st.sampled_from([0, 20]), st.sampled_from(["plain", "other"]),
)  # fmt: skip


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(said=SEGMENTS, at=st.sampled_from(TIMES_ASKED))
def test_a_random_segment_has_the_members_and_reasons_of_a_reference_row_by_row(
    world: World, said: Segment, at: datetime
) -> None:
    segment, moment, home = parse(written(said)), naive(at), world.shop.home
    expected = {channel: decisions(world, said, channel, moment) for channel in segment.channels}
    found = preview(home, segment, at, rules=RULES, loaded=lambda _: SEED)
    for channel, told in expected.items():
        reasons = Counter(told.values())
        tests, allowed = reasons.pop("test_customer", 0), reasons.pop("may_be_contacted", 0)
        counts = found.channels[channel]
        assert (found.test_customers, counts.may_be_contacted, counts.refused) == (tests, allowed, dict(reasons))
        assert found.matched == len(told) - tests == allowed + sum(reasons.values())
    with open_audience(home, segment, moment, rules=RULES, loaded=lambda _: SEED) as (audience, _):
        assert audience.members.to_list() == [who for who, why in expected["email"].items() if why != "test_customer"]
        for channel, told in expected.items():  # what an export asks, person by person
            rows = audience.decided(channel, standing_at(home, channel, moment))
            assert dict(rows.select("customer_id", "decision").iter_rows()) == told


def standing_at(home: Home, channel: str, at: datetime) -> pl.DataFrame:
    """The standing of the marts, with yeses that have ended by then."""
    rows = pl.read_parquet(current(home, "consent_standing")).filter(purpose_code="marketing", channel_code=channel)
    has_ended = pl.col("is_allowed") & (pl.col("expires_at") <= at).fill_null(False)
    return rows.with_columns(
        pl.when(has_ended).then(pl.lit("expired")).otherwise("reason_code").alias("reason_code"),
        is_allowed=pl.col("is_allowed") & ~has_ended,
    )


def test_the_world_of_the_reference_has_every_reason_there_is(world: World) -> None:
    everybody = plain_segment(Comparison("customers", "customer_number", ">=", ("0",)), holdout_percent=20)
    seen = {why for channel in ("email", "sms") for why in decisions(world, everybody, channel, NAIVE).values()}
    assert seen >= {
        "test_customer", "never_asked", "refused", "withdrawn", "expired", "stale_notice", "no_contact_point", "excluded",
        "capped", "in_test_group", "held_out", "same_contact_point", "may_be_contacted",
    }  # fmt: skip


def test_every_score_is_that_of_a_model_that_is_trained() -> None:
    from models.build import BASELINES

    trained = {baseline.name: baseline for baseline in BASELINES}
    for name, score in SCORES.items():
        assert trained[name].table == score.table
        assert trained[name].nothing.schema[score.column] == pl.Float64
