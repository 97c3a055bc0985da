"""A historical read through Feast's own API, consent in it, beside the join an analyst writes by hand and Feast's own store."""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks.harness import Measure, conditions
from feature_repo.catalogue import CUSTOMER, Field, Service, View

SUMMARY = (
    "Training rows of three views with consent then and now, beside a hand-written ASOF join and Feast's own file store"
)
SIZES = {"small": 100_000, "full": 1_000_000}
FEAST_UP_TO = (
    100_000  # rows of a read by Feast's file store: it needs 4 GB for these, and ten times that for ten times as many
)
ROUNDS = 3
SEED = 20250601
BEGAN, DAYS = datetime(2025, 1, 1, tzinfo=UTC), 90
NOW = BEGAN + timedelta(days=DAYS + 1)
TIME_TO_LIVE = timedelta(days=10)
ROWS_PER_CUSTOMER = 5  # asked about; three times as many feature rows in two views, as many in the third
KINDS = ("integer",) * 4 + ("decimal",) * 4 + ("boolean", "text")
STEPS = {"bought": 6, "browsed": 6, "lives": 18}  # days from one feature row of a customer to the next
VIEWS = tuple(
    View(
        name=name, table=f"ftr_{name}", entity=CUSTOMER, description=f"What a customer {name}. One row per customer and feature time.",
        fields=tuple(Field(f"{name}_{kind}_{number}", kind, "A measure.") for number, kind in enumerate(KINDS)),
        time_to_live=TIME_TO_LIVE if STEPS[name] < TIME_TO_LIVE.days else timedelta(), is_personal=True,
    )
    for name in STEPS
)  # fmt: skip
SERVICE = Service("everything_v1", "All a customer did.", VIEWS, "analytics")
FEAST_DUCKDB = (
    "5.4 s for 100,000 rows x 3 views on two cores (Feast 0.67 with ibis 12, measured 2026-08); not installed here"
)


def measure(scale: str | None) -> Iterator[Measure]:
    """Seconds of a read, best of three in turns. `scale`: `small` for 100,000 rows, `full` (default) for these and 1,000,000.

    Every answer is compared with the hand-written one, row by row. Raises: AssertionError where they differ.
    """
    for rows in sorted(SIZES.values()) if (scale or "full") == "full" else [SIZES[str(scale)]]:
        with tempfile.TemporaryDirectory() as folder:
            yield from _measure(Path(folder), rows)


def _measure(folder: Path, rows: int) -> Iterator[Measure]:
    import polars as pl

    home, building = _home(folder, rows)
    entities = pl.read_parquet(folder / "entities.parquet").to_arrow()
    ours, open_ours = _store(home, "Historical"), _store(home, "Open")
    service = ours.get_feature_service(SERVICE.name)
    jobs: dict[str, Any] = {}

    def read(store: Any) -> Any:
        jobs["last"] = store.get_historical_features(entities, service)
        return jobs["last"].to_arrow()

    consented = _in_turns(lambda: read(ours), lambda: _by_hand(home, entities, True))
    told = jobs["last"].told
    plain = _in_turns(lambda: read(open_ours), lambda: _by_hand(home, entities, False))
    for ours_found, theirs in ((consented[0], consented[1]), (plain[0], plain[1])):
        _compare(ours_found.answer, theirs.answer)
    if (told.considered, told.kept + sum(told.left_out.values()), plain[0].answer.num_rows) != (rows, rows, rows):
        raise AssertionError(f"historical read: expected every one of {rows} rows told of, found {told.summary}")
    state = conditions(
        rows=rows, customers=rows // ROWS_PER_CUSTOMER, views=len(VIEWS), features=len(VIEWS) * len(KINDS), seed=SEED, rounds=ROUNDS,
        feature_rows={name: DAYS // days * rows // ROWS_PER_CUSTOMER for name, days in STEPS.items()}, kept=told.kept, left_out=dict(told.left_out),
        ledger_size=told.ledger_size, spans_seconds=building, load_1min=round(os.getloadavg()[0], 2), feast_duckdb=FEAST_DUCKDB,
    )  # fmt: skip
    size = f"{rows // 1000}k"
    by_hand = "hand-written ASOF join in DuckDB"
    for name, pair, peer in (
        ("with_consent", consented, f"{by_hand}, the same consent by hand, no receipt"),
        ("not_personal", plain, f"{by_hand}, all rows, no consent on either side"),
    ):
        here = {**state, "processor_seconds": pair[0].processor, "peer_processor_seconds": pair[1].processor}
        yield Measure(f"read_{size}_{name}", pair[0].seconds, "s", "lower", 1.5, peer, pair[1].seconds, here)
    mine = f"read_{size}_with_consent_against_feast_file"
    if rows > FEAST_UP_TO:
        yield Measure(
            mine, consented[0].seconds, "s", "lower",
            conditions={**state, "feast_file": f"not run: needs tens of GB above {FEAST_UP_TO:,} rows; see the ratio there"},
        )  # fmt: skip
        return
    theirs = _best(1, lambda: _store(home, "Feast").get_historical_features(entities.to_pandas(), service).to_arrow())
    lost = rows - theirs.answer.num_rows
    peer = "Feast's file store, all rows, no consent"
    yield Measure(
        mine,
        consented[0].seconds,
        "s",
        "lower",
        1 / 30,
        peer,
        theirs.seconds,
        {**state, "rows_lost_by_feast": lost},
    )


class _Timed:
    """An answer with the fewest wall and processor seconds it took."""

    def __init__(self, answer: Any, seconds: float, processor: float) -> None:
        self.answer, self.seconds, self.processor = answer, seconds, processor


def _best(rounds: int, ask: Callable[[], Any]) -> _Timed:
    times = []
    for _ in range(rounds):
        began, spent = time.perf_counter(), time.process_time()
        answer = ask()
        times.append((time.perf_counter() - began, time.process_time() - spent))
    return _Timed(answer, min(wall for wall, _ in times), min(processor for _, processor in times))


def _in_turns(*asks: Callable[[], Any]) -> list[_Timed]:
    """Each once to warm up, then all in turns, so that whatever else the machine does falls on all alike."""
    for ask in asks:
        ask()
    found = [[_best(1, ask) for ask in asks] for _ in range(ROUNDS)]
    return [
        _Timed(mine[0].answer, min(one.seconds for one in mine), min(one.processor for one in mine))
        for mine in zip(*found, strict=True)
    ]


def _by_hand(home: Any, entities: Any, with_consent: bool) -> Any:
    """What an analyst writes: one statement, an ASOF join per view, the entity rows' order."""
    # ruff: noqa: S608 (names of this file)
    import duckdb

    from feature_repo.historical.spans import TABLE
    from troth.published import current

    features = ", ".join(
        f"case when {view.name}.feature_at >= asked.at - interval {TIME_TO_LIVE.days} days then {view.name}.{each.name} end as {each.name}"
        if view.time_to_live
        else f"{view.name}.{each.name}"
        for view in VIEWS
        for each in view.fields
    )
    joins = " ".join(
        f"asof left join read_parquet('{current(home, view.table)}') {view.name} "
        f"on asked.customer_id = {view.name}.customer_id and asked.at >= {view.name}.feature_at"
        for view in VIEWS
    )
    asked = "select *, event_timestamp::timestamp as at, row_number() over () as position from entities"
    if with_consent:
        spans = f"read_parquet('{current(home, TABLE)}')"
        asked = (
            f"select given.* from ({asked}) given asof join {spans} past "
            f"on given.customer_id = past.customer_id and given.event_timestamp >= past.from_at "
            f"join {spans} standing on given.customer_id = standing.customer_id "
            f"join read_parquet('{current(home, 'customers')}') customers on given.customer_id = customers.customer_id "
            f"where past.is_allowed and standing.is_allowed and standing.from_at <= timestamptz '{NOW.isoformat()}' "
            f"and coalesce(standing.until_at > timestamptz '{NOW.isoformat()}', true) and not customers.is_test"
        )
    with duckdb.connect() as connection:
        connection.execute("set timezone = 'UTC'")
        connection.register("entities", entities)
        return connection.sql(
            f"select asked.customer_id, asked.event_timestamp, asked.label, {features} from ({asked}) asked {joins} order by position"
        ).to_arrow_table()


def _compare(mine: Any, theirs: Any) -> None:
    """Every row and every value. Raises: AssertionError."""
    import polars as pl
    from polars.testing import assert_frame_equal

    assert_frame_equal(
        pl.DataFrame(pl.from_arrow(mine)), pl.DataFrame(pl.from_arrow(theirs)), check_exact=True, check_dtypes=False
    )


def _home(folder: Path, rows: int) -> tuple[Any, float]:
    """A home of so many customers: feature tables, a ledger that six in ten said yes to and one in ten took it back, entity rows;
    and the seconds that making its spans took."""
    import polars as pl

    from consent.ledger.opening import open_ledger
    from feature_repo.historical.spans import training_spans
    from troth.clock import FixedClock
    from troth.home import Home

    home = Home(folder / "home")
    home.published.mkdir(parents=True)
    chance = _Chance(rows // ROWS_PER_CUSTOMER)
    for view in VIEWS:
        _publish(home, view.table, chance.features(view))
    customers = chance.customers()
    _publish(home, "customers", customers.select("customer_id", pl.lit(value=False).alias("is_test")))
    _publish(
        home, "customer_identities",
        customers.with_columns(link_type=pl.lit("hub"), group_ref="identity_ref", is_test=pl.lit(value=False)),
    )  # fmt: skip
    chance.entities(rows).write_parquet(folder / "entities.parquet")
    clock = FixedClock(NOW)
    with open_ledger(home, clock) as ledger:
        for part in chance.said(customers).iter_slices(100_000):
            ledger.append_frame(part)
    began = time.perf_counter()
    training_spans(home, clock)
    return home, round(time.perf_counter() - began, 2)


class _Chance:
    """Everything random, from one seed."""

    def __init__(self, customers: int) -> None:
        import numpy as np

        self.count, self.draw = customers, np.random.default_rng(SEED)

    def customers(self) -> Any:
        import polars as pl

        letters = dict(zip("0123456789", "abcdefghij", strict=True))
        number = pl.int_range(self.count, eager=True).cast(pl.String).str.zfill(22)
        return pl.select(
            customer_id=self._ids(range(self.count)), identity_ref=pl.lit("account_") + number.str.replace_many(letters)
        )

    def features(self, view: View) -> Any:
        """Rows of a view: every customer's first within a step, and one every step from there."""
        import numpy as np
        import polars as pl

        turns, step = DAYS // STEPS[view.name], STEPS[view.name] * 86_400
        rows, words = turns * self.count, pl.Series(["tea", "thé", "jam", None])
        values = {
            "integer": lambda: self.draw.integers(0, 1_000, rows), "decimal": lambda: self.draw.random(rows),
            "boolean": lambda: self.draw.random(rows) < 0.5, "text": lambda: words.gather(self.draw.integers(0, 4, rows)),
        }  # fmt: skip
        seconds = self.draw.integers(0, step, self.count)[:, None] + np.arange(turns) * step
        return pl.DataFrame(
            {
                "customer_id": self._ids(np.repeat(np.arange(self.count), turns)),
                "feature_at": _at(BEGAN, seconds.ravel()).dt.replace_time_zone(None),
                **{each.name: values[each.type]() for each in view.fields},
            }
        )

    def entities(self, rows: int) -> Any:
        import polars as pl

        return pl.DataFrame(
            {
                "customer_id": self._ids(self.draw.integers(0, self.count, rows)),
                "event_timestamp": self._times(rows),
                "label": self.draw.random(rows) < 0.1,
            }
        )

    def said(self, customers: Any) -> Any:
        """Seven in ten said yes before the first row; of these one in seven took it back in between."""
        import polars as pl

        people = customers["identity_ref"].sample(fraction=0.7, seed=SEED)
        again = people.head(people.len() // 7)
        before = pl.Series([BEGAN - timedelta(days=30)]).cast(pl.Datetime("us", "UTC"))
        yes = pl.DataFrame({"subject_id": people}).with_columns(event_type=pl.lit("grant"), at=before.first())
        no = pl.DataFrame({"subject_id": again, "at": self._times(again.len())}).with_columns(
            event_type=pl.lit("withdraw")
        )
        plain = {
            "purpose_code": "model_training", "channel_code": "*", "notice_id": "preference_centre", "language_code": "en",
            "capture_method": "form_tick", "capture_place": "web_preference_centre", "actor_type": "subject", "jurisdiction_code": "US-OR",
        }  # fmt: skip
        return (
            pl.concat([yes, no.select(yes.columns)])
            .with_columns(
                **{name: pl.lit(value) for name, value in plain.items()},
                **{name: pl.col("at") for name in ("occurred_at", "recorded_at", "received_at")},
                notice_version=pl.lit(1, pl.Int64),
                signal_id=pl.format("sig-{}", pl.int_range(pl.len())),
            )
            .drop("at")
        )

    def _ids(self, numbers: Any) -> Any:
        import polars as pl

        return pl.select(pl.format("cus_{}", pl.Series(numbers).cast(pl.String).str.zfill(12))).to_series()

    def _times(self, count: int) -> Any:
        return _at(BEGAN, self.draw.integers(0, DAYS * 86_400, count))


def _at(began: datetime, seconds: Any) -> Any:
    import polars as pl

    return ((pl.Series(seconds) + int(began.timestamp())) * 1_000_000).cast(pl.Datetime("us", "UTC"))


def _publish(home: Any, table: str, frame: Any) -> None:
    from troth.published import publish

    draft = home.root / f"{table}.draft"
    frame.write_parquet(draft)
    publish(home, table, draft)


def _store(home: Any, kind: str) -> Any:
    """Feast's store over the home's tables, with the offline store of a kind: ours, ours without consent, or Feast's own."""
    from feature_repo.feast_import import feast

    f = feast()
    from feast import types
    from feast.repo_config import RepoConfig

    from troth.published import current

    offline = {
        "Historical": {"type": "benchmarks.historical_stores.ConsentedOfflineStore", "home": str(home.root), "answer_at": NOW.isoformat()},
        "Open": {"type": "benchmarks.historical_stores.OpenOfflineStore"},
        "Feast": {"type": "file"},
    }  # fmt: skip
    kinds = {"integer": types.Int64, "decimal": types.Float64, "boolean": types.Bool, "text": types.String}
    store = f.FeatureStore(
        config=RepoConfig(
            project="bench", provider="local", registry={"path": str(home.root / "registry.db")},
            online_store={"type": "sqlite", "path": str(home.root / "unused.db")}, offline_store=offline[kind],
            entity_key_serialization_version=3,
        )
    )  # fmt: skip
    customer = f.Entity(name="customer", join_keys=["customer_id"], value_type=f.ValueType.STRING)
    views = [
        f.FeatureView(
            name=view.name, entities=[customer], ttl=view.time_to_live,
            schema=[f.Field(name="customer_id", dtype=types.String), *(f.Field(name=each.name, dtype=kinds[each.type]) for each in view.fields)],
            source=f.FileSource(name=view.table, path=str(current(home, view.table)), timestamp_field="feature_at"),
        )
        for view in VIEWS
    ]  # fmt: skip
    store.apply([customer, *views, f.FeatureService(name=SERVICE.name, features=views)])
    return store
