"""`troth identity`: who is who and why, what a steward decides, what changed, and the model behind it.

Parses and prints; what is done is in `stewarding.py` and `deciding.py`. An identifier typed in clear becomes its token and is not echoed.
"""

import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestration.options import HomeOption, JsonOption
from troth.settings import here

app = typer.Typer(
    no_args_is_help=True, help="Who is who, and why: explanations, a steward's decisions, changes, the model."
)

_ID = "Customer id (cus_...), token (email_...), or <type>:<identifier>."
Named = Annotated[str, typer.Argument(help=_ID)]
Actor = Annotated[str, typer.Option(help="Who decides: an id of staff.")]
Reason = Annotated[str, typer.Option(help="Why, without names and contact data: it is kept.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Decide nothing; tell what would become of which customers.")]


@app.command("show")
def show_customer(who: Named, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Everything a customer is made of, what it was called before, and what stewards said of it."""
    from orchestration import stewarding

    _show(stewarding.show(here(home).home, who), as_json)


@app.command("explain")
def explain_pair(
    first: Named,
    second: Annotated[
        str | None, typer.Argument(help="The other; left out, all that holds a customer together.")
    ] = None,
    reveal: Annotated[
        bool, typer.Option("--reveal", help="Show what the two say; the look is kept, with who and why.")
    ] = False,
    actor: Annotated[str | None, typer.Option(help="Who looks: an id of staff; with --reveal.")] = None,
    reason: Annotated[str | None, typer.Option(help="Why, without names and contact data; with --reveal.")] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Why two are one customer, or are not: field by field, in bits that add up."""
    from orchestration import stewarding
    from serving.answers import clock_of

    if reveal != bool(actor and reason) or bool(actor) != bool(reason):
        raise typer.BadParameter(
            "expected --reveal, --actor and --reason together, found some of them; give all or none"
        )
    served = here(home).home
    look = (actor, reason) if actor and reason else None
    told = stewarding.explain(served, first, second, clock_of(served).now(), look)
    if as_json:
        _show(told, as_json)
    from orchestration.explained import render
    from orchestration.printing import console

    out = console()
    for part in render(told):
        out.print(part, markup=False, highlight=False)


@app.command("queue")
def show_queue(
    limit: Annotated[int, typer.Option(help="How many.", min=1)] = 20,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Pairs on which a steward's word is worth most."""
    from orchestration import stewarding

    _show(stewarding.queue(here(home).home, limit), as_json)


@app.command("link")
def link_pair(
    first: Named,
    second: Named,
    actor: Actor,
    reason: Reason,
    dry_run: DryRun = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say that two are one person. They are joined with the next run, where both said yes to being recognised."""
    _decide("link", first, second, actor, reason, dry_run, home, as_json)


@app.command("forbid")
def forbid_pair(
    first: Named,
    second: Named,
    actor: Actor,
    reason: Reason,
    dry_run: DryRun = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say that two are not one person, whatever looks like it or was proved."""
    _decide("forbid", first, second, actor, reason, dry_run, home, as_json)


@app.command("undo")
def undo_decision(
    decision: Annotated[str, typer.Argument(help="Id of the decision (dec_...).")],
    actor: Actor,
    reason: Reason,
    dry_run: DryRun = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take a decision back: the evidence alone decides again."""
    from orchestration import deciding
    from serving.answers import clock_of

    served = here(home).home
    _show(deciding.undo(served, clock_of(served).now(), decision, actor, reason, dry_run), as_json)


@app.command("changes")
def show_changes(
    since: Annotated[datetime | None, typer.Option(help="From this time on, UTC.")] = None,
    customer: Annotated[str | None, typer.Option(help="One customer id, of now or of then.")] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Who was merged, split or renamed from run to run, and why."""
    from datetime import UTC

    from orchestration import stewarding

    _show(stewarding.changes(here(home).home, since and since.replace(tzinfo=UTC), customer), as_json)


@app.command("model")
def show_model(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """The model in use: what each agreement weighs, keys, how learning settled, expected errors by bar."""
    from orchestration import stewarding

    _show(stewarding.model(here(home).home), as_json)


@app.command("train")
def train_model(
    adopt: Annotated[bool, typer.Option("--adopt", help="Use it from the next run on.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Keep nothing; tell what would change.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Learn anew from what is there, and tell which customers it would merge, split or rename. Adopting is another word."""
    from orchestration import stewarding

    if adopt and dry_run:
        raise typer.BadParameter("expected --adopt or --dry-run, found both; leave one out")
    _show(stewarding.train(here(home).home, adopt=adopt, dry_run=dry_run), as_json)


def _decide(
    kind: str, first: str, second: str, actor: str, reason: str, dry_run: bool, home: Path | None, as_json: bool
) -> None:
    from orchestration import deciding
    from serving.answers import clock_of

    served = here(home).home
    _show(deciding.decide(served, clock_of(served).now(), kind, first, second, actor, reason, dry_run), as_json)


def _show(answer: Any, as_json: bool) -> None:
    from orchestration.printing import show

    sys.exit(show(answer, as_json))
