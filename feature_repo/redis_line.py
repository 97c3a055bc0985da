"""A connection to Redis that asks many things at once and reads all answers together."""

import hashlib
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import hiredis
from redis import exceptions

if TYPE_CHECKING:
    from feature_repo.redis_wire import Batch

IN_FLIGHT = 4  # scripts sent before the first is answered
_MORE = object()
_READ_BYTES = 1 << 16


class Line:
    """A connection to a node, of one thread. redis-py connects and sends; its way of reading takes longer for an answer than Redis to make it."""

    def __init__(self, pool: Any) -> None:
        self.pool, self.connection = pool, pool.get_connection()
        self._socket, self._reader = None, hiredis.Reader()

    def ask(self, sent: bytes, count: int) -> list[Any]:
        """As many answers. Raises: RedisError for the first that is none."""
        self.connection.send_packed_command([sent])
        return _sound(self._read(count))

    def run(self, script: str, batches: "Remade", first: bytes = b"") -> "list[tuple[Batch, Any]]":
        """Each batch with the answer of a script to it, in their order; a few are on their way at once. `first`: a command that goes ahead of them."""
        answers = self._run(script, batches, first)
        if first:
            _sound([answers.pop(0)])
        unknown = [place for place, each in enumerate(answers) if isinstance(each, exceptions.NoScriptError)]
        if unknown:  # a server that was started anew has forgotten it
            self.ask(b"*3\r\n$6\r\nSCRIPT\r\n$4\r\nLOAD\r\n$%d\r\n%b\r\n" % (len(script), script.encode()), 1)
            again = self._run(script, [batches.made[place] for place in unknown])
            for place, each in zip(unknown, again, strict=True):
                answers[place] = each
        return list(zip(batches.made, _sound(answers), strict=True))

    def _run(self, script: str, batches: "Iterable[Batch]", first: bytes = b"") -> list[Any]:
        head, answers, waiting = b"$7\r\nEVALSHA\r\n$40\r\n%b\r\n" % _named(script), list[Any](), 1 if first else 0
        for batch in batches:
            words = [first, b"*%d\r\n" % (batch.words + 2), head, *batch.sent]
            self.connection.send_packed_command([b"".join(words)])
            first = b""
            waiting += 1
            if waiting >= IN_FLIGHT:
                answers += self._read(1)
                waiting -= 1
        return answers + self._read(waiting)

    def _read(self, count: int) -> list[Any]:
        """As many answers, errors among them as they are."""
        at = self.connection._sock
        if at is not self._socket:
            self._socket, self._reader = at, hiredis.Reader(replyError=_fault, notEnoughData=_MORE)
        next_of, found = self._reader.gets, list[Any]()
        try:
            while len(found) < count:
                answer = next_of()
                if answer is _MORE:
                    received = at.recv(_READ_BYTES)
                    if not received:
                        raise exceptions.ConnectionError("connection closed")
                    self._reader.feed(received)
                elif type(answer) is not hiredis.PushNotification:
                    found.append(answer)
        except OSError as fault:
            raise exceptions.ConnectionError(type(fault).__name__) from None
        except hiredis.ProtocolError as fault:
            raise exceptions.InvalidResponse(type(fault).__name__) from None
        return found


class Remade:
    """Batches that are made as they are asked for, and told again to who asks again."""

    def __init__(self, batches: "Iterable[Batch]") -> None:
        self.made: list[Batch] = []
        self._left = iter(batches)

    def __iter__(self) -> "Iterator[Batch]":
        yield from self.made
        for each in self._left:
            self.made.append(each)
            yield each


def _sound(answers: list[Any]) -> list[Any]:
    for each in answers:
        if isinstance(each, exceptions.RedisError):
            raise each
    return answers


def _fault(told: str) -> exceptions.RedisError:
    """What a server said went wrong. Of these the connection is to blame, or which server it leads to: a new one may do."""
    kind = told.partition(" ")[0]
    if kind in ("LOADING", "READONLY", "MASTERDOWN", "UNBLOCKED"):
        return exceptions.ConnectionError(kind)
    return exceptions.NoScriptError(kind) if kind == "NOSCRIPT" else exceptions.ResponseError(kind)


@lru_cache(maxsize=64)
def _named(script: str) -> bytes:
    """What a script is known as."""
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest().encode()
