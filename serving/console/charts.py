"""Charts as SVG, drawn here without scripts: lines with a band, bars, intervals. A chart never stands alone: its numbers are a table behind it.

Colours are classes of the style sheet, so that light and dark are its business. Nothing here is styled in place: the pages' policy forbids it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from math import ceil, floor, log10

from markupsafe import Markup, escape

WIDTH, HEIGHT = 640, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 12, 10, 26
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True)
class Line:
    """A series: a value per label, None where nothing is known. `low` and `high` bound it where both are given."""

    name: str
    values: Sequence[float | None]
    low: Sequence[float | None] | None = None
    high: Sequence[float | None] | None = None


@dataclass(frozen=True)
class Bar:
    """A bar: `value`, and of it `part`, drawn darker."""

    label: str
    value: float
    part: float | None = None


@dataclass(frozen=True)
class Interval:
    """An estimate with its bounds; None where there is not enough to say one."""

    label: str
    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Stay:
    """From when until when an answer stayed; `is_on` is a yes."""

    from_at: datetime
    until_at: datetime
    is_on: bool
    what: str


@dataclass(frozen=True)
class Row:
    """What is followed over time, and its answers one after the other. Where there is none nobody had said anything."""

    label: str
    stays: Sequence[Stay]


def lines(title: str, labels: Sequence[str], series: Sequence[Line]) -> Markup:
    """Values over time, one colour a series; a band where bounds are given."""
    known = [
        value
        for line in series
        for values in (line.values, line.low or (), line.high or ())
        for value in values
        if value is not None
    ]
    ticks = scale(min([0.0, *known]), max([0.0, *known]))
    body = [_grid(ticks), _names(labels)]
    for number, line in enumerate(series):
        kind = f"series-{number % 4}"
        if line.low is not None and line.high is not None:
            both = [
                (_x(i, len(labels)), _y(low, ticks), _y(high, ticks))
                for i, (low, high) in enumerate(zip(line.low, line.high, strict=True))
                if low is not None and high is not None
            ]
            if len(both) > 1:
                corners = [(x, high) for x, _, high in both] + [(x, low) for x, low, _ in reversed(both)]
                body.append(f'<polygon class="band {kind}" points="{_points(corners)}"/>')
        for run in _runs(line.values):
            points = [(_x(i, len(labels)), _y(value, ticks)) for i, value in run]
            if len(points) > 1:
                body.append(f'<polyline class="line {kind}" points="{_points(points)}"/>')
            body += [f'<circle class="dot {kind}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in points]
    keys = "".join(
        f'<li><span class="key series-{number % 4}"></span>{escape(line.name)}</li>'
        for number, line in enumerate(series)
    )
    return _figure(title, body, Markup(f'<ul class="keys">{keys}</ul>') if len(series) > 1 else Markup())  # noqa: S704


def spark(title: str, values: Sequence[float]) -> Markup:
    """A line as small as a word, for a row of a table that tells its numbers."""
    ticks = (min(0.0, *values), max(1.0, *values))
    points = _points(
        [
            (3 + 114 * i / max(1, len(values) - 1), 29 - 26 * (v - ticks[0]) / (ticks[1] - ticks[0]))
            for i, v in enumerate(values)
        ]
    )
    return Markup(  # noqa: S704 - numbers of ours, and text that was escaped
        f'<svg class="spark" viewBox="0 0 120 32" width="120" height="32" role="img" aria-label="{escape(title)}">'
        f'<polyline class="line series-0" points="{points}"/></svg>'
    )


def bars(title: str, found: Sequence[Bar], width: int = WIDTH) -> Markup:
    """Lying bars, longest label first to be read on a phone; the part of each that counts is darker. A narrower one is as legible beside a form."""
    most = max([1e-9, *(bar.value for bar in found)])
    row, left, right = 26, min(200, width * 2 // 5), 70
    body = []
    for number, bar in enumerate(found):
        top = 4 + number * row
        wide = (width - left - right) * bar.value / most
        part = (width - left - right) * (bar.part or 0.0) / most
        body += [
            f'<text class="label" x="{left - 8}" y="{top + 15}" text-anchor="end">{escape(bar.label[:34])}</text>',
            f'<rect class="bar" x="{left}" y="{top}" width="{wide:.1f}" height="{row - 8}"/>',
            f'<rect class="bar part" x="{left}" y="{top}" width="{part:.1f}" height="{row - 8}"/>',
            f'<text class="label" x="{left + wide + 6:.1f}" y="{top + 15}">{bar.value:,.0f}</text>',
        ]
    return _figure(title, body, Markup(), 8 + row * len(found), width)


def intervals(title: str, found: Sequence[Interval], unit: str = "") -> Markup:
    """Estimates with their bounds around nothing, which is a line; where nothing can be said, it says so."""
    known = [value for each in found for value in (each.low, each.high, each.value) if value is not None]
    ticks = scale(min([0.0, *known]), max([0.0, *known]))
    row, left, right = 30, 200, 20
    low, high = ticks[0], ticks[-1]

    def across(value: float) -> float:
        return left + (WIDTH - left - right) * (value - low) / ((high - low) or 1.0)

    bottom = 6 + row * len(found)
    body = [
        f'<line class="grid" x1="{across(tick):.1f}" x2="{across(tick):.1f}" y1="0" y2="{bottom}"/>'
        f'<text class="label" x="{across(tick):.1f}" y="{bottom + 16}" text-anchor="middle">{_spelled(tick, ticks)}{escape(unit)}</text>'
        for tick in ticks
    ]
    body.append(f'<line class="zero" x1="{across(0.0):.1f}" x2="{across(0.0):.1f}" y1="0" y2="{bottom}"/>')
    for number, each in enumerate(found):
        y = 6 + row * number + row / 2
        body.append(
            f'<text class="label" x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{escape(each.label[:34])}</text>'
        )
        if each.value is None or each.low is None or each.high is None:
            body.append(f'<text class="label quiet" x="{left + 8}" y="{y + 4:.1f}">not enough data</text>')
            continue
        body += [
            f'<line class="reach" x1="{across(each.low):.1f}" x2="{across(each.high):.1f}" y1="{y:.1f}" y2="{y:.1f}"/>',
            f'<circle class="dot series-0" cx="{across(each.value):.1f}" cy="{y:.1f}" r="5"/>',
        ]
    return _figure(title, body, Markup(), height=bottom + 22)


def over_time(title: str, from_at: datetime, until_at: datetime, rows: Sequence[Row]) -> Markup:
    """Answers over time, a row each: a yes is a filled bar, a no an empty one, and nothing said is a gap."""
    row, left, right = 30, 200, 12
    span = (until_at - from_at).total_seconds() or 1.0
    bottom = 6 + row * len(rows)

    def across(at: datetime) -> float:
        share = (min(max(at, from_at), until_at) - from_at).total_seconds() / span
        return left + (WIDTH - left - right) * share

    body = []
    for part in range(4):
        at = from_at + (until_at - from_at) * (part / 3)
        anchor = ("start", "middle", "middle", "end")[part]
        body.append(
            f'<line class="grid" x1="{across(at):.1f}" x2="{across(at):.1f}" y1="0" y2="{bottom}"/>'
            f'<text class="label" x="{across(at):.1f}" y="{bottom + 16}" text-anchor="{anchor}">{at:%Y-%m-%d}</text>'
        )
    for number, each in enumerate(rows):
        top = 6 + row * number
        body.append(
            f'<text class="label" x="{left - 8}" y="{top + 17}" text-anchor="end">{escape(each.label[:34])}</text>'
        )
        for stay in each.stays:
            start, end = across(stay.from_at), across(stay.until_at)
            name = escape(f"{each.label}: {stay.what}, from {stay.from_at:%Y-%m-%d}")
            kind = "stay on" if stay.is_on else "stay"
            body.append(
                f'<rect class="{kind}" x="{start:.1f}" y="{top + 4}" width="{max(end - start, 1.5):.1f}" height="{row - 12}">'
                f"<title>{name}</title></rect>"
            )
    return _figure(title, body, Markup(), height=bottom + 22)


def scale(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers that hold both ends, at most so many steps between them."""
    if high <= low:
        high = low + 1.0
    rough = (high - low) / most
    power = 10.0 ** floor(log10(rough))
    step = next(power * each for each in _STEPS if power * each >= rough * 0.999999)
    first, last = floor(low / step + 1e-9), ceil(high / step - 1e-9)
    return [step * number for number in range(first, last + 1)]


def _figure(title: str, body: Sequence[str], keys: Markup, height: int = HEIGHT, width: int = WIDTH) -> Markup:
    drawn, kind = "".join(body), "chart" if width == WIDTH else "chart narrow"
    return Markup(  # noqa: S704 - numbers of ours, and text that was escaped
        f'<figure class="{kind}"><svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}">{drawn}</svg>'
        f"<figcaption>{escape(title)}</figcaption>{keys}</figure>"
    )


def _grid(ticks: Sequence[float]) -> str:
    return "".join(
        f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{_y(tick, ticks):.1f}" y2="{_y(tick, ticks):.1f}"/>'
        f'<text class="label" x="{_LEFT - 6}" y="{_y(tick, ticks) + 4:.1f}" text-anchor="end">{_spelled(tick, ticks)}</text>'
        for tick in ticks
    )


def _names(labels: Sequence[str]) -> str:
    """As many labels as there is room for, the first and the last among them."""
    every = max(1, ceil(len(labels) / 6))
    shown = [i for i in range(0, len(labels), every) if i == 0 or len(labels) - 1 - i >= every]
    shown += [len(labels) - 1] if len(labels) > 1 else []
    ends = {0: "start", len(labels) - 1: "end"} if len(labels) > 1 else {0: "middle"}
    return "".join(
        f'<text class="label" x="{_x(i, len(labels)):.1f}" y="{HEIGHT - 8}" text-anchor="{ends.get(i, "middle")}">{escape(labels[i])}</text>'
        for i in shown
    )


def _runs(values: Sequence[float | None]) -> list[list[tuple[int, float]]]:
    """Stretches without a gap."""
    known = [(i, value) for i, value in enumerate(values) if value is not None]
    found: list[list[tuple[int, float]]] = [known[:1]] if known else []
    for before, each in pairwise(known):
        if each[0] - before[0] > 1:
            found.append([])
        found[-1].append(each)
    return found


def _x(index: int, count: int) -> float:
    room = WIDTH - _LEFT - _RIGHT
    return _LEFT + (room * index / (count - 1) if count > 1 else room / 2)


def _y(value: float, ticks: Sequence[float]) -> float:
    return _TOP + (HEIGHT - _TOP - _BOTTOM) * (ticks[-1] - value) / ((ticks[-1] - ticks[0]) or 1.0)


def _points(found: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in found)


def _spelled(value: float, ticks: Sequence[float]) -> str:
    step = ticks[1] - ticks[0] if len(ticks) > 1 else 1.0
    digits = max(0, -floor(log10(step) + 1e-9)) if step < 1 else 0
    digits += 1 if round(step, digits) != round(step, digits + 1) else 0
    return f"{value:,.{digits}f}"
