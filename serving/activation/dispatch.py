"""What sending needs besides what is sent: the home, the two clocks, who posts. Handed in, so that a test can step it."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from models.segments.rules import Rules
from serving.hub.delivery import post
from serving.hub.webhooks import Outcome
from troth.clock import Clock, SystemClock
from troth.home import Home


class Post(Protocol):
    def __call__(self, url: str, headers: Mapping[str, str], body: bytes, *, allow_loopback: bool) -> Outcome: ...


def nobody_listens(_stage: str, _done: int, _total: int) -> None:
    """Progress that is told to nobody."""


@dataclass(frozen=True)
class Dispatch:
    """`clock` tells the time people are asked for; `wall` when something was done, which differs where a retailer is generated."""

    home: Home
    clock: Clock
    wall: Clock = field(default_factory=SystemClock)
    post: Post = post
    jitter: Callable[[], float] = random.random
    rules: Rules | None = None  # those of every segment where none are given
    advance: Callable[[str, int, int], None] = nobody_listens
