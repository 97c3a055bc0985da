"""What the desk asks of the rest of the platform, as plain callables: what an answer takes is spread over every room."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from troth.clock import Clock


@dataclass(frozen=True)
class Foreseen:
    """What an erasure would touch: rows by place and table; what stays, and why; who was given something and has to be told."""

    places: Mapping[str, Mapping[str, int]]
    kept: Sequence[Mapping[str, Any]]
    recipients: Sequence[str]


@dataclass(frozen=True)
class Progress:
    """How far an erasure is. `fault`: why it stopped, when it did; it goes on from there when it is begun again."""

    done: int
    steps: int
    is_running: bool
    fault: str | None = None


@dataclass(frozen=True)
class Holdings:
    """What a person would be handed, counted: rows they gave by table, rows made of them by table, and the rest by kind."""

    given: Mapping[str, int]
    derived: Mapping[str, int] = field(default_factory=dict)
    other: Mapping[str, int] = field(default_factory=dict)
    not_included: str = ""


@dataclass(frozen=True)
class Work:
    """Subjects are given as the request names them.

    `package`: a zip of everything held, or with `portable` of what they gave alone; nothing of it stays. `erase` begins, or goes on, in
    a process of its own, and returns at once; `progress` tells of it, None where it never began.
    """

    foresee: Callable[[Sequence[str]], Foreseen]
    erase: Callable[[str], None]
    progress: Callable[[str], Progress | None]
    holdings: Callable[[Sequence[str], Clock, bool], Holdings]
    package: Callable[[Sequence[str], Clock, bool], bytes]
