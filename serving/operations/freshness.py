"""How old what each view says is, beside how old it may be: for people, machines and alarms. Late is not wrong: every answer tells its age."""

import os
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal

import msgspec

from feature_repo.catalogue import AVAILABILITY, INDEXES, SKU_LOCATION_AVAILABILITY, VIEWS, View
from feature_repo.packed import from_microseconds
from feature_repo.store import OnlineStore
from troth.home import Home

STREAMED = (SKU_LOCATION_AVAILABILITY, AVAILABILITY)  # views that the projector keeps up between two versions
_SHOWN = "features.json"
State = Literal["fresh", "late", "never_published"]


class ViewLag(msgspec.Struct, frozen=True, kw_only=True):
    """How old what a view knows is: since the newest of `as_of_at`, of its published version, and `streamed_until`, up to when the
    stream is in it. A view that nothing was published of is late.
    """

    view: str
    state: State
    lag_seconds: float | None
    lag_limit_seconds: float
    as_of_at: datetime | None
    streamed_until: datetime | None
    version: str | None

    @property
    def is_late(self) -> bool:
        return self.state != "fresh"


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """Up to which offset of the log, and until when, the streamed views have all that came in."""

    offset: int
    until: datetime


def view_lags(
    home: Home, store: OnlineStore, at: datetime, views: Sequence[View] = (*VIEWS, *INDEXES)
) -> list[ViewLag]:
    """The lag of each view that has a limit, in their order. Raises: FeatureError where the store cannot be asked."""
    streamed = shown(home)
    found = []
    for view, standing in zip(views, store.standings(views), strict=True):
        if view.lag_limit is None:
            continue
        as_of_at = from_microseconds(standing.as_of_us) if standing.as_of_us else None
        until = streamed.until if streamed is not None and view in STREAMED else None
        newest = max((each for each in (as_of_at, until) if each is not None), default=None)
        lag = None if newest is None or standing.version is None else max(timedelta(), at - newest)
        found.append(
            ViewLag(
                view=view.name,
                state="never_published" if lag is None else "late" if lag > view.lag_limit else "fresh",
                lag_seconds=None if lag is None else lag.total_seconds(),
                lag_limit_seconds=view.lag_limit.total_seconds(),
                as_of_at=as_of_at,
                streamed_until=until,
                version=standing.version,
            )
        )
    return found


def tell_shown(home: Home, told: Shown) -> None:
    """Say how far the streamed views are. Not synced: after a power cut nobody says so until the projector does again."""
    home.stock.mkdir(parents=True, exist_ok=True)
    draft = home.stock / f".{_SHOWN}.draft"  # of the one projector a home has
    draft.write_bytes(msgspec.json.encode(told))
    os.replace(draft, home.stock / _SHOWN)


def shown(home: Home) -> Shown | None:
    """How far the streamed views are; None where no projector ever said so."""
    try:
        return msgspec.json.decode((home.stock / _SHOWN).read_bytes(), type=Shown)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None
