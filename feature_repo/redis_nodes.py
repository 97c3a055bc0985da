"""The servers of a Redis: one, whichever the sentinels name, or the nodes of a cluster. Commands to whoever keeps their key, over connections of this thread.

A connection that is lost is made anew once, on the server that leads by then. No error repeats an address or what was asked.
"""

import hashlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from feature_repo.errors import FeatureError

if TYPE_CHECKING:
    from feature_repo.redis_line import Line
    from feature_repo.redis_wire import Batch

T = TypeVar("T")
_SLOTS = 16384


class Nodes(ABC):
    """Commands to whoever keeps their key, many in one round trip. What is asked again changes nothing: so one that is lost is asked again."""

    slots: int | None = None  # how many groups keys fall into that one script may not mix; None: one

    def __init__(self) -> None:
        self._local = threading.local()
        self.lost = 0  # how often a connection was

    @abstractmethod
    def ask(self, keys: Sequence[bytes], commands: Sequence[bytes]) -> list[Any]:
        """Answers in order, given of each command its key and the command as it is sent."""

    @abstractmethod
    def run(self, script: str, batches: "Iterable[Batch]", first: bytes = b"") -> "list[tuple[Batch, Any]]":
        """Each batch with the answer of a script to it, in their order; a few are on their way at once. `first`: a command, where there is one node."""

    @abstractmethod
    def _pools(self) -> list[Any]:
        """Connections to each server that is written to."""

    def lives(self) -> int:
        """A number that changes where one of several servers is another, or was started anew: then it may lack what the others have."""
        return 0

    @contextmanager
    def one_life(self) -> Iterator[None]:
        """What this thread asks within is asked of the servers there are now. One in place of another may lack what that one took.

        Raises: FeatureError.
        """
        try:
            self._local.lives = {id(pool): self._on(pool, life) for pool in self._pools()}
        except faults() as fault:
            raise lost(fault) from None
        try:
            yield
        finally:
            self._local.lives = None

    def close(self) -> None:
        for line in vars(self._local).pop("lines", {}).values():
            line.pool.release(line.connection)

    def _on(self, pool: Any, work: "Callable[[Line], T]") -> T:
        """Some work on this thread's connection to a node. Raises: RedisError when it is lost twice."""
        from feature_repo.redis_line import Line

        errors = driver()
        own = self._local.__dict__
        kept, lives = own.setdefault("lines", {}), own.get("lives")
        for is_last in (False, True):
            try:
                line = kept.get(id(pool)) or kept.setdefault(id(pool), Line(pool))
                if lives is not None and (is_last or id(pool) not in lives) and lives.get(id(pool)) != life(line):
                    raise FeatureError(
                        "online store: expected one Redis to the end of a publication, found another in its place. Publish it again."
                    )
                return work(line)
            except BaseException as fault:
                self.lost += 1
                # Given back, for the pool asks the sentinels anew who is the master; and nobody reads what was left unread.
                if (line := kept.pop(id(pool), None)) is not None:
                    line.connection.disconnect()
                    pool.release(line.connection)
                if is_last or not isinstance(fault, errors.RedisError) or isinstance(fault, errors.ResponseError):
                    if lives is not None:
                        lives.clear()  # nothing passes any more
                    raise
        raise AssertionError


class OneNode(Nodes):
    """One server, or whichever the sentinels name."""

    def __init__(self, client: Any) -> None:
        super().__init__()
        self._pool = client.connection_pool

    def _pools(self) -> list[Any]:
        return [self._pool]

    def ask(self, keys: Sequence[bytes], commands: Sequence[bytes]) -> list[Any]:
        sent = b"".join(commands)
        try:
            return self._on(self._pool, lambda line: line.ask(sent, len(commands)))
        except driver().RedisError as fault:
            raise lost(fault) from None

    def run(self, script: str, batches: "Iterable[Batch]", first: bytes = b"") -> "list[tuple[Batch, Any]]":
        from feature_repo.redis_line import Remade

        sent = Remade(batches)  # a line that is lost is asked again from the beginning
        try:
            return self._on(self._pool, lambda line: line.run(script, sent, first))
        except driver().RedisError as fault:
            raise lost(fault) from None


class ClusterNodes(Nodes):
    """The nodes of a cluster."""

    slots = _SLOTS

    def __init__(self, client: Any) -> None:
        super().__init__()
        self._client = client

    def _pools(self) -> list[Any]:
        return [self._client.get_redis_connection(node).connection_pool for node in self._client.get_primaries()]

    def lives(self) -> int:
        try:
            told = sorted(self._on(pool, life) for pool in self._pools())
        except faults() as fault:
            raise lost(fault) from None
        return int.from_bytes(hashlib.sha256(b"".join(told)).digest()[:8])

    def ask(self, keys: Sequence[bytes], commands: Sequence[bytes]) -> list[Any]:
        answers: list[Any] = [None] * len(commands)

        def told(numbers: Sequence[int], line: "Line") -> None:
            found = line.ask(b"".join([commands[each] for each in numbers]), len(numbers))
            for number, answer in zip(numbers, found, strict=True):
                answers[number] = answer

        self._by_node(keys, told)
        return answers

    def run(self, script: str, batches: "Iterable[Batch]", first: bytes = b"") -> "list[tuple[Batch, Any]]":
        from feature_repo.redis_line import Remade

        sent = list(batches)
        answers: list[Any] = [None] * len(sent)

        def told(numbers: Sequence[int], line: "Line") -> None:
            found = line.run(script, Remade(sent[each] for each in numbers))
            for number, (_, answer) in zip(numbers, found, strict=True):
                answers[number] = answer

        self._by_node([batch.name(0) for batch in sent], told)
        return list(zip(sent, answers, strict=True))

    def _by_node(self, keys: Sequence[bytes], told: "Callable[[Sequence[int], Line], None]") -> None:
        """Work on each node that keeps some of the keys. A cluster that moved its slots is looked at again."""
        left: Sequence[int] = range(len(keys))
        for is_last in (False, True):
            groups: dict[int, tuple[Any, list[int]]] = {}
            try:
                for number in left:
                    node = self._client.nodes_manager.get_node_from_slot(self._client.keyslot(keys[number]))
                    pool = self._client.get_redis_connection(node).connection_pool
                    groups.setdefault(id(pool), (pool, []))[1].append(number)
            except faults() as fault:  # slots that nobody keeps
                raise lost(fault) from None
            failed: list[int] = []
            for pool, numbers in groups.values():
                try:
                    self._on(pool, lambda line, numbers=numbers: told(numbers, line))  # type: ignore[misc]
                except faults() as fault:
                    if is_last:
                        raise lost(fault) from None
                    failed += numbers
            if not failed:
                return
            with suppress(*faults()):
                self._client.nodes_manager.initialize()
            left = failed


def bulk(word: bytes) -> bytes:
    """One word as a bulk string of the protocol."""
    return b"$%d\r\n%b\r\n" % (len(word), word)


def command(*words: bytes) -> bytes:
    """A command as it is sent."""
    return b"*%d\r\n" % len(words) + b"".join([bulk(each) for each in words])


def life(line: "Line") -> bytes:
    """What a server calls itself from its start to its end."""
    (told,) = line.ask(command(b"INFO", b"server"), 1)
    return bytes(told).partition(b"run_id:")[2][:40]


def lost(fault: Exception) -> FeatureError:
    """What to say of a fault."""
    return FeatureError(f"online store: expected a Redis that works, found {type(fault).__name__}. Try again.")


def faults() -> tuple[type[Exception], ...]:
    """What redis-py raises; those of a cluster are of a kind of their own."""
    redis = driver()
    return redis.RedisError, redis.exceptions.RedisClusterException


def driver() -> Any:
    """redis-py. Raises: FeatureError where it or what it reads with is not installed."""
    try:
        import hiredis  # noqa: F401
        import redis
    except ImportError:
        raise FeatureError(
            "online store: expected redis-py and hiredis to reach Redis with, found none. Install Troth with its extra `redis`."
        ) from None
    return redis
