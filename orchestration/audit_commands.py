"""The group `troth audit`: from a person, an export, a feature or a model to the consents behind it; the ledger; evidence to take along.

Parses and prints; what is looked up and held against what is in `serving/audit/`. Exit code 1 where something does not verify.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestration.errors import MISUSE, NOTHING_READABLE, RunError
from orchestration.options import HomeOption, JsonOption, moment
from troth.clock import SystemClock
from troth.settings import here

app = typer.Typer(
    no_args_is_help=True,
    help="Follow a person, an export, a feature or a model to the consents behind it; check the ledger without trusting us.",
)
SubjectArgument = Annotated[
    str, typer.Argument(help="Customer id (cus_...), identifier token, or <type>:<identifier>.", show_default=False)
]
AtOption = Annotated[str | None, typer.Option(help="Time asked about, with its zone; default now.", show_default=False)]
KnownAtOption = Annotated[
    str | None, typer.Option("--known-at", help="From what was known by this time.", show_default=False)
]


@app.command("verify")
def audit_verify(
    export: Annotated[
        Path | None, typer.Argument(help="A ledger export; the home's ledger is exported and verified when left out.")
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Derive the ledger's root again from its entries and check every signed checkpoint."""
    from orchestration import auditing

    _show(auditing.verify(here(home).home, export), as_json)


@app.command("subject")
def audit_subject(
    subject: SubjectArgument,
    at: AtOption = None,
    known_at: KnownAtOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Every consent event of a person with its proof, standing then and now, every use with its receipt, every recipient."""
    from serving.audit.people import subject as audited

    asked_at, known = moment("--at", at), moment("--known-at", known_at)
    _told(lambda: audited(here(home).home, subject, asked_at or SystemClock().now(), known), as_json)


@app.command("export")
def audit_export(
    export: Annotated[
        str,
        typer.Argument(help="Number of its receipt (`troth consent decisions`), or its folder.", show_default=False),
    ],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """An export back to its consents: files and manifest against each other, everybody decided again and compared."""
    from serving.audit.exports import export_of

    _told(lambda: export_of(here(home).home, export), as_json)


@app.command("feature")
def audit_feature(
    name: Annotated[str, typer.Argument(help="A feature view or service.", show_default=False)],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """A feature view or service: its purpose, the personal data that reaches it and how, who read it, how old it is."""
    from serving.answers import clock_of
    from serving.audit.features import feature

    at = here(home).home
    _told(lambda: feature(at, name, clock_of(at).now()), as_json)


@app.command("model")
def audit_model(
    name: Annotated[str, typer.Argument(help="A model that learns from people.", show_default=False)],
    version: Annotated[str | None, typer.Option(help="Version; default the one in use.", show_default=False)] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """A model back to the consents its training set rests on, decided again; who has withdrawn since."""
    from serving.audit.training import model

    _told(lambda: model(here(home).home, name, version), as_json)


@app.command("ledger")
def audit_ledger(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """The ledger from its entries on, checkpoints, witnesses, receipts of use: all verified, with evidence where not."""
    from serving.audit.ledgers import ledger

    _told(lambda: ledger(here(home).home), as_json)


@app.command("bundle")
def audit_bundle(
    out: Annotated[Path, typer.Option(help="A new folder for the evidence.", show_default=False)],
    subject: Annotated[str | None, typer.Option(help="About a person, as in `subject`.", show_default=False)] = None,
    export: Annotated[str | None, typer.Option(help="About an export, as in `export`.", show_default=False)] = None,
    model: Annotated[str | None, typer.Option(help="About a model, as in `model`.", show_default=False)] = None,
    version: Annotated[
        str | None, typer.Option(help="Of the model; default the one in use.", show_default=False)
    ] = None,
    with_files: Annotated[
        bool, typer.Option(help="Also the files that went out, with the contact data in them.")
    ] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Pack everything behind an audit into a folder that the single file in it verifies, offline and without Troth."""
    from serving.audit.bundles import bundle

    given = [(kind, name) for kind, name in (("subject", subject), ("export", export), ("model", model)) if name]
    if len(given) != 1:
        raise typer.BadParameter(f"expected one of --subject, --export and --model, found {len(given)}; give one")
    ((kind, name),) = given
    at = SystemClock().now()
    _told(lambda: bundle(here(home).home, kind, name, out, at, version=version, has_files=with_files), as_json)


def _show(answer: Any, as_json: bool) -> None:
    from orchestration.printing import show

    sys.exit(show(answer, as_json))


def _told(ask: Callable[[], Any], as_json: bool) -> None:
    """Print what an audit answers. Raises: RunError, with its exit code, for what there is none of or cannot be read."""
    from consent.errors import LedgerError
    from orchestration.auditing import for_people
    from serving.errors import ServingError

    try:
        found = ask()
    except ServingError as fault:
        raise RunError(str(fault), MISUSE) from None
    except LedgerError as fault:
        raise RunError(str(fault), NOTHING_READABLE) from None
    _show(found if as_json else for_people(found), as_json)
