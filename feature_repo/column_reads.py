"""Features of many entities through the gate, in columns: what `read_features` answers one by one, for who asks for many at once.

Decides as `reads.py` decides, in the same round trip; nothing here knows standing by itself.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from feature_repo.catalogue import SUBJECT_GATE, Service, View
from feature_repo.packed import Layout, to_microseconds
from feature_repo.reads import (
    NOT_FOUND,
    NOT_PERSONAL,
    OUTSIDE_MAX_AGE,
    PRESENT,
    Decision,
    Evidence,
    Source,
    decided,
    readable_size,
)
from feature_repo.store import entity_key

_Row = tuple[int, bytes] | None


@dataclass(frozen=True)
class Columns:
    """What the gate answered of entities for one use. Every list has one place for each, in the order asked.

    Who is refused has null in every feature and status, and `reason_codes` says why. `newest_us`: event time of the newest row, in
    microseconds. The evidence names the smallest ledger size that any of them was decided under.
    """

    is_allowed: Sequence[bool]
    reason_codes: Sequence[str]
    features: Mapping[str, Sequence[Any]]
    statuses: Mapping[str, Sequence[str | None]]
    newest_us: Sequence[int | None]
    evidence: Evidence


def read_columns(source: Source, use: Service, entities: Mapping[str, Sequence[str]], at: datetime) -> Columns:
    """The features of a use; personal ones only of those whose standing for its purpose holds at `at`.

    `entities`: a column for each join key, all of one length. Raises: FeatureError for a home without an online store.
    """
    names = use.entity.join_keys
    keys = (
        list(entities[names[0]])
        if len(names) == 1
        else [entity_key(use.entity, values) for values in zip(*(entities[name] for name in names), strict=True)]
    )
    is_personal = use.is_personal
    size = readable_size(source) if is_personal else None
    found = source.store.fetch([*use.views, SUBJECT_GATE] if is_personal else use.views, keys)
    answers: list[Decision]
    if is_personal:
        answers = decided(use, source, size, at, found.standings[-1], keys, found.rows[-1])
    else:
        answers = [(True, NOT_PERSONAL, None)] * len(keys)
    allowed = [is_allowed for is_allowed, _, _ in answers]
    is_everyone = all(allowed)
    newest: list[int | None] = [None] * len(keys)
    features: dict[str, Sequence[Any]] = {}
    statuses: dict[str, Sequence[str | None]] = {}
    versions: dict[str, str | None] = {}
    now, layout_of = to_microseconds(at), source.store.layout
    for place, view in enumerate(use.views):
        rows = found.rows[place]
        if not is_everyone:
            rows = [row if is_allowed else None for is_allowed, row in zip(allowed, rows, strict=True)]
        said, values, places = _told(rows, allowed, now - int(view.time_to_live.total_seconds() * 1e6), newest)
        statuses[view.name] = said
        features |= _features(view, values, places, len(keys), layout_of)
        if any(rows):
            versions[view.name] = found.standings[place].version
    seen = [size for _, _, size in answers if size is not None]
    evidence = Evidence(ledger_size=size, standing_ledger_size=min(seen, default=None), versions=versions)
    return Columns(allowed, [reason for _, reason, _ in answers], features, statuses, newest, evidence)


def _told(
    rows: Sequence[_Row], allowed: Sequence[bool], oldest: int, newest: list[int | None]
) -> tuple[Sequence[str | None], list[bytes], Sequence[int]]:
    """The status of each row; the values of those that are young enough, and their places. `newest` is brought up to date."""
    whole = [row for row in rows if row is not None]
    if (
        len(whole) == len(rows) and min((at for at, _ in whole), default=oldest) >= oldest
    ):  # as nearly always: no look at each
        newest[:] = [at if before is None or before < at else before for before, (at, _) in zip(newest, whole, strict=True)]  # fmt: skip
        return [PRESENT] * len(rows), [value for _, value in whole], range(len(rows))
    said: list[str | None] = []
    values, places = [], []
    for number, row in enumerate(rows):
        if row is None:
            said.append(NOT_FOUND if allowed[number] else None)
            continue
        at, value = row
        before = newest[number]
        if before is None or before < at:
            newest[number] = at
        if at < oldest:
            said.append(OUTSIDE_MAX_AGE)
        else:
            said.append(PRESENT)
            values.append(value)
            places.append(number)
    return said, values, places


def _features(
    view: View, values: Sequence[bytes], places: Sequence[int], count: int, layout_of: Callable[[bytes], Layout]
) -> dict[str, Sequence[Any]]:
    """Each feature by entity; null where there is no value, or where it was written without that feature."""
    names = [each.name for each in view.online_fields]
    if len(values) == count and len({value[:4] for value in values}) == 1:
        layout = layout_of(values[0])
        found = dict(zip(layout.names, layout.columns(values), strict=True))
        if layout.names == tuple(names):
            return found
        return {name: found.get(name, [None] * count) for name in names}
    by_layout: dict[bytes, list[int]] = {}
    for number, value in enumerate(values):
        by_layout.setdefault(value[:4], []).append(number)
    columns: dict[str, list[Any]] = {name: [None] * count for name in names}
    for numbers in by_layout.values():
        layout = layout_of(values[numbers[0]])
        told = layout.columns([values[number] for number in numbers])
        for name, column in zip(layout.names, told, strict=True):
            if (whole := columns.get(name)) is not None:
                for number, each in zip(numbers, column, strict=True):
                    whole[places[number]] = each
    return dict(columns)
