"""One use drawn: every column that its personal data comes from, and the shortest path from there, as SVG and as rows.

Tables are boxes, from left to right as data flows; a line is a step from column to column, whole where data is taken over or computed
with, broken where it only decides. Nothing is styled in place: classes and presentation attributes, so that a page's own style sheet and
its policy hold; where neither says otherwise it is black on white. No scripts.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from models.purpose_flow.breaking import Broken
from models.purpose_flow.checking import Path, Use, back, origins, path_from
from models.purpose_flow.declarations import Personal
from models.purpose_flow.errors import FlowError
from models.purpose_flow.inspecting import Inspection
from models.purpose_flow.relations import DIRECT, ROWS, How, Place

_LETTER, _LINE, _PAD, _GAP, _BETWEEN = 7.0, 18, 10, 24, 90  # of text 12 px high; between boxes, between layers
_USE = ("", "")


@dataclass(frozen=True)
class Way:
    """From one column of personal data to the use: what it holds, whether the use's purpose covers it, and the shortest path."""

    column: str
    category: str
    is_covered: bool
    is_direct: bool
    path: str


@dataclass(frozen=True)
class Drawing:
    """The picture, and what it shows as rows. `title` is the use, `text` says in a sentence what is seen."""

    title: str
    text: str
    svg: str
    rows: tuple[Way, ...]


@dataclass(frozen=True)
class _Box:
    table: str
    columns: tuple[str, ...]
    x: float
    y: float
    width: float

    @property
    def height(self) -> float:
        return _LINE * (1 + len(self.columns)) + _PAD

    def line(self, column: str) -> float:
        """Where the text of a column stands."""
        return self.y + _LINE * (self.columns.index(column) + 2) - 3


def use_of(uses: Iterable[Use], name: str) -> Use:
    """The use of a title (`segment lapsed_regulars`), or of a name that only one has. Raises: FlowError listing what there is."""
    listed = list(uses)
    found = [use for use in listed if use.title == name] or [use for use in listed if use.name == name]
    if len(found) == 1:
        return found[0]
    known = ", ".join(use.title for use in (found or listed))
    raise FlowError(f"use: expected one of {known}, found {name[:80]!r}. Name one of them, with its kind.")


def drawn(flow: Inspection, use: Use) -> Drawing:
    """A use of a flow as a picture with the rows behind it. One that nothing personal reaches says so."""
    broken = Broken(flow.graph, flow.breakers)
    reached = back(broken, use.reads)
    declared = {place: flow.declared[place] for place in reached if place in flow.declared}
    paths = {origin: path_from(reached, origin) for origin in sorted(origins(declared, broken, reached))}
    rows = tuple(
        Way(
            column=".".join(origin),
            category=declared[origin].category,
            is_covered=use.purpose is not None and use.purpose in declared[origin].purposes,
            is_direct=path.is_direct,
            path=f"{path.text} -> {use.title}",
        )
        for origin, path in paths.items()
    )
    kinds = sorted({row.category for row in rows})
    tables = len({table for path in paths.values() for table, _ in path.places})
    text = (
        f"{len(rows)} columns of personal data ({', '.join(kinds)}) reach {use.title}, for {use.purpose or 'no purpose'}, through {tables} tables."
        if rows
        else f"No personal data reaches {use.title}."
    )
    return Drawing(use.title, text, _svg(use, text, paths, declared), rows)


def _svg(use: Use, text: str, paths: Mapping[Place, Path], declared: Mapping[Place, Personal]) -> str:
    steps = _steps(paths.values())
    boxes = _laid_out(use, paths, steps)
    width = max((box.x + box.width for box in boxes.values()), default=0.0) + _PAD
    height = max((box.y + box.height for box in boxes.values()), default=0.0) + _PAD
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="flow" role="img" aria-labelledby="flow-title flow-text" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}" font-family="monospace" font-size="12">',
        f'<title id="flow-title">{escape(use.title)}</title><desc id="flow-text">{escape(text)}</desc>',
        *(_line(boxes, source, target, how) for source, target, how in steps),
        *(_box(use, box, paths, declared) for box in boxes.values()),
        "</svg>",
    ]
    return "\n".join(parts)


def _steps(paths: Iterable[Path]) -> list[tuple[Place, Place, How]]:
    """Every step of the paths once, the last one to the use. From a table's rows to its own columns is a step inside its box."""
    found: dict[tuple[Place, Place], How] = {}
    for path in paths:
        for source, target, how in zip(path.places, (*path.places[1:], _USE), (*path.hows, "IDENTITY"), strict=True):
            if source[0] != target[0]:
                found.setdefault((source, target), how)
    return [(source, target, how) for (source, target), how in sorted(found.items())]


def _laid_out(use: Use, paths: Mapping[Place, Path], steps: Sequence[tuple[Place, Place, How]]) -> dict[str, _Box]:
    """Boxes by table: as far to the right as what they lead to allows, in a layer in the order of what they lead to."""
    columns: dict[str, set[str]] = defaultdict(set)
    for path in paths.values():
        for table, column in path.places:
            columns[table].add(column)
    after: dict[str, set[str]] = defaultdict(set)
    for (source, _), (target, _), _ in steps:
        after[source].add(target)
    depth = _depths(columns, after)
    layers: dict[int, list[str]] = defaultdict(list)
    for table in columns:
        layers[depth[table]].append(table)
    boxes = {
        "": _Box(
            "",
            (f"for {use.purpose or 'no purpose'}",),
            0,
            _PAD,
            _wide([use.title, f"for {use.purpose or 'no purpose'}"]),
        )
    }
    x = 0.0
    for layer in sorted(layers):
        middle = {
            table: sum(boxes[each].y for each in after[table] if each in boxes) / max(1, len(after[table]))
            for table in layers[layer]
        }
        ordered = sorted(layers[layer], key=lambda table: (middle[table], table))
        width = max(_wide([table, *map(_shown, columns[table])]) for table in ordered)
        x, y = x - _BETWEEN - width, float(_PAD)
        for table in ordered:
            boxes[table] = _Box(
                table, tuple(sorted(columns[table], key=lambda name: (name == ROWS, name))), x, y, width
            )
            y += boxes[table].height + _GAP
    left = min(box.x for box in boxes.values()) - _PAD
    tallest = max(box.y + box.height for box in boxes.values())
    down = {0: (tallest - boxes[""].height) / 2 - _PAD}
    for layer, tables in layers.items():
        down[layer] = (tallest - max(boxes[table].y + boxes[table].height for table in tables)) / 2
    return {
        name: _Box(box.table, box.columns, box.x - left, box.y + down[depth.get(name, 0)], box.width)
        for name, box in boxes.items()
    }


def _depths(tables: Iterable[str], after: Mapping[str, set[str]]) -> dict[str, int]:
    """How many layers a table stands before the use: one more than the furthest it leads to. Circles of tables are cut."""
    found: dict[str, int] = {"": 0}

    def depth(table: str, under_way: frozenset[str]) -> int:
        if table not in found:
            ahead = [each for each in after.get(table, ()) if each not in under_way]
            found[table] = 1 + max((depth(each, under_way | {table}) for each in ahead), default=0)
        return found[table]

    for table in sorted(tables):
        depth(table, frozenset({table}))
    return found


def _line(boxes: Mapping[str, _Box], source: Place, target: Place, how: How) -> str:
    one, other = boxes[source[0]], boxes[target[0]]
    x, y = one.x + one.width, one.line(source[1]) - 4
    to_x = other.x
    to_y = other.line(target[1]) - 4 if target != _USE else other.y + _LINE - 7
    bend = max(30.0, abs(to_x - x) / 2)
    kind, dash = ("direct", "") if how in DIRECT else ("deciding", ' stroke-dasharray="5 4"')
    return (
        f'<path class="flow-line flow-{kind}" d="M{x:.0f} {y:.0f} C{x + bend:.0f} {y:.0f} {to_x - bend:.0f} {to_y:.0f} {to_x:.0f} {to_y:.0f}" '
        f'fill="none" stroke="black" stroke-opacity="0.6"{dash}/>'
    )


def _box(use: Use, box: _Box, paths: Mapping[Place, Path], declared: Mapping[Place, Personal]) -> str:
    is_use = not box.table
    lines = [
        f'<g class="flow-box{" flow-use" if is_use else ""}"><rect x="{box.x:.0f}" y="{box.y:.0f}" width="{box.width:.0f}" height="{box.height:.0f}" rx="4" '
        f'fill="white" stroke="black"{" stroke-width=" + chr(34) + "2" + chr(34) if is_use else ""}/>',
        f'<text class="flow-name" x="{box.x + _PAD:.0f}" y="{box.y + _LINE - 3:.0f}" font-weight="700">{escape(use.title if is_use else box.table)}</text>',
    ]
    for column in box.columns:
        place = (box.table, column)
        text, kind = _shown(column) if not is_use else column, "flow-column"
        if place in paths:
            told = declared[place]
            is_covered = use.purpose is not None and use.purpose in told.purposes
            text, kind = (
                f"{text} · {told.category}{'' if is_covered else ' · not covered'}",
                f"flow-column flow-origin{'' if is_covered else ' flow-wrong'}",
            )
        lines.append(f'<text class="{kind}" x="{box.x + _PAD:.0f}" y="{box.line(column):.0f}">{escape(text)}</text>')
    return "".join([*lines, "</g>"])


def _shown(column: str) -> str:
    return "which rows" if column == ROWS else column


def _wide(texts: Iterable[str]) -> float:
    """Wide enough for the longest text, and for a category after it."""
    return _LETTER * (max(map(len, texts)) + 14) + 2 * _PAD
