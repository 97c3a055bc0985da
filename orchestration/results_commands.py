"""`troth segment results`: what a segment did, treated beside held out. What is measured is in `models/results/`."""

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestration.options import HomeOption, JsonOption
from troth.settings import here

if TYPE_CHECKING:
    from models.results.figures import Estimate
    from models.results.results import ChannelResults, SegmentResults


def segment_results(
    name: Annotated[str | None, typer.Argument(help="A segment that went out; left out, all of them.")] = None,
    channel: Annotated[
        str | None, typer.Option(help="One of the channels it went out over; default all of them.")
    ] = None,
    days: Annotated[int, typer.Option(help="How many days after a person's file are looked at.", min=1, max=90)] = 28,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the figures, as a look that the pages show.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """What people did whom a segment wrote to, beside those it held out, with bounds; nothing where there is not enough."""
    from models.results.results import record, results, went_out
    from orchestration.printing import show
    from orchestration.stages import known_until

    at_home = here(home).home
    if name is None:
        sys.exit(show({"went_out": went_out(at_home)}, as_json))
    at = known_until(at_home)
    found = results(at_home, name, at, channel=channel, windows=(days,))
    if keep:
        record(at_home, [name], at)
    sys.exit(show(found if as_json else told(found), as_json))


def told(found: "SegmentResults") -> dict[str, Any]:
    """For people: a table per channel, and in words what stands in the way of one."""
    return {
        "segment": found.name,
        "known_until": found.known_until,
        **{("all channels" if over.channel == "*" else over.channel): _channel(over) for over in found.channels},
    }


def _channel(over: "ChannelResults") -> dict[str, Any]:
    from models.results.words import MISMATCH

    (window,) = over.windows
    answer: dict[str, Any] = {
        "files": over.files,
        "from": over.first_at,
        "to": over.last_at,
        "held_out_percent": over.holdout_percent,
        "days": window.days,
        "assigned": dict(window.assigned),
        "measured": dict(window.people),
        "left_out": dict(window.left_out),
    }
    if window.another_share:
        answer["assigned_under_another_share"] = window.another_share
    if window.has_mismatch:
        answer["arms_mismatch"] = MISMATCH
    answer["differences"] = [_row(each) for each in window.estimates]
    return answer


def _row(each: "Estimate") -> dict[str, Any]:
    from models.results.words import VERDICTS, between, spelled

    row = dict.fromkeys(
        ("measure", "treated", "held_out", "difference", "between", "at_one_look", "would_be_seen", "verdict")
    )
    row["measure"] = each.title
    for arm, value in (("treated", each.treated), ("held_out", each.held_out)):
        row[arm] = None if value is None else spelled(value, each.unit)
    if found := each.difference:
        row["difference"] = spelled(found.value, each.unit, signed=True)
        row["between"] = between(found.always_low, found.always_high, each.unit)
        row["at_one_look"] = between(found.low, found.high, each.unit)
    if each.smallest is not None:
        row["would_be_seen"] = spelled(each.smallest, each.unit, signed=True)
    row["verdict"] = each.why or VERDICTS[each.verdict] + ("" if each.is_like_for_like else ", of those who ordered")
    return row
