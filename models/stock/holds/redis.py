"""Holds in Redis: a script for each operation, kept by an append-only file that is synced before Redis answers.

Needs the extra `redis`. The address may hold a password: no error repeats it, nor the driver's words.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from models.stock.holds.asking import Asked, Kept, KeptLine, lacking, taken
from models.stock.holds.scripts import SCRIPTS, VERSION
from models.stock.holds.store import Holds, Keeper
from models.stock.holds.words import HoldsError, Level, Limits, Line, Position, Reason, Refusal, State, Swept

T = TypeVar("T")
_BATCH = 2_000  # positions of one script: others wait for it some milliseconds
_TRIES = 5
_PATIENCE = 10.0  # seconds
_AGAIN = "Do it again: what is held already is not held twice."


class RedisScripts:
    """The `Keeper`: every call is one script, and so a transaction of its own. `set_free` and `levels` take one for every 2,000 positions."""

    def __init__(self, client: Any, base: str) -> None:
        self._base = base
        self._scripts = {name: client.register_script(script) for name, script in SCRIPTS.items()}

    def set_free(self, rows: Sequence[tuple[str, str, int]], version: int) -> None:
        for batch in _batches(rows):
            self._run("set_free", 0, version, json.dumps(batch))

    def seen(self, asked: Asked, now: int) -> Kept | Refusal | None:
        """Nothing: the script is as quick as a look."""
        return None

    def hold(self, asked: Asked, hold_id: str, now: int) -> Kept | Refusal:
        answer, *rest = self._run(
            "hold", now, hold_id, asked.key, asked.request, now + asked.lasting, json.dumps(asked.lines)
        )
        if answer == b"lacking":
            return _refused(lacking(asked.lines, _levels(asked.lines, rest[0])))
        return _kept_or_refused(answer, rest)

    def extend(self, hold_id: str, until: int, now: int, lasting: int) -> Kept | Refusal:
        answer, *rest = self._run("extend", now, hold_id, until, lasting)
        if answer == b"expired":
            wanted = [Line(*line[:2], line.units - line.settled_units) for line in _kept(rest[0]).lines]
            lacks = lacking(wanted, _levels(wanted, rest[1]))
            return Refusal("expired", lacks.shortages if lacks else ())
        if answer == b"too_long":
            return Refusal("too_long", most=lasting // 1_000_000)
        return _kept_or_refused(answer, rest)

    def release(self, hold_id: str, now: int) -> Kept | Refusal:
        answer, *rest = self._run("release", now, hold_id)
        return _kept_or_refused(answer, rest)

    def settle(
        self, hold_id: str, now: int, lines: Sequence[Line] | None, version: int | None
    ) -> tuple[Kept, State, Mapping[Position, Level]] | Refusal:
        if lines is None:
            found = self.kept([hold_id])
            if not found:
                return Refusal("unknown_hold")
            lines = [Line(*line[:3]) for line in found[0].lines]  # what it was made for never changes
        answer, *rest = self._run("settle", now, hold_id, "" if version is None else version, json.dumps(lines))
        if answer == b"not_held":
            beyond = taken(_kept(rest[0]), lines)
            return _refused(beyond if isinstance(beyond, Refusal) else None)
        if answer != b"settled":
            return Refusal(_reason(answer))
        kept, was, more, levels = rest
        return _kept(kept), was.decode(), _levels([Line(*row) for row in json.loads(more)], levels)

    def kept(self, hold_ids: Sequence[str]) -> list[Kept]:
        return [_kept(each) for each in self._run("kept", 0, *hold_ids)]

    def levels(self, positions: Sequence[Position], now: int) -> Mapping[Position, Level]:
        found: dict[Position, Level] = {}
        for batch in _batches([Line(*position, 0) for position in positions]):
            found |= _levels(batch, self._run("levels", now, json.dumps(batch)))
        return found

    def active(self, after: tuple[int, str], limit: int) -> list[Kept]:
        return [_kept(each) for each in self._run("active", 0, *after, limit)]

    def sweep(self, now: int, forget: int, limit: int) -> Swept:
        return Swept(*self._run("sweep", now, forget, limit))

    def _run(self, name: str, *values: object) -> Any:
        return self._scripts[name](keys=[self._base], args=values)


class RedisPlace:
    """One Redis, or one slot of a cluster. A connection that is lost is made anew, and the script run again: that changes nothing."""

    def __init__(self, client: Any, base: str) -> None:
        self._client = client
        self._errors = _driver().exceptions
        self._scripts = RedisScripts(client, base)
        self.writing(lambda _: self._prepare(f"{base}:version"))

    def close(self) -> None:
        self._client.close()

    def writing(self, work: Callable[[Keeper], T]) -> T:
        try:
            return work(self._scripts)
        except self._errors.RedisError as fault:
            raise HoldsError(f"holds: expected a Redis that works, found {type(fault).__name__}. {_AGAIN}") from None

    reading = writing

    def _prepare(self, mark: str) -> None:
        """Raises: HoldsError for a Redis that forgets what it acknowledged, as far as it tells, or another layout."""
        told = {**self._client.info("persistence"), **self._client.info("memory")}
        with suppress(self._errors.ResponseError):  # a hosted one may not tell
            told |= self._client.config_get("appendfsync")
        kept = {"aof_enabled": 1, "appendfsync": "always", "maxmemory_policy": "noeviction"}
        for name, expected in kept.items():
            if name in told and told[name] != expected:
                raise HoldsError(
                    f"holds: expected a Redis that keeps what it acknowledged ({name} {expected}), found {told[name]}. "
                    "Set appendonly yes, appendfsync always, maxmemory-policy noeviction."
                )
        self._client.set(mark, VERSION, nx=True)
        found = self._client.get(mark).decode()
        if found != VERSION:
            raise HoldsError(
                f"holds layout: expected version {VERSION}, found {found}. Use the release that made it: it is none of this one's."
            )


def redis_holds(address: str, limits: Limits | None = None, name: str = "troth") -> Holds:
    """The holds of a Redis at `redis://...`. `name`: whose they are, where several retailers share it, each in a slot of its own.

    Raises: HoldsError when it cannot be reached, does not keep what it acknowledges, or there is no driver.
    """
    redis = _driver()
    from redis.backoff import ExponentialBackoff
    from redis.retry import Retry

    client = redis.Redis.from_url(
        address, retry=Retry(ExponentialBackoff(cap=1, base=0.01), _TRIES),
        socket_timeout=_PATIENCE, socket_connect_timeout=_PATIENCE,
    )  # fmt: skip
    return holds_of(client, limits, name)


def holds_of(client: Any, limits: Limits | None = None, name: str = "troth") -> Holds:
    """The same over a client of redis-py that the caller made: of a cluster, or behind sentinels."""
    return Holds(RedisPlace(client, f"{{{name}}}:stock"), limits)


def _driver() -> Any:
    try:
        import redis
    except ImportError:
        raise HoldsError(
            "holds: expected redis-py to reach Redis with, found none. Install Troth with its extra `redis`."
        ) from None
    return redis


def _batches(rows: Sequence[T]) -> Iterable[Sequence[T]]:
    return (rows[begin : begin + _BATCH] for begin in range(0, len(rows), _BATCH))


def _kept(told: Sequence[bytes]) -> Kept:
    hold_id, key, request, made_at, expires_at, outcome, ended_at, lines = (each.decode() for each in told)
    return Kept(
        hold_id, key, request, int(made_at), int(expires_at), outcome or None, int(ended_at) if ended_at else None,  # type: ignore[arg-type]
        tuple(KeptLine(*line) for line in json.loads(lines)),
    )  # fmt: skip


def _levels(lines: Sequence[Line], told: Sequence[Any]) -> dict[Position, Level]:
    pairs = zip(lines, told, strict=True)
    return {Position(*line[:2]): Level(*level) for line, level in pairs if level is not None}


def _kept_or_refused(answer: bytes, rest: Sequence[Any]) -> Kept | Refusal:
    return _kept(rest[0]) if answer == b"kept" else Refusal(_reason(answer))


def _reason(answer: bytes) -> Reason:
    return answer.decode()  # type: ignore[return-value]  # the scripts say these words


def _refused(refusal: Refusal | None) -> Refusal:
    if refusal is None:
        raise HoldsError("holds: expected scripts and rules to agree on a refusal, found they do not. Report it.")
    return refusal
