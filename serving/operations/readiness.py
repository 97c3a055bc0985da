"""Whether personal answers and stock can be given now, and if not, why: for who decides where requests go."""

from datetime import datetime

import msgspec

from feature_repo.catalogue import AVAILABILITY
from feature_repo.reads import projection
from serving.answers import UNREADABLE, Desk

STOPPING, BOARD_MISSING = "stopping", "board_missing"


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    """`reasons` is empty where the service is ready; else codes, `stopping` among them while it lets requests run out."""

    is_ready: bool
    reasons: list[str]


def readiness(desk: Desk, at: datetime, *, is_stopping: bool = False) -> Readiness:
    """Ledger readable, standing projected and fresh, newer events heard, the board there where the home holds stock.

    A view that is late does not count: it answers, with its age, and no other machine would answer newer.
    """
    reasons = [STOPPING] if is_stopping else []
    try:
        reasons += _of_standing(desk, at)
        reasons += [BOARD_MISSING] if desk.board() is None and _has_stock(desk) else []
    except Exception:  # whatever it is, nothing can be answered: whoever asks wants to know that, not a fault
        reasons.append(UNREADABLE)
    return Readiness(is_ready=not reasons, reasons=reasons)


def _has_stock(desk: Desk) -> bool:
    """Whether the warehouse ever published stock: before that no board is answered from, and a home without any never has one."""
    return desk.source.store.standings([AVAILABILITY])[0].rows > 0


def _of_standing(desk: Desk, at: datetime) -> list[str]:
    source = desk.source
    reason, size, _ = projection(source, at)
    if reason == "projection_behind" and source.heard is not None and size is not None:
        has_heard = source.heard.answer("", size, at, "service", "*") is not None
        reason = None if has_heard else reason
    return [] if reason is None else [reason]
