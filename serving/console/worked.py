"""Answers that take seconds: worked out when somebody asks, and kept with when that was, who asked, and how long it took.

What is kept names no person. It says what was found then; who doubts it has it worked out again.
"""

import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from serving.console.frame import Visit
from troth.home import Home, write_atomically

_T = TypeVar("_T")


class Worked(msgspec.Struct, Generic[_T], frozen=True, kw_only=True):
    """An answer, when it was worked out, for whom, and in how many seconds."""

    at: datetime
    by: str
    seconds: float
    answer: _T


def timed(visit: Visit, do: Callable[[], _T]) -> Worked[_T]:
    """An answer worked out now."""
    began = time.perf_counter()
    answer = do()
    return Worked(at=visit.desk.wall.now(), by=visit.staff, seconds=time.perf_counter() - began, answer=answer)


def keep(home: Home, name: str, found: Worked[_T]) -> Worked[_T]:
    write_atomically(_path(home, name), msgspec.json.encode(found))
    return found


def kept(home: Home, name: str, kind: type[_T]) -> Worked[_T] | None:
    """The answer of that name that was kept last; None where there is none, or an older Troth kept it."""
    try:
        return msgspec.json.decode(_path(home, name).read_bytes(), type=Worked[kind])  # type: ignore[valid-type]
    except (FileNotFoundError, msgspec.MsgspecError):
        return None


def _path(home: Home, name: str) -> Path:
    return home.reports / "audits" / f"{name}.json"
