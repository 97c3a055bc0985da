"""The gate before anything is published: no personal data may reach a use that its purpose does not cover.

What is followed and checked is in `models/purpose_flow/`; here the answer is kept in the home, with a hash of everything it follows from,
so that a run over the same code and declarations asks nothing again. Knows no Dagster.
"""

import contextlib
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestration import warehouse
from orchestration.errors import STEP_FAILED, RunError
from troth.clock import Clock
from troth.home import Home

if TYPE_CHECKING:
    from models.purpose_flow.inspecting import Inspection
    from models.purpose_flow.kept import Kept

ROOMS = ("consent", "feature_repo", "models", "orchestration/sources", "serving")
MOST_TOLD = 5  # findings in an error; `troth flow check` tells all


def verdict(home: Home, clock: Clock) -> "Kept":
    """What the flow of the home is as of now: as it was kept where nothing has changed since, else checked again and kept.

    Raises: WarehouseError when the project does not compile; FlowError when its SQL cannot be followed.
    """
    from models.purpose_flow.errors import FlowError
    from models.purpose_flow.kept import keep, kept

    now = fingerprint(home)
    with contextlib.suppress(FlowError):  # a damaged file is written anew
        known = kept(home)
        if known is not None and known.fingerprint == now:
            return known
    return keep(home, inspection(home), now, clock.now())


def hold(home: Home, clock: Clock) -> "Kept":
    """The verdict, where it blocks nothing. Raises: RunError with what was found otherwise; then nothing may be published.

    What a home described itself, a segment or a destination, does not stop the rest: nobody is selected or sent for it.
    """
    found = verdict(home, clock)
    if told := found.blocking:
        more = f"\n... and {len(told) - MOST_TOLD} more" if len(told) > MOST_TOLD else ""
        raise RunError(
            "purpose flow: expected every use to be given only what its purpose covers, found otherwise. Nothing is published; "
            "see all of it with `troth flow check`.\n" + "\n".join(told[:MOST_TOLD]) + more,
            STEP_FAILED,
        )
    return found


def fingerprint(home: Home) -> str:
    """SHA-256 of everything that flow follows from: SQL, code, declarations, and what the home itself declares."""
    digest = hashlib.sha256(warehouse.project_fingerprint().encode())
    root = Path(__file__).resolve().parent.parent
    for room in ROOMS:
        for path in sorted((root / room).rglob("*")):
            if path.suffix in (".py", ".yml"):
                digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    own = [home.root / "destinations.yml", *sorted((home.root / "segments" / "definitions").glob("*.yml"))]
    for path in own:
        if path.exists():
            digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def inspection(home: Home) -> "Inspection":
    """The flow of the project and the home as they are now. Raises: WarehouseError when it does not compile; FlowError."""
    return inspected_manifest(json.loads(warehouse.manifest(home).read_bytes()), home)


def inspected_manifest(manifest: Mapping[str, Any], home: Home | None = None) -> "Inspection":
    """The flow of a compiled dbt project, with what our contracts, policy and rooms declare, and the home where there is one."""
    from consent.rule.policy import read_policy
    from models.purpose_flow.inspecting import Landed, inspected
    from orchestration.catalog import contracts
    from serving.records.uses import answers, of_home

    landed = [
        Landed(
            contract.table,
            {column.name: column.personal for column in contract.columns},
            {column.name: column.token_of[1] for column in contract.columns if column.token_of},
        )
        for contract in contracts()
    ]
    found = inspected(manifest, landed, read_policy().purposes)
    return found.using(of_home(home, found.graph) if home is not None else [*found.uses, *answers(found.graph)])
