"""Options that commands of several groups share."""

from pathlib import Path
from typing import Annotated

import typer

HomeOption = Annotated[
    Path | None, typer.Option("--home", help="The retailer's home; default TROTH_HOME or var/.", show_default=False)
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on standard output, for machines.")]
