"""`troth activate`: segments on their way to where they are used. Parses and prints; everything that leaves wants --yes."""

from typing import Annotated, Any

import typer

from orchestration.options import HomeOption, JsonOption
from troth.settings import here

app = typer.Typer(
    no_args_is_help=True,
    help="Send segments to where they are used: asked for, let out by a second person, sent whole, called back.",
)
DeliveryId = Annotated[str, typer.Argument(metavar="DELIVERY", help="Its id, from `troth activate list`.")]
Actor = Annotated[str, typer.Option(help="Who does it.")]
Reason = Annotated[str, typer.Option(help="Why; it is kept.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do it. Without this it only says what it would do.")]


@app.command("destinations")
def list_destinations(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Where segments may be sent, for what and to whom, and what is sent again and again (`destinations.yml` of the home)."""
    from orchestration import activating

    _show(activating.destinations(here(home).home), as_json)


@app.command("secret")
def show_secret(
    name: Annotated[str, typer.Argument(metavar="DESTINATION", help="A webhook.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """The secret that the receiver of a webhook verifies messages with. Hand it over on a way of its own."""
    from orchestration import activating

    _show(activating.secret(here(home).home, name), as_json)


@app.command("ask")
def ask_for(
    segment: Annotated[str, typer.Argument(help="A described segment.")],
    destination: Annotated[str, typer.Argument(help="One of `troth activate destinations`.")],
    actor: Actor,
    reason: Reason,
    channel: Annotated[
        str | None, typer.Option(help="May be left out where segment and destination share one alone.")
    ] = None,
    yes: Yes = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask for a segment to be sent: counts whom it would reach, and why not the others. A dry run unless --yes."""
    from orchestration import activating

    _show(activating.ask(here(home).home, segment, destination, channel, actor, reason, dry_run=not yes), as_json)


@app.command("approve")
def approve_one(
    delivery_id: DeliveryId, actor: Actor, reason: Reason, home: HomeOption = None, as_json: JsonOption = False
) -> None:
    """Let out what somebody else asked for. It goes out with the next round, or with `troth activate send`."""
    from orchestration import activating

    _show(activating.approve(here(home).home, delivery_id, actor, reason), as_json)


@app.command("refuse")
def refuse_one(
    delivery_id: DeliveryId, actor: Actor, reason: Reason, home: HomeOption = None, as_json: JsonOption = False
) -> None:
    """Say no to what was not begun; whoever asked for it takes it back so."""
    from orchestration import activating

    _show(activating.refuse(here(home).home, delivery_id, actor, reason), as_json)


@app.command("send")
def send_one(
    delivery_id: DeliveryId,
    actor: Actor = "troth",
    yes: Yes = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send what is approved, or go on with what stopped half way. A dry run unless --yes; exit code 4 where it is not there yet."""
    from orchestration import activating

    with _display(as_json) as display:
        answer = activating.send(here(home).home, delivery_id, actor, not yes, display)
    _show(answer, as_json)
    if yes and not answer["is_sent"]:
        raise typer.Exit(4)


@app.command("list")
def list_deliveries(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Every delivery, newest first, with its state and how many were called back."""
    from orchestration import activating

    _show(activating.listing(here(home).home), as_json)


@app.command("show")
def show_one(delivery_id: DeliveryId, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """One delivery: who asked and who let it out, its manifest, its receipts, its recalls and their answers."""
    from orchestration import activating

    _show(activating.show(here(home).home, delivery_id), as_json)


@app.command("recall")
def recall_people(
    again: Annotated[bool, typer.Option("--again", help="Also try again what was given up.")] = False,
    yes: Yes = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Call back whoever may not be contacted any more, tell recipients, take their answers; also sends what is due. A dry run unless --yes."""
    from orchestration import activating

    with _display(as_json) as display:
        answer = activating.recall(here(home).home, again, not yes, display)
    _show(answer, as_json)
    if answer.get("overdue") or answer.get("faults"):
        raise typer.Exit(1)


@app.command("acknowledge")
def acknowledge_recall(
    delivery_id: DeliveryId,
    actor: Actor,
    receipt: Annotated[str, typer.Option(help="What the recipient answered under: a ticket, a letter's date.")] = "",
    number: Annotated[int | None, typer.Option(help="One recall of it; all that wait where left out.", min=1)] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write down that a recipient answered a recall in some other way."""
    from orchestration import activating

    _show(activating.acknowledge(here(home).home, delivery_id, number, actor, receipt), as_json)


def _display(as_json: bool) -> Any:
    from orchestration.progress import RichDisplay, Silent

    return Silent() if as_json else RichDisplay()


def _show(answer: dict[str, Any], as_json: bool) -> None:
    from orchestration.printing import show

    show(answer, as_json)
