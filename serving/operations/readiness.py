"""Whether personal answers and stock can be given now, and if not, why: for who decides where requests go."""

from datetime import datetime

import msgspec

from feature_repo.catalogue import SUBJECT_STANDING
from feature_repo.reads import is_fresh, readable_size
from serving.answers import Desk

STOPPING, BOARD_MISSING = "stopping", "board_missing"


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    """`reasons` is empty where the service is ready; else codes, `stopping` among them while it lets requests run out."""

    is_ready: bool
    reasons: list[str]


def readiness(desk: Desk, at: datetime, *, is_stopping: bool = False) -> Readiness:
    """Ledger readable, standing projected and fresh, newer events heard, the board there."""
    reasons = [STOPPING] if is_stopping else []
    try:
        reasons += _of_standing(desk, at)
        reasons += [BOARD_MISSING] if desk.board() is None else []
    except Exception:  # whatever it is, nothing can be answered: whoever asks wants to know that, not a fault
        reasons.append("unreadable")
    return Readiness(is_ready=not reasons, reasons=reasons)


def _of_standing(desk: Desk, at: datetime) -> list[str]:
    size, row = readable_size(desk.source), desk.source.store.any_row(SUBJECT_STANDING)
    if size is None:
        return ["ledger_unreadable"]
    if row is None:
        return ["projection_missing"]
    seen = row.values.get("ledger_size")
    if seen is not None and seen > size:
        return ["projection_ahead"]
    if not is_fresh(SUBJECT_STANDING, row.event_us, at):
        return ["projection_stale"]
    heard = desk.source.heard
    is_behind = seen is None or seen < size
    if is_behind and (heard is None or heard.answer("", size, at, "service", "*") is None):
        return ["projection_behind"]
    return []
