"""The four forms of standing over the same crowds: the function, the frame, the SQL of the mart run by DuckDB, and the gate."""

import random
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import jinja2
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consent.events import SCHEMA, Recorded
from consent.rule.gate import Gate
from consent.rule.identity import joined, joined_frame
from consent.rule.policy import Policy, notices_frame, policy_frame
from consent.rule.standing import REASONS, standing_frame
from tests.unit.consent.builders import MONDAY
from tests.unit.consent.histories import (
    DAY,
    Owned,
    crowd,
    expected_rows,
    frame_of,
    instants,
    joined_table,
    linked_frame,
    policy_of,
)

DBT = Path(__file__).parents[2] / "dbt_project"
COLUMNS = (
    "customer_id",
    "purpose_code",
    "channel_code",
    "is_allowed",
    "reason_code",
    "since_at",
    "expires_at",
    "leaf_index",
    "ledger_size",
)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    return policy_of(tmp_path_factory.mktemp("policy"))


class Adapter:
    """Stands for dbt's adapter: every macro as DuckDB spells it."""

    def __init__(self) -> None:
        self.macros: Any = None

    def dispatch(self, name: str, package: str) -> Any:
        return getattr(self.macros, f"duckdb__{name}")


@cache
def template(name: str) -> tuple[jinja2.Environment, str]:
    """The model's text after the macros it uses, as dbt would read them; tables are named as they are."""
    adapter = Adapter()
    environment = jinja2.Environment(autoescape=False)  # noqa: S701  # SQL, not HTML
    environment.globals |= {"adapter": adapter, "return": lambda found: found, "execute": True}
    environment.globals |= {"source": lambda _, table: table, "ref": lambda table: table}
    macros = "".join((DBT / "macros" / f"{each}.sql").read_text() for each in ("dialect", "as_of"))
    adapter.macros = environment.from_string((DBT / "macros" / "dialect.sql").read_text()).module
    return environment, macros + (DBT / "models" / "marts" / f"{name}.sql").read_text()


def sql_of(name: str, **variables: str) -> str:
    environment, text = template(name)
    return environment.from_string(text).render(var=lambda key, default=None: variables.get(key, default))


def rows_in_sql(
    found: Sequence[Recorded],
    owned: Owned,
    policy: Policy,
    at: datetime,
    known_at: datetime | None,
) -> list[tuple[Any, ...]]:
    """The rows of the mart over these tables, with times in UTC."""
    events = frame_of(found).with_columns(
        pl.col(n).dt.replace_time_zone(None) for n, t in SCHEMA.items() if t == pl.Datetime("us", "UTC")
    )
    links = linked_frame(owned)
    tables = {
        "consent_events": events,
        "consent_policy": policy_frame(policy),
        "consent_notices": notices_frame(policy),
        "consent_links": joined_frame(frame_of(found), known_at),
        "customer_identities": links,
        "customers": links.select("customer_id").unique().with_columns(pl.lit(False).alias("is_test")),
    }
    until = max([at, *(one.event.received_at for one in found)]) if known_at is None else known_at
    with duckdb.connect() as connection:
        connection.execute("set TimeZone = 'UTC'; set threads = 1")
        for name, table in tables.items():
            connection.register(name, table)
        asked = sql_of("consent_standing", as_of_at=until.isoformat(), held_at=at.isoformat())
        rows = connection.execute(f"select {', '.join(COLUMNS)} from ({asked}) order by 1, 2, 3").fetchall()  # noqa: S608
    return [tuple(one.replace(tzinfo=UTC) if isinstance(one, datetime) else one for one in row) for row in rows]


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 100_000), instants, st.none() | instants)
def test_function_frame_sql_and_gate_agree_row_by_row(
    policy: Policy, seed: int, at: datetime, known_at: datetime | None
) -> None:
    """is_allowed, reason_code, since_at, expires_at, leaf_index and ledger_size of every customer, purpose and channel."""
    found, owned = crowd(random.Random(seed), 40)
    meant = expected_rows(found, owned, policy, at, known_at)
    frame = standing_frame(frame_of(found), linked_frame(owned), policy, at, known_at)
    assert tuple(frame.columns) == COLUMNS
    assert frame.rows() == meant
    assert rows_in_sql(found, owned, policy, at, known_at) == meant
    gate = Gate.build(frame, policy)
    for customer, purpose, channel, is_allowed, reason, *_ in meant:
        assert gate.allows(customer, purpose, channel, at) == (is_allowed, reason)


def test_the_crowds_meet_every_reason(policy: Policy) -> None:
    """What the forms are compared on is not one answer only."""
    found, owned = crowd(random.Random(7), 600)
    frame = standing_frame(frame_of(found), linked_frame(owned), policy, MONDAY + 5 * DAY)
    met = set(frame["reason_code"])
    assert met == set(REASONS) - {"unknown_purpose", "unknown_channel", "ledger_unreadable"}


def test_the_frame_the_function_and_sql_agree_on_who_hears_whom_through_a_third(policy: Policy) -> None:
    """Long chains of links made and broken, and little else."""
    chance = random.Random(3)
    found, owned = crowd(chance, 300)
    joined_up = [one for one in found if one.event.event_type not in ("restrict", "erased")]
    rows = joined(one.event for one in joined_up)
    assert sum(row.split_at != row.unlinked_at for row in rows) > 20
    at = MONDAY + 8 * DAY
    frame = standing_frame(frame_of(joined_up), linked_frame(owned), policy, at, together=joined_table(rows))
    assert frame.rows() == expected_rows(joined_up, owned, policy, at)
    assert frame.rows() == rows_in_sql(joined_up, owned, policy, at, None)


def test_the_mart_asks_about_as_of_at_unless_it_is_told_another_time() -> None:
    told = sql_of("consent_standing", as_of_at="2025-03-10T00:00:00Z")
    assert "2025-03-10T00:00:00Z" in told
    other = sql_of("consent_standing", as_of_at="2025-03-10T00:00:00Z", held_at="2025-03-05T00:00:00Z")
    assert told.replace("2025-03-10", "2025-03-05").count("2025-03-05") == told.count("2025-03-10")
    assert other.count("2025-03-10T00:00:00Z") == 2  # what had been received, and how much of the ledger that is
