"""What is declared, read strictly: kinds of personal data, tables that Python makes, and breakers with their reviewer.

Which column holds what is said in dbt's YAML; which use is for what in the catalogue, the baselines and the segments.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

from models.purpose_flow.errors import FlowError
from models.purpose_flow.graph import Made
from models.purpose_flow.relations import Place

FOLDER = Path(__file__).parent
Kind = Literal["keyed", "token", "aggregate", "goods", "picked", "begins"]
_KINDS: Mapping[str, tuple[str, ...]] = {
    "keyed": (), "token": (), "aggregate": ("least_people",), "goods": (), "picked": ("of", "where", "rests_on"), "begins": ("of",),
}  # fmt: skip
_ALWAYS = ("kind", "columns", "reviewer", "reviewed_on", "reason")


@dataclass(frozen=True)
class Personal:
    """What a column holds of a person, and for what it may be used."""

    category: str
    purposes: frozenset[str]


@dataclass(frozen=True)
class Category:
    """A kind of personal data: its term in the Data Privacy Vocabulary, and what a column that says no more may be used for."""

    term: str
    purposes: frozenset[str]
    told_as: frozenset[str] = (
        frozenset()
    )  # terms under which people may be told of it: its own, wider and narrower ones


@dataclass(frozen=True)
class Breaker:
    """Where paths end, by whose word and why."""

    name: str
    kind: Kind
    columns: tuple[str, ...]
    reviewer: str
    reviewed_on: date
    reason: str
    least_people: int = 0
    of: str = ""
    where: tuple[str, str] = ("", "")
    rests_on: tuple[Place, ...] = field(default=())

    def covers(self, place: Place) -> bool:
        return any(fnmatchcase(".".join(place), pattern) for pattern in self.columns)


@cache
def categories(path: Path = FOLDER / "categories.yml") -> Mapping[str, Category]:
    """The kinds of personal data. Raises: FlowError."""
    return {
        name: Category(said["term"], frozenset(said["purposes"]), frozenset({said["term"], *said["told_as"]}))
        for name, said in _entries(path, ("term", "told_as", "purposes"), ()).items()
    }


def personal(
    columns: Iterable[tuple[Place, Mapping[str, Any]]], known: Mapping[str, Category] | None = None
) -> dict[Place, Personal]:
    """What columns say in their `meta`: `personal`, and `purposes` where they narrow those of the kind. Raises: FlowError."""
    known = categories() if known is None else known
    found = {}
    for place, meta in columns:
        kind = meta.get("personal")
        if kind is None or kind == "none":
            continue
        if kind not in known:
            raise FlowError(
                f"{'.'.join(place)}: expected personal data of a kind of {', '.join(known)}, found {kind}. Correct its YAML."
            )
        found[place] = Personal(kind, frozenset(meta.get("purposes", known[kind].purposes)))
    return found


def made_tables(path: Path = FOLDER / "assets.yml") -> list[Made]:
    """The tables that Python makes. Raises: FlowError."""
    optional = ("purpose", "columns", "copies", "keyed")
    return [
        Made(
            table=name,
            made_by=said["made_by"],
            reads=tuple((table, column) for table, listed in said["reads"].items() for column in listed),
            purpose=said.get("purpose"),
            columns=tuple(said.get("columns", ())),
            copies={column: tuple(map(place, listed)) for column, listed in said.get("copies", {}).items()},
            keyed=tuple(said.get("keyed", ())),
        )
        for name, said in _entries(path, ("made_by", "reads"), optional).items()
    ]


def breakers(path: Path = FOLDER / "breakers.yml") -> list[Breaker]:
    """The breakers there are. Raises: FlowError for one without reviewer, day, reason, or what its kind asks for."""
    every = {key for keys in _KINDS.values() for key in keys}
    found = []
    for name, said in _entries(path, _ALWAYS, tuple(every)).items():
        what = f"{path.name}, {name}"
        if said["kind"] not in _KINDS:
            raise FlowError(f"{what}: expected kind of {', '.join(_KINDS)}, found {said['kind']}. Choose one of them.")
        asked = set(_KINDS[said["kind"]])
        if asked != (given := every & set(said)):
            listed = ", ".join(sorted(given)) or "nothing more"
            raise FlowError(
                f"{what}: expected {', '.join(sorted(asked)) or 'nothing more'}, found {listed}. Correct it."
            )
        if (
            not str(said["reason"]).strip()
            or not str(said["reviewer"]).strip()
            or not isinstance(said["reviewed_on"], date)
        ):
            raise FlowError(
                f"{what}: expected reviewer, day and reason, found one of them empty. Say who looked, when and why."
            )
        selector = next(iter(said["where"].items())) if "where" in said else ("", "")
        optional = {"least_people": said.get("least_people", 0), "of": said.get("of", ""), "where": selector}
        reviewed = {key: said[key] for key in ("kind", "reviewer", "reviewed_on", "reason")}
        rests_on = tuple(map(place, said.get("rests_on", ())))
        found.append(Breaker(name=name, columns=tuple(said["columns"]), rests_on=rests_on, **reviewed, **optional))
    return found


def place(text: str) -> Place:
    """`table.column` as a place."""
    table, _, column = text.partition(".")
    return table, column


def _entries(path: Path, required: tuple[str, ...], optional: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise FlowError(
            f"{path.name}: expected names with what they declare, found {type(content).__name__}. Write them so."
        )
    for name, said in content.items():
        keys = set(said) if isinstance(said, dict) else set()
        if not set(required) <= keys <= {*required, *optional}:
            listed = ", ".join(sorted(keys)) or "nothing"
            raise FlowError(f"{path.name}, {name}: expected {', '.join(required)}, found {listed}. Add or remove keys.")
    return dict(content)
