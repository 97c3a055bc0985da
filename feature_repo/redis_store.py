"""The online store in Redis: a hash for each entity, in it two places for each view, so that a version comes in whole.

A value has a head: event time (8 bytes), and by which publication it came (4 bytes; nought: at once, over the near-time path; the
highest bit: it goes on being true with later versions). A reader takes, of what is published, the latest publication, and beside one
written at once the newer. A writer never overwrites what is read: a version goes into the other place, and one word in the hash of the project makes all of it be read at once.
Works on one Redis, behind sentinels, and on a cluster. Needs the extra `redis`. The address may hold a password: no error repeats it.
"""

import hashlib
import secrets
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from feature_repo.catalogue import Entity, View
from feature_repo.errors import FeatureError
from feature_repo.packed import layout_of
from feature_repo.redis_nodes import ClusterNodes, Nodes, OneNode, bulk, command, driver, faults, lost
from feature_repo.redis_scripts import BEGIN, COMMIT, ERASE, FAILED, FIRST, SWEEP, WRITE
from feature_repo.store import Fetched, OnlineStore, Refresh, Standing, StoredRow, Written

if TYPE_CHECKING:
    from feature_repo.columns import Encoded

HEAD = struct.Struct(">qI")
HEAD_BYTES = HEAD.size
FOLLOWS = 1 << 31  # of the four bytes that say by which publication
_NEVER = -(1 << 63)
ERASED = b"!"
LEASE_SECONDS = 60.0  # a publication that says nothing for so long is taken for dead
_RENEW_SECONDS = 10.0
_PATIENCE = 3.0  # seconds; who reads waits no longer than twice that
_NOTHING = Standing()


class RedisStore(OnlineStore):
    """Rows of one project in a Redis. Every thread has a connection of its own to each node."""

    def __init__(self, connect: Callable[[], Any], project: str = "troth") -> None:
        """`connect`: a client of redis-py, of one server, behind sentinels or of a cluster; asked for when it is first needed."""
        super().__init__()
        self._connect, self._lock = connect, threading.Lock()
        self._meta = f"{project}:".encode()
        self._queries: dict[tuple[Any, ...], _Query] = {}
        self._seen: dict[bytes, tuple[int, Standing]] = {}
        self._registered: dict[tuple[str, int], int] = {}
        self._given_up: set[tuple[bytes, str]] = set()

    @cached_property
    def _client(self) -> Any:
        try:
            return self._connect()
        except faults() as fault:
            raise lost(fault) from None

    @cached_property
    def _nodes(self) -> Nodes:
        with self._lock:
            return ClusterNodes(self._client) if hasattr(self._client, "nodes_manager") else OneNode(self._client)

    def fetch(self, views: Sequence[View], keys: Sequence[str]) -> Fetched:
        for _ in range(2):
            found, is_current = self._fetched(views, keys)
            if is_current:
                break
        return found

    def _fetched(self, views: Sequence[View], keys: Sequence[str]) -> tuple[Fetched, bool]:
        """What is published, and whether it was whole: who looked at what is published long before the rows may find both places newer."""
        query = self._query(views)
        prefix, head, tail = query.prefix, query.head, query.tail
        hashes = [f"{prefix}{key}".encode() for key in keys]
        asked = [b"%b%d\r\n%b%b" % (head, len(name), name, tail) for name in hashes]
        told, *answers = self._nodes.ask([self._meta, *hashes], [query.meta, *asked])
        standings = [self._standing(each) for each in told]
        fields = list(zip(*answers, strict=True)) or [()] * (2 * len(views))
        found, is_current = [], True
        for place, (done, standing) in enumerate(standings):
            rows, is_whole = _rows(fields[2 * place], fields[2 * place + 1], done, standing.as_of_us or _NEVER)
            found.append(rows)
            is_current &= is_whole
        return Fetched(found, [standing for _, standing in standings]), is_current

    def _query(self, views: Sequence[View]) -> "_Query":
        """How some views are asked for, worked out once."""
        known = self._queries.get(key := (views[0].entity.join_keys, *[view.name for view in views]))
        if known is None:
            tail = b"".join(bulk(field) for view in views for field in _places(view))
            meta = command(b"HMGET", self._meta, *(b"view:" + _view_id(view) for view in views))
            head = b"*%d\r\n$5\r\nHMGET\r\n$" % (2 + 2 * len(views))
            known = self._queries[key] = _Query(self._prefix(views[0].entity).decode(), meta, head, b"\r\n" + tail)
        return known

    def scan(self, view: View, prefix: str = "") -> Iterator[tuple[str, StoredRow]]:
        begin = self._prefix(view.entity)
        for names in self._scanned(begin + prefix.encode()):
            keys = [name[len(begin) :].decode() for name in names]
            fetched = self.fetch([view], keys)
            for key, row in zip(keys, fetched.rows[0], strict=True):
                if row is not None:
                    yield key, StoredRow(row[0], self.decoded(row[1]), fetched.standings[0].version)

    def standings(self, views: Sequence[View]) -> list[Standing]:
        told = self._ask(b"HMGET", self._meta, *(b"view:" + _view_id(view) for view in views))
        return [self._standing(each)[1] for each in told]

    def write(self, view: View, rows: "Encoded") -> Written:
        self._register(view)
        if not len(rows):
            return Written()
        from feature_repo.redis_wire import noted

        touched, name = self._touched(view)[0], b"view:" + _view_id(view)
        note = noted(touched, rows.keys)
        if self._nodes.slots is None:  # the script sees for itself what is published
            return self._written(view, rows, 0, [self._meta, name], None, note)[0]
        told, _ = self._nodes.ask([self._meta, touched], [command(b"HGET", self._meta, name), note])
        done, standing = self._standing(told)
        return self._written(view, rows, 0, [b"%d" % done, b"%d" % (standing.as_of_us or 0)], None)[0]

    @contextmanager
    def refresh(self, view: View, version: str, as_of_us: int, rows: int, mark: int | None = None) -> Iterator[Refresh]:
        self._give_up()
        token = secrets.token_hex(8)
        try:
            with self._nodes.one_life():
                yield from self._refreshed(view, version, as_of_us, rows, mark, token)
        except BaseException:
            self._given_up.add((_view_id(view), token))
            with suppress(FeatureError):
                self._give_up()
            raise

    def _give_up(self) -> None:
        """Say of publications that failed that nobody need wait for them; at the next one, should Redis be away."""
        for view_id, token in list(self._given_up):
            self._script(FAILED, [self._meta], view_id, token)
            self._given_up.discard((view_id, token))

    def _refreshed(
        self, view: View, version: str, as_of_us: int, rows: int, mark: int | None, token: str
    ) -> Iterator[Refresh]:
        self._register(view)
        begun = self._script(BEGIN, [self._meta], _view_id(view), token, version, LEASE_SECONDS)
        if begun[0] == b"busy":
            raise FeatureError(
                f"view {view.name}: expected nobody else to publish it, found that somebody does. Wait for them."
            )
        epoch, done, left = (int(each) for each in begun[1:4])
        if left:
            self._swept(view, left)
        # Who is written from now on counts for the next version; those so far, as long as this one has not settled them.
        current, before = self._touched(view)
        erasures, touched = self._erased(), self._ask(b"SUNIONSTORE", before, before, current)
        self._ask(b"DEL", current)
        is_first = not (done or left or erasures or touched)  # then nothing of the view can be there
        coming = _Coming(self, view, epoch, done, token, as_of_us, is_first=is_first)
        yield coming
        if is_first and self._erased() != erasures:
            raise FeatureError(
                f"view {view.name}: expected nobody to be erased meanwhile, found that some were. Publish it again."
            )
        told = b"%d %d %d %b" % (epoch, as_of_us, rows, version.encode()) + (b"" if mark is None else b" %d" % mark)
        if self._script(COMMIT, [self._meta], _view_id(view), token, told) != 1:
            raise FeatureError(
                f"view {view.name}: expected to publish it alone, found that somebody took over. Publish it again."
            )
        self._ask(b"DEL", before)
        if coming.skipped:
            self._ask(b"SADD", current, *(each.encode() for each in coming.skipped))

    def touched(self, view: View) -> set[str]:
        return {each.decode() for each in self._ask(b"SUNION", *self._touched(view))}

    def keep(self, views: Iterable[View]) -> None:
        for view in views:
            self._register(view)

    def drop(self, views: Iterable[View]) -> None:
        for view in views:
            fields = _places(view)
            for names in self._scanned(self._prefix(view.entity)):
                self._nodes.ask(names, [command(b"HDEL", name, *fields) for name in names])
            self._ask(b"DEL", *self._touched(view))
            self._ask(b"HDEL", self._meta, *(kind + _view_id(view) for kind in (b"view:", b"pending:", b"name:")))
        self._registered.clear()

    def erase(self, entity: Entity | None, keys: Sequence[str], erased_us: int) -> int:
        asked = list(dict.fromkeys(keys))
        prefixes = [self._prefix(entity)] if entity else sorted(self._prefixes())
        named = [] if entity else self._naming(asked)
        self._ask(b"HINCRBY", self._meta, b"erasures", b"1")
        removed = 0
        for name in dict.fromkeys([prefix + key.encode() for prefix in prefixes for key in asked] + named):
            removed += int(self._script(ERASE, [name], str(erased_us)))
        return removed

    def erasures(self) -> int:
        return self._nodes.lives() << 32 | self._erased()

    def _erased(self) -> int:
        return int(self._ask(b"HGET", self._meta, b"erasures") or 0)

    def destroy(self) -> None:
        for names in self._scanned(self._meta):
            self._nodes.ask(names, [command(b"UNLINK", name) for name in names])
        self._layouts.clear()
        self._registered.clear()

    def close(self) -> None:
        self._nodes.close()

    def _first(self, view: View, rows: "Encoded", epoch: int, follows: Any) -> tuple[Written, list[str]]:
        """As `_written`, of a view of which nothing can be there; what is there after all goes through the guard."""
        from feature_repo.redis_wire import batches

        prefix, fields = self._prefix(view.entity), _places(view)
        constants = [*fields, b"%d" % epoch, b"0", b"0"]
        sent = batches(rows, prefix, epoch, follows, constants, self._nodes.slots)
        found, there = Written(), set[bytes]()
        for batch, (written, _, others) in self._nodes.run(FIRST, sent):
            found += Written(written)
            there.update(batch.name(place - 1)[len(prefix) :] for place in others)
        if not there:
            return found, []
        import numpy as np

        again = np.array([key in there for key in rows.keys.to_pylist()])
        rest = None if follows is None else np.asarray(follows)[again]
        more, skipped = self._written(view, rows.take(again), epoch, [b"0", b"0"], rest)
        return found + more, skipped

    def _written(
        self, view: View, rows: "Encoded", epoch: int, published: Sequence[bytes], follows: Any, first: bytes = b""
    ) -> tuple[Written, list[str]]:
        """What became of some rows, and the keys of those that are older than what is there. `first`: a command to go ahead of them."""
        from feature_repo.redis_wire import batches

        prefix, fields = self._prefix(view.entity), _places(view)
        constants = [*fields, b"%d" % epoch, *published]
        sent = batches(rows, prefix, epoch, follows, constants, self._nodes.slots)
        found, skipped, lost = Written(), list[str](), self._nodes.lost
        for batch, (written, same, older) in self._nodes.run(WRITE, sent, first):
            found += Written(written, len(older), same)
            skipped += [batch.name(place - 1)[len(prefix) :].decode() for place in older]
        if self._nodes.lost != lost:
            self._register(view)
        return found, skipped

    def _standing(self, told: bytes | None) -> tuple[int, Standing]:
        """The publication that is read, and what it is."""
        if told is None:
            return 0, _NOTHING
        known = self._seen.get(told)
        if known is None:
            epoch, as_of_us, rows, version, *mark = told.split(b" ")
            known = int(epoch), Standing(version.decode(), int(as_of_us), int(rows), int(mark[0]) if mark else None)
            self._seen = {**self._seen, told: known} if len(self._seen) < 100 else {told: known}
        return known

    def _register(self, view: View) -> None:
        """Write down the layout and the name of a view. Raises: FeatureError should two views have one id."""
        layout = layout_of(view.online_fields)
        lost = self._nodes.lost
        if self._registered.get((view.name, layout.schema_id)) == lost:  # else it may have come back with less
            return
        name = b"name:" + _view_id(view)
        self._ask(b"HSETNX", self._meta, name, view.name.encode())
        found = self._ask(b"HGET", self._meta, name)
        if found != view.name.encode():
            raise FeatureError(f"view {view.name}: expected an id of its own, found that of {found.decode()}. Rename it.")  # fmt: skip
        self._ask(b"HSET", self._meta, b"layout:%d" % layout.schema_id, layout.definition.encode())
        self._ask(b"SADD", self._meta + b"entities", self._prefix(view.entity))
        self._layouts[layout.schema_id] = layout
        self._registered[view.name, layout.schema_id] = lost

    def _definition(self, schema_id: int) -> str | None:
        told = self._ask(b"HGET", self._meta, b"layout:%d" % schema_id)
        return told.decode() if told is not None else None

    def _swept(self, view: View, epoch: int) -> None:
        """Take away what a publication left that never came to its end."""
        for names in self._scanned(self._prefix(view.entity)):
            for name in names:
                self._script(SWEEP, [name], *_places(view), str(epoch))

    def _naming(self, asked: Sequence[str]) -> list[bytes]:
        """Hashes of other entities of which a value names one of these."""
        marks = [each.encode() for each in asked]
        found = []
        for prefix in self._prefixes():
            for names in self._scanned(prefix):
                answers = self._nodes.ask(names, [command(b"HVALS", name) for name in names])
                found += [
                    name for name, values in zip(names, answers, strict=True)
                    if any(mark in value for value in values for mark in marks)
                ]  # fmt: skip
        return found

    def _scanned(self, prefix: bytes) -> Iterator[list[bytes]]:
        """Names that begin so, some at a time."""
        pattern = b"".join(b"\\" + bytes([each]) if each in b"*?[]\\^-" else bytes([each]) for each in prefix) + b"*"
        found = iter(self._client.scan_iter(match=pattern, count=1000))
        while batch := self._next(found):
            yield batch

    def _next(self, names: Iterator[bytes]) -> list[bytes]:
        """The next names of a walk; none at its end."""
        try:
            return list(islice(names, 1000))
        except faults() as fault:
            raise lost(fault) from None

    def _prefixes(self) -> set[bytes]:
        return set(self._ask(b"SMEMBERS", self._meta + b"entities"))

    def _prefix(self, entity: Entity) -> bytes:
        return self._meta + "+".join(entity.join_keys).encode() + b":"

    def _touched(self, view: View) -> tuple[bytes, bytes]:
        """Names of two sets, in one slot of a cluster: who was written since a version began to come in, and before."""
        name = self._meta + b"touched:{%b}" % _view_id(view)
        return name, name + b":before"

    def _ask(self, *words: bytes) -> Any:
        return self._nodes.ask([words[1]], [command(*words)])[0]

    def _script(self, script: str, keys: Sequence[bytes], *values: Any) -> Any:
        given = [each if isinstance(each, bytes) else str(each).encode() for each in values]
        asked = command(b"EVAL", script.encode(), b"%d" % len(keys), *keys, *given)
        return self._nodes.ask([keys[0]], [asked])[0]


@dataclass(frozen=True, slots=True)
class _Query:
    """What begins the names of entities; the question of what is published; what stands before and after each name."""

    prefix: str
    meta: bytes
    head: bytes
    tail: bytes


class _Coming(Refresh):
    """A version on its way into Redis."""

    def __init__(
        self, store: RedisStore, view: View, epoch: int, done: int, token: str, as_of_us: int, *, is_first: bool
    ) -> None:  # fmt: skip
        super().__init__()
        self._is_first = is_first
        self._store, self._view, self._epoch, self._published = store, view, epoch, [b"%d" % done, b"0"]
        self._token, self._as_of_us, self._renewed = token, as_of_us, time.monotonic()

    def write(self, rows: "Encoded", follows: Any = None) -> None:
        self._renew()
        if self._is_first:
            written, skipped = self._store._first(self._view, rows, self._epoch, follows)
        else:
            written, skipped = self._store._written(self._view, rows, self._epoch, self._published, follows)
        self.written += written
        self.skipped += skipped

    def remove(self, keys: Sequence[str]) -> None:
        import numpy as np
        import pyarrow as pa

        from feature_repo.columns import Encoded

        gone = Encoded(
            pa.array([key.encode() for key in keys], pa.binary()), np.full(len(keys), self._as_of_us, dtype=np.int64),
            pa.array([b""] * len(keys), pa.binary()),
        )  # fmt: skip
        self._renew()
        done, newer = self._store._written(self._view, gone, self._epoch, self._published, None)
        self.written += Written(removed=done.written)
        self.skipped += newer

    def _renew(self) -> None:
        if time.monotonic() - self._renewed > _RENEW_SECONDS:
            begun = self._store._script(
                BEGIN, [self._store._meta], _view_id(self._view), self._token, "", LEASE_SECONDS
            )
            if begun[0] != b"renewed":
                raise FeatureError(
                    f"view {self._view.name}: expected to publish it alone, found that somebody took over. Publish it again."
                )
            self._renewed = time.monotonic()


def redis_store(address: str, project: str = "troth") -> RedisStore:
    """The store in a Redis: `redis://host:port/db`, `rediss://...`, `redis+cluster://host:port`, or `redis+sentinel://host:port,host:port/service`.

    It is reached when it is first asked. Raises: FeatureError when there is no driver.
    """
    redis, kind = driver(), urlsplit(address)
    times: dict[str, Any] = {"socket_timeout": _PATIENCE, "socket_connect_timeout": _PATIENCE}

    def connect() -> Any:
        if kind.scheme == "redis+cluster":
            return redis.RedisCluster.from_url("redis://" + address.partition("://")[2], **times)
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        times["retry"] = Retry(NoBackoff(), 0)  # who is asked here tries again, once
        if kind.scheme != "redis+sentinel":
            return redis.Redis.from_url(address, **times)
        from redis.sentinel import Sentinel

        hosts = [each.rpartition(":")[::2] for each in kind.netloc.rpartition("@")[2].split(",")]
        who = {name: unquote(given) for name in ("username", "password") if (given := getattr(kind, name))}
        sentinel = Sentinel([(host, int(port)) for host, port in hosts], sentinel_kwargs=times)  # type: ignore[no-untyped-call]
        return sentinel.master_for(kind.path.strip("/"), **who, **times)  # type: ignore[no-untyped-call]

    return RedisStore(connect, project)


def _rows(
    ones: Sequence[bytes | None], others: Sequence[bytes | None], done: int, as_of_us: int
) -> tuple[list[tuple[int, bytes] | None], bool]:
    """Of the values in both places of a view, which each reader gets; and whether what is published was told in time."""
    is_current, unpack = True, HEAD.unpack_from
    if None not in ones and others.count(None) == len(others):  # as nearly always, and then mostly all came in one way
        times, marks = zip(*map(unpack, ones), strict=True)  # type: ignore[arg-type]
        by = marks[0]
        if marks.count(by) == len(marks) and by % FOLLOWS <= done and min(map(len, ones)) > HEAD_BYTES:  # type: ignore[arg-type]
            if by >= FOLLOWS:
                times = [max(at, as_of_us) for at in times]  # type: ignore[assignment]
            return [(at, value[HEAD_BYTES:]) for at, value in zip(times, ones, strict=True)], True  # type: ignore[index]
    rows: list[tuple[int, bytes] | None] = []
    for one, other in zip(ones, others, strict=True):
        best = one
        if one is None or other is not None:
            best, is_whole = _read_of(one, other, done, as_of_us)
            is_current &= is_whole
            if best is None:
                rows.append(None)
                continue
        at, by = unpack(best)  # type: ignore[arg-type]
        if by >= FOLLOWS:
            by -= FOLLOWS
            at = max(at, as_of_us)
        rows.append((at, best[HEAD_BYTES:]) if by <= done and len(best) > HEAD_BYTES else None)  # type: ignore[index,arg-type]
    return rows, is_current


def _read_of(one: bytes | None, other: bytes | None, done: int, as_of_us: int) -> tuple[bytes | None, bool]:
    """Which of two places is read, and whether what is published was told late: then both are of publications to come."""
    best, best_at, best_by, hidden = None, 0, 0, 0
    for value in (one, other):
        if value is None:
            continue
        at, by = HEAD.unpack_from(value)
        if by >= FOLLOWS:
            by, at = by - FOLLOWS, max(at, as_of_us)
        if by > done:
            hidden += 1
        elif best is None or (by > best_by if by and best_by else (at, by) > (best_at, best_by)):
            best, best_at, best_by = value, at, by
    return best, hidden < 2


def _view_id(view: View) -> bytes:
    """Eight letters for a view: its name is longer, and stands in every hash."""
    return _short(view.name)


@lru_cache(maxsize=1024)
def _short(name: str) -> bytes:
    return hashlib.sha256(name.encode()).hexdigest()[:8].encode()


def _places(view: View) -> tuple[bytes, bytes]:
    """The two fields of a view in the hash of an entity."""
    name = _view_id(view)
    return name + b"0", name + b"1"
