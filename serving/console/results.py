"""What segments did: those written to beside those held out, with bounds, over time and by channel. Figures alone; nobody is named.

A page shows what was measured last; measuring again is a look, and every look is kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from starlette.responses import Response

from models.errors import ModelsError
from models.results.figures import MAIN, Estimate, Unit, Window
from models.results.results import ALL_CHANNELS, ChannelResults, Looked, SegmentResults, looks, newest, record, went_out
from models.results.words import MISMATCH, VERDICTS, between, sentence, spelled
from serving.console.charts import Interval, Line
from serving.console.frame import Area, Page, Visit

AREA = "/results"
_DEFAULT_DAYS = 28
_MOST_LOOKS = 60  # points of a chart, and rows of the table behind it
_CHARTS: Sequence[tuple[Unit, str, float]] = (
    ("share", "Treated less held out, in percentage points", 100.0),
    ("cents", "Treated less held out, in money", 0.01),
    ("number", "Treated less held out, in products viewed", 1.0),
)


def area() -> Area:
    return Area(
        "results", "Results", AREA, "results",
        [
            Page(AREA, "results", _list),
            Page(f"{AREA}/{{name}}", "results", _one),
            Page(f"{AREA}/{{name}}", "results", _measure, "POST"),
        ],
    )  # fmt: skip


@dataclass(frozen=True)
class Shown:
    """What a page speaks of: one window of one channel, and what there is to choose from."""

    results: SegmentResults
    over: ChannelResults
    window: Window


def _list(visit: Visit) -> Response:
    rows = [_row(visit, name) for name in went_out(visit.home)]
    return visit.show("results.html", "What segments did", rows=rows)


def _row(visit: Visit, name: str) -> dict[str, Any]:
    found = newest(visit.home, name)
    row: dict[str, Any] = {
        "segment": (f"/console{AREA}/{name}", name), "measured_at": None, "files": None, "people": None,
        "difference": None, "verdict": "not measured yet",
    }  # fmt: skip
    if found is None:
        return row
    shown = _shown(found, ALL_CHANNELS, _DEFAULT_DAYS)
    main = _main(shown.window)
    return row | {
        "measured_at": _moment(found.as_of_at),
        "files": shown.over.files,
        "people": sum(shown.window.people.values()),
        "difference": _difference(main),
        "verdict": VERDICTS[main.verdict],
    }


def _one(visit: Visit) -> Response:
    name = visit.text("name")
    is_out = name in went_out(visit.home)
    found = newest(visit.home, name) if is_out else None
    if found is None:
        return visit.show("result.html", f"What {name} did", name=name, is_out=is_out, shown=None)
    days = [window.days for window in found.channels[0].windows]
    shown = _shown(
        found,
        visit.choice("channel", [over.channel for over in found.channels]),
        int(visit.choice("days", [str(_DEFAULT_DAYS), *(str(each) for each in days)])),
    )
    kept = [
        one for one in looks(visit.home, name) if (one.channel, one.days) == (shown.over.channel, shown.window.days)
    ]
    return visit.show(
        "result.html",
        f"What {name} did",
        name=name,
        is_out=True,
        shown=shown,
        days=days,
        said=sentence(_main(shown.window)),
        mismatch=MISMATCH if shown.window.has_mismatch else None,
        moments=[_moment(at) for at in (found.as_of_at, found.known_until, shown.over.first_at, shown.over.last_at)],
        charts_of=_intervals(shown.window),
        measures=[_measured(each) for each in shown.window.estimates],
        unlike=[each.title for each in shown.window.estimates if not each.is_like_for_like],
        after=_after(shown.window),
        over_time=_over_time(kept),
        looked=len(kept),
        channels=_by_channel(found, shown.window.days),
        counted=_counted(shown.window),
    )


def _measure(visit: Visit) -> Response:
    """Measured now and kept, for whoever asks later sees the same."""
    name = visit.text("name")
    if name not in went_out(visit.home):
        visit.refuse(
            404, "never_went_out", "segment: expected one that went out, found another. Choose one of the list."
        )
    try:
        record(visit.home, [name], visit.at)
    except ModelsError as error:
        return visit.go(f"{AREA}/{name}", str(error))
    return visit.go(f"{AREA}/{name}", "Measured anew, and kept as one more look.")


def _shown(found: SegmentResults, channel: str, days: int) -> Shown:
    over = next((each for each in found.channels if each.channel == channel), found.channels[0])
    return Shown(found, over, next((each for each in over.windows if each.days == days), over.windows[-1]))


def _main(window: Window) -> Estimate:
    return next(each for each in window.estimates if each.measure == MAIN)


def _difference(said: Estimate) -> str | None:
    found = said.difference
    return None if found is None else between(found.always_low, found.always_high, said.unit)


def _intervals(window: Window) -> list[tuple[str, list[Interval]]]:
    """A chart for each unit: the bounds that hold however often anybody looks."""
    return [
        (
            title,
            [
                Interval(each.title, found.value * scale, found.always_low * scale, found.always_high * scale)
                if (found := each.difference)
                else Interval(each.title, None, None, None)
                for each in window.estimates
                if each.unit == unit
            ],
        )
        for unit, title, scale in _CHARTS
    ]


def _measured(said: Estimate) -> dict[str, Any]:
    found = said.difference
    return {
        "measure": said.title
        + ("" if said.is_like_for_like else " (of those who ordered, whom chance did not choose)"),
        "treated": None if said.treated is None else spelled(said.treated, said.unit),
        "held_out": None if said.held_out is None else spelled(said.held_out, said.unit),
        "difference": None if found is None else spelled(found.value, said.unit, signed=True),
        "always": _difference(said),
        "once": None if found is None else between(found.low, found.high, said.unit),
        "smallest": None if said.smallest is None else spelled(said.smallest, said.unit, signed=True)[1:],
        "verdict": f"{VERDICTS[said.verdict]}: {said.why}" if said.why else VERDICTS[said.verdict],
    }


def _after(window: Window) -> dict[str, Any]:
    """The share that ordered, day by day after the file: both arms, and the difference with its band."""
    days = window.by_day[MAIN]
    points = [day.difference for day in days]
    rows = [
        {
            "day": day.day,
            "treated": None if day.treated is None else spelled(day.treated, "share"),
            "held_out": None if day.held_out is None else spelled(day.held_out, "share"),
            "difference": None if found is None else spelled(found.value, "share", signed=True),
            "always": None if found is None else between(found.always_low, found.always_high, "share"),
        }
        for day, found in zip(days, points, strict=True)
    ]
    return {
        "labels": [str(day.day) for day in days],
        "arms": [
            Line("treated", [None if day.treated is None else day.treated * 100 for day in days]),
            Line("held out", [None if day.held_out is None else day.held_out * 100 for day in days]),
        ],
        "difference": [_line("difference", [None if found is None else (found.value, found.always_low, found.always_high) for found in points])],
        "rows": rows,
        "is_known": any(points),
    }  # fmt: skip


def _line(name: str, points: Sequence[tuple[float, float, float] | None]) -> Line:
    value, low, high = ([None if point is None else point[place] * 100 for point in points] for place in range(3))
    return Line(name, value, low, high)


def _over_time(kept: Sequence[Looked]) -> dict[str, Any]:
    """The difference in who ordered, look by look."""
    last = kept[-_MOST_LOOKS:]
    points = [one.differences.get(MAIN) for one in last]
    return {
        "labels": [one.as_of_at[:10] for one in last],
        "lines": [_line("difference", points)],
        "rows": [
            {
                "at": _moment(one.as_of_at),
                "people": sum(one.people.values()),
                "difference": None if point is None else spelled(point[0], "share", signed=True),
                "always": None if point is None else between(point[1], point[2], "share"),
                "arms": "do not match" if one.has_mismatch else "as drawn",
            }
            for one, point in zip(last, points, strict=True)
        ][::-1],
        "is_known": sum(point is not None for point in points) > 1,
    }


def _by_channel(found: SegmentResults, days: int) -> list[dict[str, Any]]:
    rows = []
    for over in found.channels:
        window = _shown(found, over.channel, days).window
        main = _main(window)
        rows.append(
            {
                "channel": channel_words(over.channel), "files": over.files, **window.people,
                "difference": None if main.difference is None else spelled(main.difference.value, "share", signed=True),
                "always": _difference(main), "verdict": VERDICTS[main.verdict],
            }
        )  # fmt: skip
    return rows


def _counted(window: Window) -> list[dict[str, Any]]:
    """Everybody who was ever in an arm, and what became of them."""
    rows = [("measured", sum(window.people.values())), *sorted(window.left_out.items(), key=lambda each: -each[1])]
    if window.another_share:
        rows.append(("another_share", window.another_share))
    return [{"what": _WHAT.get(what, what), "people": people} for what, people in rows]


_WHAT = {
    "too_recent": "written to too recently",
    "another_share": "assigned when another share was held out",
    "no_longer_known": "no longer known, or now known as somebody else",
    "never_asked": "never asked about analytics",
}


def channel_words(channel: str) -> str:
    return "all channels together" if channel == ALL_CHANNELS else channel.replace("_", " ")


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
