"""Holds in tables: one transaction's work, in SQL that SQLite and PostgreSQL both speak.

What is held is summed from the lines that are open and not expired, under a lock on their positions; no counter of it is kept that could
drift. Locks are always taken in order of position, so that nobody waits in a circle. Who grants units counts expired holds of the
positions out for good: a clock that goes back brings none of them to life.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from models.stock.holds.asking import Asked, Kept, KeptLine, lacking, state_of, taken
from models.stock.holds.words import HoldsError, Level, Line, Position, Refusal, State, Swept

VERSION = 1  # of the schema
SCHEMA = (
    "create table if not exists holds_schema (version bigint not null)",
    """create table if not exists stock_free (
        location_code text not null, sku text not null, free_units bigint not null, version bigint not null,
        primary key (location_code, sku))""",
    """create table if not exists holds (
        hold_id text primary key, key text not null unique, request text not null, made_at bigint not null, outcome text, ended_at bigint,
        check (outcome in ('expired', 'released', 'settled')), check ((outcome is null) = (ended_at is null)))""",
    "create index if not exists holds_ended on holds (ended_at) where ended_at is not null",
    """create table if not exists hold_lines (
        hold_id text not null references holds, location_code text not null, sku text not null, units bigint not null,
        settled_units bigint not null default 0, open_units bigint not null, expires_at bigint not null,
        primary key (hold_id, location_code, sku), check (settled_units between 0 and units), check (open_units in (0, units - settled_units)))""",
    """create index if not exists hold_lines_open
        on hold_lines (location_code, sku, expires_at, open_units) where open_units > 0""",
    "create index if not exists hold_lines_expiry on hold_lines (expires_at, hold_id) where open_units > 0",
    # what orders took before the position heard of them: until it does, it stays off what is set as free
    """create table if not exists hold_settlements (
        location_code text not null, sku text not null, version bigint not null, units bigint not null,
        primary key (location_code, sku, version))""",
)


_LEVELS = """select f.location_code, f.sku, f.free_units, (select coalesce(sum(l.open_units), 0) from hold_lines as l
        where l.location_code = f.location_code and l.sku = f.sku and l.open_units > 0 and l.expires_at > ?)
    from $asked as asked join stock_free as f on f.location_code = asked.location_code and f.sku = asked.sku"""
_GONE = """select distinct l.hold_id from $asked as asked
    join hold_lines as l on l.location_code = asked.location_code and l.sku = asked.sku
    where l.open_units > 0 and l.expires_at <= ?"""
_LOCK = """select 1 from $asked as asked
    join stock_free as f on f.location_code = asked.location_code and f.sku = asked.sku
    order by f.location_code, f.sku for update of f"""
_MAKE = """insert into holds (hold_id, key, request, made_at) values (?, ?, ?, ?)
    on conflict (key) do nothing"""
_MAKE_LINES = """insert into hold_lines (hold_id, location_code, sku, units, open_units, expires_at)
    select cast(? as text), location_code, sku, units, units, cast(? as bigint) from $asked as asked
    where exists (select 1 from holds where hold_id = ?) returning hold_id"""


class Session(Protocol):
    """A transaction under way. A statement has `?` for a value, and a select of the rows of a JSON value for two words:

    `$asked` (location_code, sku, units) of [[location_code, sku, units], ...]; `$ids` (hold_id) of [hold_id, ...].
    """

    locks: bool  # whether rows must be locked, or the transaction is the only writer anyway

    def run(self, statement: str, *values: object) -> list[Any]: ...
    def ask(self, *asked: tuple[Any, ...]) -> list[list[Any]]:
        """The rows of several (statement, values ...), which a server answers in one go."""
        ...

    def do(self, statement: str, *values: object) -> None:
        """Nobody waits for what becomes of it; a fault shows later, before the commit at the latest."""
        ...


class Again(Exception):  # noqa: N818
    """Somebody else was faster: the same work begins anew."""


class Tables:
    """The `Keeper` of one transaction."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._run = session.run
        self._do = session.do

    def set_free(self, rows: Sequence[tuple[str, str, int]], version: int) -> None:
        told = json.dumps(rows)
        self._do(
            "insert into stock_free (location_code, sku, free_units, version) "
            "select location_code, sku, units, cast(? as bigint) from $asked as asked where true order by 1, 2 "
            "on conflict (location_code, sku) do update set free_units = excluded.free_units, version = excluded.version "
            "where stock_free.version <= excluded.version",
            version, told,
        )  # fmt: skip
        if not self._run("select 1 from hold_settlements limit 1"):
            return
        self._do(
            "update stock_free set free_units = free_units - s.units from ("
            "select location_code, sku, sum(units) as units from hold_settlements where version > ? group by 1, 2) as s "
            "where s.location_code = stock_free.location_code and s.sku = stock_free.sku and stock_free.version = ? "
            "and (stock_free.location_code, stock_free.sku) in (select location_code, sku from $asked as asked)",
            version, version, told,
        )  # fmt: skip
        self._do(
            "delete from hold_settlements where version <= ? "
            "and (location_code, sku) in (select location_code, sku from $asked as asked)",
            version, told,
        )  # fmt: skip

    def hold(self, asked: Asked, hold_id: str, now: int) -> Kept | Refusal:
        gone = self._look(asked, now, locks=self._session.locks)
        if not isinstance(gone, list):
            return gone
        self._expire(gone, now)
        expires_at = now + asked.lasting
        self._do(_MAKE, hold_id, asked.key, asked.request, now)
        if not self._run(_MAKE_LINES, hold_id, expires_at, json.dumps(asked.lines), hold_id):
            raise Again
        lines = tuple(KeptLine(*line, 0, line.units) for line in asked.lines)
        return Kept(hold_id, asked.key, asked.request, now, expires_at, None, None, lines)

    def seen(self, asked: Asked, now: int) -> Kept | Refusal | None:
        seen = self._look(asked, now)
        return None if isinstance(seen, list) else seen

    def _look(self, asked: Asked, now: int, locks: bool = False) -> Kept | Refusal | list[str]:
        """The hold of the key, why there can be none, or the expired holds that stand in the way of a new one no longer."""
        places = _places(asked.lines)
        *locked, known, rows, gone = self._session.ask(
            *[(_LOCK, places)] * locks,
            ("select hold_id from holds where key = ?", asked.key), (_LEVELS, now, places), (_GONE, places, now),
        )  # fmt: skip
        if known:
            (kept,) = self.kept([known[0][0]])
            return kept if kept.request == asked.request else Refusal("key_reused")
        if locks and len(locked[0]) < len(rows):
            raise Again  # a position was made between the two: it must be locked first
        return lacking(asked.lines, _levels(rows)) or [row[0] for row in gone]

    def extend(self, hold_id: str, until: int, now: int, lasting: int) -> Kept | Refusal:
        kept = self._locked(hold_id)
        if kept is None:
            return Refusal("unknown_hold")
        if kept.outcome in ("released", "settled"):
            return Refusal(kept.outcome)
        if until > kept.made_at + lasting:
            return Refusal("too_long", most=lasting // 1_000_000)
        is_alive = state_of(kept, now) == "held"
        if is_alive and until <= kept.expires_at:
            return kept
        if not is_alive:
            refusal = self._lapsed(kept, until, now)
            if refusal:
                return refusal
            self._do("update holds set outcome = null, ended_at = null where hold_id = ?", hold_id)
        self._do(
            "update hold_lines set open_units = units - settled_units, expires_at = ? where hold_id = ?", until, hold_id
        )
        return self.kept([hold_id])[0]

    def _lapsed(self, kept: Kept, until: int, now: int) -> Refusal | None:
        """Why an expired hold cannot live again: its time would be over too, or what it held is not free."""
        wanted = [Line(*line[:2], line.units - line.settled_units) for line in kept.lines]
        levels = self.levels([Position(*line[:2]) for line in wanted], now)
        lacks = lacking(wanted, levels)
        if lacks or until <= now:
            return Refusal("expired", lacks.shortages if lacks else ())
        self._count_out(wanted, now)
        return None

    def release(self, hold_id: str, now: int) -> Kept | Refusal:
        kept = self._locked(hold_id)
        if kept is None:
            return Refusal("unknown_hold")
        if kept.outcome not in ("released", "settled"):
            self._do("update hold_lines set open_units = 0 where hold_id = ? and open_units > 0", hold_id)
            self._do("update holds set outcome = 'released', ended_at = ? where hold_id = ?", now, hold_id)
        return self.kept([hold_id])[0]

    def settle(
        self, hold_id: str, now: int, lines: Sequence[Line] | None, version: int | None
    ) -> tuple[Kept, State, Mapping[Position, Level]] | Refusal:
        kept = self._locked(hold_id)
        if kept is None:
            return Refusal("unknown_hold")
        wanted = taken(kept, lines)
        if isinstance(wanted, Refusal):
            return wanted
        for at, units in wanted.items():
            self._do(
                "update hold_lines set settled_units = settled_units + ?, open_units = case when open_units > 0 then open_units - ? else 0 end "
                "where hold_id = ? and location_code = ? and sku = ?",
                units, units, hold_id, *at,
            )  # fmt: skip
            self._fall(at, units, version)
        if wanted:
            self._do(
                "update holds set outcome = 'settled', ended_at = ? where hold_id = ? and not exists ("
                "select 1 from hold_lines as l where l.hold_id = holds.hold_id and l.settled_units < l.units)",
                now, hold_id,
            )  # fmt: skip
        return self.kept([hold_id])[0], state_of(kept, now), self.levels(list(wanted), now)

    def _fall(self, at: Position, units: int, version: int | None) -> None:
        """Free falls, unless the position heard of the order already."""
        fell = self._run(
            "update stock_free set free_units = free_units - ? "
            "where location_code = ? and sku = ? and (cast(? as bigint) is null or version < ?) returning version",
            units, *at, version, version,
        )  # fmt: skip
        if fell and version is not None:
            self._do(
                "insert into hold_settlements (location_code, sku, version, units) values (?, ?, ?, ?) "
                "on conflict (location_code, sku, version) do update set units = hold_settlements.units + excluded.units",
                *at, version, units,
            )  # fmt: skip

    def kept(self, hold_ids: Sequence[str]) -> list[Kept]:
        """In the order of the ids; those that are unknown are left out."""
        rows = self._run(
            "select h.hold_id, h.key, h.request, h.made_at, l.expires_at, h.outcome, h.ended_at, "
            "l.location_code, l.sku, l.units, l.settled_units, l.open_units "
            "from $ids as asked join holds as h on h.hold_id = asked.hold_id "
            "join hold_lines as l on l.hold_id = h.hold_id order by h.hold_id, l.location_code, l.sku",
            json.dumps(hold_ids),
        )
        heads: dict[str, Any] = {}
        lines: dict[str, list[KeptLine]] = {}
        for row in rows:
            heads[row[0]] = row[:7]
            lines.setdefault(row[0], []).append(KeptLine(*row[7:]))
        return [Kept(*heads[each], tuple(lines[each])) for each in hold_ids if each in heads]  # type: ignore[call-arg]  # seven

    def levels(self, positions: Sequence[Position], now: int) -> Mapping[Position, Level]:
        return _levels(self._run(_LEVELS, now, _places(positions)))

    def active(self, after: tuple[int, str], limit: int) -> list[Kept]:
        ids = self._run(
            "select distinct l.expires_at, l.hold_id from hold_lines as l join holds as h on h.hold_id = l.hold_id "
            "where l.open_units > 0 and (l.expires_at, l.hold_id) > (?, ?) and h.outcome is null order by 1, 2 limit ?",
            *after, limit,
        )  # fmt: skip
        return self.kept([row[1] for row in ids])

    def sweep(self, now: int, forget: int, limit: int) -> Swept:
        over = "select distinct hold_id from hold_lines where open_units > 0 and expires_at <= ? limit ?"
        ids = [row[0] for row in self._run(over, now, limit)]
        if ids:
            self._lock([Line(*line[:3]) for kept in self.kept(ids) for line in kept.lines])
        old = [row[0] for row in self._run("select hold_id from holds where ended_at <= ? limit ?", forget, limit)]
        self._do("delete from hold_lines where hold_id in $ids", json.dumps(old))
        self._do("delete from holds where hold_id in $ids", json.dumps(old))
        return Swept(self._expire(ids, now), len(old))

    def _count_out(self, lines: Iterable[Line], now: int) -> None:
        """End the expired holds of these positions for good: their units are about to be somebody else's."""
        self._expire([row[0] for row in self._run(_GONE, _places(lines), now)], now)

    def _expire(self, hold_ids: Sequence[str], now: int) -> int:
        if not hold_ids:
            return 0
        ids = json.dumps(hold_ids)
        if self._session.locks:  # in order: others may be about to end the same ones
            self._do("select 1 from holds where hold_id in $ids order by hold_id for update", ids)
        self._do(
            "update hold_lines set open_units = 0 where open_units > 0 and expires_at <= ? and hold_id in $ids",
            now,
            ids,
        )
        ended = self._run(
            "update holds set outcome = 'expired', "
            "ended_at = (select max(l.expires_at) from hold_lines as l where l.hold_id = holds.hold_id) "
            "where outcome is null and hold_id in $ids "
            "and not exists (select 1 from hold_lines as l where l.hold_id = holds.hold_id and l.open_units > 0) returning hold_id",
            ids,
        )
        return len(ended)

    def _locked(self, hold_id: str) -> Kept | None:
        if self._session.locks:
            self._do(
                "select 1 from hold_lines as l join stock_free as f on f.location_code = l.location_code and f.sku = l.sku "
                "where l.hold_id = ? order by f.location_code, f.sku for update of f",
                hold_id,
            )
        found = self.kept([hold_id])
        return found[0] if found else None

    def _lock(self, lines: Iterable[Line]) -> None:
        if self._session.locks:
            self._do(_LOCK, _places(lines))


def _places(places: Iterable[Line | Position]) -> str:
    return json.dumps([(*place[:2], 0) for place in places])


def _levels(rows: Iterable[Any]) -> Mapping[Position, Level]:
    return {Position(row[0], row[1]): Level(row[2], int(row[3])) for row in rows}


def prepare(session: Session, schema: Sequence[str]) -> None:
    """Make the tables where there are none. Raises: HoldsError for those of another version."""
    for statement in schema:
        session.do(statement)
    session.do("insert into holds_schema (version) select ? where not exists (select 1 from holds_schema)", VERSION)
    found = session.run("select version from holds_schema")[0][0]
    if found != VERSION:
        raise HoldsError(
            f"holds schema: expected version {VERSION}, found {found}. Use the release that made it: it is none of this one's."
        )
