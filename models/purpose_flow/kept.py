"""The flow as a home keeps it (`reports/purpose_flow.json`): what was checked last, on what, with what outcome, and the whole graph.

Written by whoever has the compiled SQL; read by those who have not, above all by answers and pages. Uses that came since can be held
against the kept graph at once.
"""

from collections.abc import Iterable
from datetime import datetime
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

import msgspec

from models.purpose_flow.checking import Finding, Use, findings
from models.purpose_flow.declarations import Personal, breakers, place
from models.purpose_flow.errors import FlowError
from models.purpose_flow.graph import Graph
from models.purpose_flow.inspecting import Inspection
from models.purpose_flow.relations import Flow, How, Place
from troth.home import Home, write_atomically

FILE_NAME = "purpose_flow.json"
FORMAT = "troth purpose flow 1"


class Found(msgspec.Struct, frozen=True):
    """A finding as it is written: which use, whether a home described it, and the sentence with its path."""

    use: str
    is_of_home: bool
    sentence: str


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """An inspection as it is written. `steps`: for each place by number, pairs of the place it rests on and how (by number)."""

    format: str
    checked_at: datetime
    fingerprint: str
    findings: list[Found]
    faults: list[str]
    columns: dict[str, list[str]]
    places: list[str]
    hows: list[How]
    steps: dict[int, list[tuple[int, int]]]
    declared: dict[str, tuple[str, list[str]]]
    keyed: list[str]
    purposes: list[str]
    uses: list[tuple[str, str, str | None, list[str], str, bool]]

    @property
    def is_verified(self) -> bool:
        return not self.findings and not self.faults

    @property
    def blocking(self) -> list[str]:
        """What nothing may be published with: faults, and findings of uses that are part of the code."""
        return [*(each.sentence for each in self.findings if not each.is_of_home), *self.faults]

    @property
    def hash(self) -> str:
        """Of what was checked, whenever it was: equal flows have equal hashes."""
        return sha256(msgspec.json.encode(msgspec.structs.replace(self, checked_at=datetime.min))).hexdigest()

    def inspection(self) -> Inspection:
        """The same flow again, without the SQL: its breakers cannot be held against it here, and were when it was checked."""
        places = [place(text) for text in self.places]
        into: dict[Place, Flow] = {
            each: frozenset((places[source], self.hows[how]) for source, how in self.steps.get(number, ()))
            for number, each in enumerate(places)
        }
        return Inspection(
            graph=Graph(into, {table: tuple(names) for table, names in self.columns.items()}),
            declared={place(name): Personal(kind, frozenset(may)) for name, (kind, may) in self.declared.items()},
            uses=[
                Use(kind, name, purpose, tuple(map(place, reads)), declared_in, is_of_home)
                for kind, name, purpose, reads, declared_in, is_of_home in self.uses
            ],
            breakers=breakers(),
            keyed=frozenset(map(place, self.keyed)),
            purposes=frozenset(self.purposes),
        )


def keep(home: Home, inspection: Inspection, fingerprint: str, at: datetime) -> Kept:
    """Check a flow and write down what was found. `fingerprint`: of everything it follows from."""
    report, graph = inspection.report, inspection.graph
    places = sorted({*graph.into, *(source for flow in graph.into.values() for source, _ in flow)})
    numbers = {each: number for number, each in enumerate(places)}
    hows: list[How] = sorted({how for flow in graph.into.values() for _, how in flow})
    kept = Kept(
        format=FORMAT,
        checked_at=at,
        fingerprint=fingerprint,
        findings=[Found(each.use.title, each.use.is_of_home, each.sentence) for each in report.findings],
        faults=list(report.faults),
        columns={table: list(names) for table, names in sorted(graph.columns.items())},
        places=[".".join(each) for each in places],
        hows=hows,
        steps={
            numbers[each]: sorted((numbers[source], hows.index(how)) for source, how in graph.into[each])
            for each in places if graph.into.get(each)
        },
        declared={
            ".".join(each): (told.category, sorted(told.purposes)) for each, told in sorted(inspection.declared.items())
        },
        keyed=sorted(map(".".join, inspection.keyed)),
        purposes=sorted(inspection.purposes),
        uses=[
            (
                use.kind,
                use.name,
                use.purpose,
                [".".join(each) for each in use.reads],
                use.declared_in,
                use.is_of_home,
            )
            for use in inspection.uses
        ],
    )  # fmt: skip
    write_atomically(file_of(home), msgspec.json.encode(kept))
    return kept


def kept(home: Home) -> Kept | None:
    """What the home keeps; None before its first check. Raises: FlowError when the file is damaged."""
    found = _found(home)
    return None if found is None else found[0]


def known(home: Home) -> Inspection | None:
    """The flow the home keeps, to be asked about uses; None before its first check. Raises: FlowError when the file is damaged."""
    found = _found(home)
    return None if found is None else found[1]


def uncovered(home: Home, uses: Iterable[Use]) -> tuple[Finding, ...]:
    """What reaches uses, described since the last check, that their purposes do not cover. Nothing where the home keeps no flow.

    Raises: FlowError for a use that reads what there is not, or is for a purpose there is not.
    """
    flow = known(home)
    return () if flow is None else findings(flow.graph, flow.declared, list(uses), flow.breakers, flow.purposes)


def refuse_uncovered(home: Home, uses: Iterable[Use]) -> None:
    """Raises: FlowError, with the path, where anything reaches one of the uses that its purpose does not cover."""
    for found in uncovered(home, uses):
        raise FlowError(found.sentence)


def file_of(home: Home) -> Path:
    return home.reports / FILE_NAME


def _found(home: Home) -> tuple[Kept, Inspection] | None:
    path = file_of(home)
    try:
        told = path.stat()
    except FileNotFoundError:
        return None
    return _read(path, told.st_mtime_ns, told.st_size, told.st_ino)


@lru_cache(maxsize=4)
def _read(path: Path, _changed: int, _bytes: int, _file: int) -> tuple[Kept, Inspection]:
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Kept)
    except (OSError, msgspec.MsgspecError):
        found = None
    if found is None or found.format != FORMAT:
        raise FlowError(
            f"{path.name}: expected a kept flow, found another file. Remove it: the next `troth run` writes it anew."
        )
    return found, found.inspection()
