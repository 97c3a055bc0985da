"""What a shopper is told of a promise: sentences with gaps in braces. Codes are for the contact centre."""

from collections.abc import Sequence
from datetime import datetime
from zoneinfo import ZoneInfo

from models.promise.asking import Line, Option, Parcel, Refusal

COLLECT = "Ready to be picked up at {place} by {time}."
DELIVER = "Delivered by {time}."
DELIVER_SPLIT = "Delivered in {count} parcels, the last by {time}."
MIXED = "{goods} ready to be picked up at {place} by {time}; the rest delivered by {later}."
LEFT_OUT = "We cannot get {goods} for you now."
CANNOT = {
    "unknown_sku": "We do not know this item.",
    "not_sold_here": "We do not sell this here.",
    "beyond_distance": "We have it, but too far from you.",
    "no_stock": "We do not have it now.",
    "closed": "Nobody is there to get it ready.",
    "after_cut_off": "It is too late for today.",
    "no_capacity": "All our hands are busy until then.",
    "too_late": "We cannot have it there in time.",
    "split": "It would have to come from too many places.",
    "too_unsure": "We are not sure enough of having it.",
    "stale_evidence": "We do not know our stock well enough at the moment.",
    "not_asked": "We cannot offer it this way.",
    "hold_refused": "Somebody else was quicker.",
    "pick_failed": "We could not find it.",
}
CANNOT_BY_RULE = "We may not send or hand over this item this way."
NOTHING = "We cannot promise this now. {why}"
AGAIN = "We are sorry: we could not find {goods} at {place}. "
AGAIN_COLLECT = "It will be ready to be picked up at {place} by {time}."
AGAIN_DELIVER = "We will send it to you instead, to arrive by {time}."
AGAIN_NOTHING = "We cannot get it elsewhere either, and will give your money back for it."
AGAIN_PARTLY = "For {goods} we will give your money back."
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December",
)  # fmt: skip


def told(option: Option) -> str:
    """A way in one sentence."""
    parcels = option.parcels
    collected = [parcel for parcel in parcels if parcel.carrier is None]
    sent = [parcel for parcel in parcels if parcel.carrier is not None]
    if not sent:
        return COLLECT.format(place=collected[0].location_name, time=moment(collected[0]))
    last = moment(max(sent, key=lambda parcel: parcel.promised_at))
    if collected:
        here = collected[0]
        return MIXED.format(goods=goods(here.lines), place=here.location_name, time=moment(here), later=last)
    return DELIVER.format(time=last) if len(sent) == 1 else DELIVER_SPLIT.format(count=len(sent), time=last)


def refused(refusals: Sequence[Refusal]) -> str:
    """Why nothing is promised, by what stands in the way last: of several ways the one that came furthest."""
    order = list(CANNOT)
    codes = [each.reason_code for each in refusals if each.reason_code != "not_asked"] or ["not_asked"]
    ruled = any(code.startswith("rule:") for code in codes)
    known = [code for code in codes if code in CANNOT]
    why = CANNOT_BY_RULE if ruled and not known else CANNOT[max(known, key=order.index)]
    return NOTHING.format(why=why)


def again(lost: Sequence[Line], place: str, option: Option | None, left_out: Sequence[Line]) -> str:
    """What is told when a pick failed."""
    start = AGAIN.format(goods=goods(lost), place=place)
    if option is None:
        return start + AGAIN_NOTHING
    sent = [parcel for parcel in option.parcels if parcel.carrier is not None]
    last = max(sent or option.parcels, key=lambda parcel: parcel.promised_at)
    words = AGAIN_DELIVER if sent else AGAIN_COLLECT
    rest = f" {AGAIN_PARTLY.format(goods=goods(left_out))}" if left_out else ""
    return start + words.format(place=last.location_name, time=moment(last)) + rest


def goods(lines: Sequence[Line]) -> str:
    return ", ".join(f"{line.units} × {line.sku}" for line in lines)


def moment(parcel: Parcel) -> str:
    """The time promised on the wall clock of where it is read: `14:00 on Tuesday 3 June`."""
    return wall(parcel.promised_at, parcel.timezone_name)


def wall(at: datetime, zone: str) -> str:
    local = at.astimezone(ZoneInfo(zone))
    return f"{local:%H:%M} on {_DAYS[local.weekday()]} {local.day} {_MONTHS[local.month - 1]}"
