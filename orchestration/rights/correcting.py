"""Rectification: a corrected value takes the place of the wrong one wherever the person's own records hold it.

Records that the books keep stay as they were issued: a correction of those is a document of its own.
"""

from collections.abc import Sequence
from typing import Any

from orchestration import taking
from orchestration.catalog import contract_of
from orchestration.rights.erasing import ask_for_a_run, reread
from orchestration.rights.held import KEPT, STRENGTH, Held, held
from orchestration.rights.landed import Edit, rewrite
from orchestration.rights.traces import Traces
from orchestration.sources.contract import Contract
from serving.rights.desk import ACTOR, begun, told
from serving.rights.persons import Person, RightsError, resolve
from troth.clock import Clock
from troth.home import Home


def rectify(home: Home, clock: Clock, subjects: Sequence[str], column: str, value: str) -> dict[str, Any]:
    """Correct a column (`email`, `first_name`, `city` ...) in every record of the person's own.

    Raises: RightsError for a column that no record has, or that says which account or card it is: those are not wrong, they
    are another's.
    """
    from consent.rights import open_rights

    person = resolve(home, subjects)
    found = held(home, person)
    edits, rows = _edits(found, column, value)
    if not rows:
        raise RightsError(
            f"rectification: expected a personal column of the person's own records, found none of theirs with {column}. "
            "See `troth privacy access` for what is held."
        )
    with open_rights(home) as log:
        request = begun(log, home, clock, "rectification", subjects)
        for name, edit in edits.items():
            rewrite(home.landing / name, edit, Traces.of(()))
        took = taking.take(home, reread(home, edits), workers=1)
        _correct_vault(home, person, found)
        ask_for_a_run(home, edits)
        answer = told(log.advance(request.request_id, "done", clock.now(), ACTOR), clock.now())
    return {**answer, "records": rows, "files": sum(took.files_of.values()), "next": "troth run"}


def _edits(found: Held, column: str, value: str) -> tuple[dict[str, Edit], int]:
    edits: dict[str, Edit] = {}
    count = 0
    for table, rows in found.rows.items():
        contract = contract_of(table)
        if table in KEPT or column not in rows.columns or not _may_be_corrected(contract, column):
            continue
        for row in rows.select("source_file", "record_offset", column).drop_nulls(column).iter_rows():
            if str(row[2]) != value:
                edit = edits.setdefault(f"{contract.source}/{row[0]}", Edit())
                edit.corrected.setdefault(row[1], {})[str(row[2])] = value
                count += 1
    return edits, count


def _may_be_corrected(contract: Contract, column: str) -> bool:
    """Names, contacts, addresses and birth dates; not what a record is known by."""
    known_by = {c.token_of[1] for c in contract.columns if c.token_of and c.token_of[0] in STRENGTH[:2]}
    kind = contract.column(column).personal
    return kind in ("contact", "name", "address", "birth_date") and column not in known_by


def _correct_vault(home: Home, person: Person, before: Held) -> None:
    """Contact points that none of the person's records hold any more leave the vault; the next run brings the new ones."""
    from consent.vault import open_vault

    if home.vault.exists():
        with open_vault(home) as vault:
            vault.erase(set(before.spellings) - set(held(home, person).spellings))
