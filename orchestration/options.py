"""Options that commands of several groups share."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

HomeOption = Annotated[
    Path | None, typer.Option("--home", help="The retailer's home; default TROTH_HOME or var/.", show_default=False)
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on standard output, for machines.")]


def moment(option: str, text: str | None) -> datetime | None:
    """A time that an option was given, in UTC where it names no zone. Raises: BadParameter, which ends the command with 2."""
    try:
        found = None if text is None else datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(
            f"{option}: expected a time like 2026-11-22T10:00:00Z, found another text; correct it"
        ) from None
    return found.replace(tzinfo=UTC) if found and found.tzinfo is None else found
