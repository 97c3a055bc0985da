"""What two records say differently, name by name: a new use, another version, a recipient that is gone."""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from serving.records.shapes import Change, Record

# What an entry of a list is known by, the first of these that it has.
_KEYS = (
    ("purpose_code", "what", "kind", "name"), ("kind", "name"), ("channel_code", "is_allowed", "reason_code"),
    ("purpose_code",), ("jurisdiction_code",), ("category",), ("source",), ("name",),
)  # fmt: skip
_NOT_SAID = ("made_at", "sha256", "inputs", "format")


def diff(before: Record, after: Record) -> list[Change]:
    """Every difference, by place. What they were made from is left out: that says why they differ, and is in `inputs`."""
    first, second = _flat(before), _flat(after)
    return [
        Change(where=where, before=first.get(where), after=second.get(where))
        for where in sorted({*first, *second})
        if first.get(where) != second.get(where)
    ]


def _flat(record: Record) -> dict[str, str]:
    plain = msgspec.to_builtins(record)
    return dict(_entries("", {name: value for name, value in plain.items() if name not in _NOT_SAID}))


def _entries(where: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, part in value.items():
            yield from _entries(f"{where} / {name}" if where else name, part)
    elif isinstance(value, list):
        for part in value:
            if isinstance(part, Mapping):
                named = _named(part)
                yield f"{where} / {named}", "there"
                yield from _entries(f"{where} / {named}", part)
            else:
                yield f"{where} / {part}", "there"
    elif value is not None:
        yield where, str(value)


def _named(part: Mapping[str, Any]) -> str:
    key = next(key for key in _KEYS if all(name in part for name in key))
    return " ".join(str(part[name]) for name in key)
