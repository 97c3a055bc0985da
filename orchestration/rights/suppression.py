"""What an erased person did before the erasure stays out, whichever file brings it again.

The rule: *what began before the erasure stays out.* A record about an erased subject that was made (`created_at`, `enrolled_at`;
else its newest own time) not after the erasure is taken out of the landed file before a row of it is kept, as the erasure
itself would have done. What they do afterwards is taken as anybody's: they come back as somebody new.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl

from consent.rights import FILE, RightsLog, open_rights
from orchestration.rights.held import KEPT, owner_of, personal_columns, plain_columns, token_columns
from orchestration.rights.landed import Edit, rewrite
from orchestration.rights.traces import Traces
from orchestration.sources.contract import FILE_STRIDE, Contract
from troth.home import Home

MADE = ("created_at", "enrolled_at")  # times at which what a record speaks of began, however often it changes
WIDEST = timedelta(hours=14)  # how far a wall clock may be ahead of UTC


@dataclass(frozen=True)
class Fault:
    """What a landed file holds that must stay out."""

    edit: Edit
    texts: frozenset[str]


def is_needed(home: Home) -> bool:
    """Whether anybody was ever erased here; costs nothing where nobody was."""
    if not (home.root / FILE).exists():
        return False
    with open_rights(home) as log:
        return log.has_erased


def keep_out(
    home: Home,
    contracts: Iterable[Contract],
    rows: Mapping[str, pl.DataFrame],
    paths: Mapping[int, Path],
    stays: Callable[[Path], bool],
) -> set[Path]:
    """Rewrite the files (by number) whose rows tell of an erased subject as it was before. Which files were rewritten.

    `rows`: by table, as their contracts want them, each with its place counted through (file number * stride + place).
    """
    edits: dict[int, Edit] = {}
    texts: dict[int, set[str]] = {}
    with open_rights(home) as log:
        for contract in contracts:
            frame = rows.get(contract.table)
            if frame is not None and frame.height and (token_columns(contract) or plain_columns(contract)):
                _add(contract, frame, log, paths, stays, edits, texts)
    return {
        paths[number]
        for number, edit in edits.items()
        if rewrite(paths[number], edit, Traces.of(texts.get(number, ())))
    }


def marks_of(tokens: Iterable[str], plain: Mapping[str, Iterable[str]]) -> list[str]:
    """What the log of rights remembers an erased person by: tokens, and identifiers without one under their column's name."""
    return [*tokens, *(f"{name}:{value}" for name, values in plain.items() for value in values)]


def _add(
    contract: Contract, frame: pl.DataFrame, log: RightsLog, paths: Mapping[int, Path], stays: Callable[[Path], bool],
    edits: dict[int, Edit], texts: dict[int, set[str]],
) -> None:  # fmt: skip
    names, plain = token_columns(contract), plain_columns(contract)
    asked = {token for name in names for token in frame[name].drop_nulls().unique()}
    asked |= {mark for name in plain for mark in marks_of((), {name: frame[name].drop_nulls().unique()})}
    erased = log.erased(asked)
    if not erased:
        return
    told = contract.column
    personal = personal_columns(contract)
    of = {name: told(name).token_of for name in names}
    carries = pl.any_horizontal(
        *(pl.col(name).is_in(list(erased)) for name in names),
        *((pl.lit(f"{name}:") + pl.col(name)).is_in(list(erased)) for name in plain),
    )
    owner = owner_of(contract) if names else pl.lit(None, pl.String())
    said = frame.with_columns(owner.alias("owner\0"), _made_at(contract).alias("said\0")).filter(carries)
    for row in said.to_dicts():
        marks = [row[name] for name in names if row[name] in erased]
        marks += [mark for name in plain if row[name] and (mark := f"{name}:{row[name]}") in erased]
        who = row["owner\0"]
        is_theirs = who in erased if who else bool(marks) and not names
        if (who and not is_theirs) or not _is_before(row["said\0"], max(erased[mark] for mark in marks)):
            continue  # another person's record, or an act of afterwards
        number, place = divmod(row["record_offset"], FILE_STRIDE)
        edit = edits.setdefault(number, Edit())
        spelled = {
            str(row[source[1]]) for name, source in of.items() if source and row[name] in erased and row[source[1]]
        }
        texts.setdefault(number, set()).update(spelled)
        if stays(paths[number]):
            values = {str(row[name]) for name in personal if row[name] is not None} if is_theirs else spelled
            edit.stripped.setdefault(place, set()).update(values)
        elif is_theirs or contract.table not in KEPT:
            edit.gone.add(place)


def _made_at(contract: Contract) -> pl.Expr:
    """When a record was made, else the newest of its own times; a wall clock counts as early as it may have been.

    The newest, because a device's clock may be far behind: it must not keep out a withdrawal of afterwards.
    """
    made = [pl.col(c.name).dt.replace_time_zone(None) for c in contract.columns if c.name in MADE]
    times = [pl.col(c.name).dt.replace_time_zone(None) for c in contract.columns if c.type == "timestamp"]
    times += [pl.col(c.name) - WIDEST for c in contract.columns if c.type == "local_timestamp"]
    return pl.coalesce(*made, pl.max_horizontal(*times, pl.lit(None, pl.Datetime("us"))))


def _is_before(said: datetime | None, erased_at: datetime) -> bool:
    return said is None or said <= erased_at.replace(tzinfo=None)
