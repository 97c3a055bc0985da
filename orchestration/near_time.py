"""Where the warehouse meets the stream: what the log holds is landed as files, and how far the warehouse knows the stream."""

import re
from collections.abc import Iterable
from contextlib import closing
from datetime import UTC, datetime, timedelta

from models.stock.base import announce
from orchestration import taking
from orchestration.catalog import SOURCES
from serving.event_log.log import LANDING, has_log, open_log
from serving.intake.landing import Landed, land
from troth.home import Home

KEPT = timedelta(hours=48)  # events stay in the log that long after everybody had them, for who looks
REMEMBERED = timedelta(days=90)  # ids stay known that long: no sender tries again for longer
_RANGE = re.compile(r"_log_(\d{12})-\d{12}\.\w+$")


def land_log(home: Home) -> Landed:
    """Land what the log holds, and forget what everybody has had for long; of a home without a log, nothing."""
    if not has_log(home):
        return Landed(0, 0, 0)
    with closing(open_log(home)) as log:
        landed = land(log, home)
        now = datetime.now(UTC)
        log.trim_older(now - KEPT, now - REMEMBERED)
    return landed


def known_offset(home: Home) -> int:
    """The log offset up to which everything is landed and taken. What is taken meanwhile is beyond it, never missing below."""
    if not has_log(home):
        return 0
    with closing(open_log(home)) as log:
        landed = log.position(LANDING)
    waiting = (file.path for source in SOURCES for plan in taking.plan(home, source.name) for file in plan.read)
    return min([landed, *_before(waiting)])


def _before(names: Iterable[str]) -> list[int]:
    """Of files that hold a range of the log, the offsets before them."""
    return [int(found[1]) - 1 for name in names if (found := _RANGE.search(name))]


def announce_stock(home: Home, offset: int) -> None:
    """Tell the projector that stock was published; `offset` as it was known before it was computed."""
    announce(home, offset, datetime.now(UTC))
