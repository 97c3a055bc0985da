"""What `feature_http` asks about: people, what they bought and did, a ledger in which each said yes; the same in Feast's own stores."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks.callers import is_open

WORKERS, SERVICE, PURPOSE = 2, "recommend_v1", "personalization"
TYPES = {"integer": "Int64", "decimal": "Float64", "text": "String", "boolean": "Bool"}
_PATIENCE = 180


@dataclass(frozen=True)
class World:
    """A home, whom it knows, the key of a caller, and the rows of each view in a file."""

    home: Any
    people: list[str]
    key: str
    sources: Mapping[str, Path]


def made(folder: Path, count: int) -> World:
    """People, and a row of each view for them; each granted personalization, and standing was decided by the rule itself."""
    import numpy as np
    import polars as pl

    from feature_repo import catalogue
    from serving import keys
    from troth.home import Home

    home, at, chance = Home(folder / "home"), datetime.now(UTC).replace(microsecond=0), np.random.default_rng(7)
    people = pl.Series(
        "customer_id", [f"cus_{number:022o}".replace("0", "a").replace("1", "b") for number in range(count)]
    )
    sources = {}
    for view in catalogue.service(SERVICE).views:
        columns = {
            "integer": lambda: chance.integers(0, 100_000, count),
            "decimal": lambda: chance.random(count),
            "text": lambda: pl.Series([f"category {each}" for each in range(50)]).gather(chance.integers(0, 50, count)),
        }
        rows = pl.DataFrame([people]).with_columns(
            pl.lit(at - timedelta(hours=1)).cast(pl.Datetime("us", "UTC")).alias(view.event_column),
            **{each.name: pl.Series(columns[each.type]()) for each in view.fields},  # type: ignore[operator]
        )
        sources[view.name] = folder / f"{view.name}.parquet"
        rows.write_parquet(sources[view.name])
        _publish(home, view.table, rows)
    _said_yes(home, people, at)
    key = keys.make_key(home, "benchmark", [PURPOSE], at)
    return World(home, people.to_list(), key, sources)


def _said_yes(home: Any, people: Any, at: datetime) -> None:
    """A grant of each person in the ledger; standing by it, published where a service finds it."""
    import polars as pl

    from consent.ledger.opening import open_ledger
    from consent.rule.policy import read_policy
    from consent.rule.standing import standing_frame
    from feature_repo.catalogue import SUBJECT_STANDING
    from troth.clock import FixedClock

    links = pl.DataFrame([people]).with_columns(
        identity_ref=pl.format("loyalty_{}", pl.col("customer_id").str.slice(4)), link_type=pl.lit("hub")
    )
    said = links.select(
        subject_id="identity_ref",
        **{name: pl.lit(value) for name, value in {
            "event_type": "grant", "purpose_code": PURPOSE, "channel_code": "*", "notice_id": "web_banner", "language_code": "en",
            "capture_method": "banner_accept", "capture_place": "web_banner", "actor_type": "subject", "jurisdiction_code": "US-CA",
        }.items()},
        signal_id=pl.format("sig-{}", pl.int_range(pl.len())), notice_version=pl.lit(1, pl.Int64),
        **{f"{clock}_at": pl.lit(at - timedelta(days=2)) for clock in ("occurred", "recorded", "received")},
    )  # fmt: skip
    with open_ledger(home, FixedClock(at)) as ledger:
        leaves = ledger.append_frame(said)
        size = ledger.size
    events = said.with_columns(
        pl.Series("leaf_index", leaves, pl.Int64), ledger_size=pl.lit(size, pl.Int64),
        actor_id=pl.lit(None, pl.String), linked_subject_id=pl.lit(None, pl.String),
    ).with_columns(link_type=pl.lit(None, pl.String))  # fmt: skip
    standing = standing_frame(events, links, read_policy(), at)
    for table, rows in {
        "consent_standing": standing, "customer_identities": links, SUBJECT_STANDING.table: _in_slots(standing, at)
    }.items():  # fmt: skip
        _publish(home, table, rows)


def _publish(home: Any, table: str, rows: Any) -> None:
    """A table as the platform publishes it: times in UTC, without a zone."""
    import polars as pl

    from troth.published import publish

    draft = home.root / f"{table}.draft.parquet"
    draft.parent.mkdir(parents=True, exist_ok=True)
    rows.with_columns(pl.col(pl.Datetime("us", "UTC")).dt.replace_time_zone(None)).write_parquet(draft)
    publish(home, table, draft)


def _in_slots(standing: Any, at: datetime) -> Any:
    """`ftr_subject_standing`, a row of each customer, of standing's rows."""
    import polars as pl

    from feature_repo.catalogue import STANDING_SLOTS, standing_slot

    slot = pl.struct("purpose_code", "channel_code").map_elements(
        lambda each: standing_slot(each["purpose_code"], each["channel_code"]), pl.String
    )
    named = standing.with_columns(slot=slot)

    def of(column: str, slot: str) -> Any:
        return pl.col(column).filter(pl.col("slot") == slot).first()

    told = [(f"is_{each}_allowed", "is_allowed", each) for each in STANDING_SLOTS]
    told += [(f"reason_{each}", "reason_code", each) for each in STANDING_SLOTS]
    told += [(f"expires_{each}_at", "expires_at", each) for each in STANDING_SLOTS]
    return named.group_by("customer_id").agg(
        pl.lit(at - timedelta(hours=1)).alias("feature_at"), pl.col("ledger_size").max(), **{name: of(column, slot) for name, column, slot in told}
    )  # fmt: skip


def publish_online(root: Path) -> None:
    """The views of the service, and standing, from the home's tables into its online store, as a run of the platform does it."""
    from feature_repo.catalogue import INDEXES, SUBJECT_STANDING, VIEWS, service
    from feature_repo.publish import publish
    from troth.home import Home

    standing = [view for view in (*VIEWS, *INDEXES) if view.table == SUBJECT_STANDING.table]
    publish(Home(root), views=(*service(SERVICE).views, *standing))


def feast_folder(folder: Path, kind: str, place: str) -> Path:
    """A Feast repository over a stock store."""
    import yaml

    online = {"redis": {"type": "redis", "connection_string": place.removeprefix("redis://").partition("/")[0]}, "sqlite": {"type": "sqlite", "path": place}}[kind]  # fmt: skip
    made = folder / f"feast_{kind}"
    made.mkdir()
    told = {
        "project": "bench", "provider": "local", "registry": str(made / "registry.db"), "online_store": online, "offline_store": {"type": "file"},
        "entity_key_serialization_version": 3,
    }  # fmt: skip
    (made / "feature_store.yaml").write_text(yaml.safe_dump(told))
    return made


def materialize(repo: Path, sources: Mapping[str, str]) -> None:
    """The same views and service in Feast, as it comes, and all their rows."""
    import feast as f
    from feast import types

    from feature_repo.catalogue import view

    store = f.FeatureStore(repo_path=str(repo))
    customer = f.Entity(name="customer", join_keys=["customer_id"], value_type=f.ValueType.STRING)
    views = [
        f.FeatureView(
            name=name, entities=[customer], ttl=view(name).time_to_live,
            schema=[f.Field(name="customer_id", dtype=types.String)]
            + [f.Field(name=each.name, dtype=getattr(types, TYPES[each.type])) for each in view(name).fields],
            source=f.FileSource(name=name, path=path, timestamp_field=view(name).event_column),
        )
        for name, path in sources.items()
    ]  # fmt: skip
    store.apply([customer, *views, f.FeatureService(name=SERVICE, features=views)])
    now = datetime.now(UTC)
    store.materialize(now - timedelta(days=2), now)


def begin(standing: ExitStack, command: Sequence[str], **environment: str) -> subprocess.Popen[bytes]:
    """A server as a process, ended with all it started."""
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, **environment})  # fmt: skip
    standing.callback(_end, child)
    return child


def wait_for(port: int, child: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + _PATIENCE
    while not is_open(port):
        if time.monotonic() > until or child.poll() is not None:
            raise SystemExit("feature_http: expected a server that answers, found none.")
        time.sleep(0.1)


def _end(child: subprocess.Popen[bytes]) -> None:
    import psutil

    family = psutil.Process(child.pid).children(recursive=True) if child.poll() is None else []
    child.terminate()
    try:
        child.wait(30)
    except subprocess.TimeoutExpired:
        child.kill()
    for each in family:
        if each.is_running():
            each.kill()


def command_of(*words: str) -> list[str]:
    return [sys.executable, "-m", "benchmarks.feature_http", *words]


def feast_command(repo: Path, port: str, workers: int) -> list[str]:
    """Feast's own server, without the log of accesses that it writes otherwise."""
    options = ["serve", "--port", port, "--max-requests", "0", "--no-access-log", "--workers", str(workers)]
    return [sys.executable, "-c", "from feast.cli.cli import cli; cli()", "-c", str(repo), *options]
