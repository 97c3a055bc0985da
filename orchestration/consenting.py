"""`troth consent`: what people said and what it allows, receipts and their verifier, the log for others, measures, keys.

Parses and prints; what is done is in `auditing.py`, `proving.py` and `measuring.py`. Heavy imports stay inside the functions.
"""

import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestration.errors import MISUSE, RunError
from orchestration.options import HomeOption, JsonOption, moment
from troth.clock import SystemClock
from troth.settings import here

app = typer.Typer(no_args_is_help=True, help="What people allowed: standing, receipts, the log for others, measures.")
keys = typer.Typer(no_args_is_help=True, help="Keys of systems that call the HTTP service; only hashes are kept.")
app.add_typer(keys, name="keys")

Subject = Annotated[str, typer.Argument(help="Identifier token (email_...), or customer id (cus_...).")]
AtOption = Annotated[
    str | None, typer.Option("--at", help="A time in ISO 8601, UTC where it names no zone; default now.")
]
KnownOption = Annotated[
    str | None, typer.Option("--known-at", help="Only what had been received by this time; default everything.")
]


@app.command("show")
def show_standing(
    subject: Subject,
    at: AtOption = None,
    known_at: KnownOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """What may be done with a person's data, purpose by purpose and channel by channel, and why."""
    from orchestration import auditing

    _show(auditing.show(here(home).home, subject, _at(at), moment("--known-at", known_at)), as_json)


@app.command("history")
def show_history(subject: Subject, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Everything a person said or was shown, in the ledger's order; what was erased shows as erased."""
    from orchestration import auditing

    _show(auditing.history(here(home).home, subject), as_json)


@app.command("receipt")
def make_receipt(
    subject: Annotated[str, typer.Argument(help="Identifier token (email_...).")],
    out: Annotated[Path, typer.Option(help="The file to write.")],
    purpose: Annotated[str | None, typer.Option(help="One question only: its purpose, with --channel.")] = None,
    channel: Annotated[str | None, typer.Option(help="One question only: its channel, with --purpose.")] = None,
    at: AtOption = None,
    known_at: KnownOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write what a person said, what it allows and the proof of it as one sealed file that verifies without us."""
    from orchestration import proving

    if (purpose is None) != (channel is None):
        raise typer.BadParameter("expected --purpose and --channel together, found one of them; give both or neither")
    question = (purpose, channel) if purpose and channel else None
    times = _at(at), moment("--known-at", known_at)
    _show(proving.receipt(here(home).home, subject, question, out, *times), as_json)


@app.command("verify")
def verify_file(
    paths: Annotated[list[Path], typer.Argument(help="Receipts, decisions or folders of them; exports.")],
    key: Annotated[
        str | None, typer.Option(help="The ledger's verifier key, known from elsewhere; default the home's own.")
    ] = None,
    witness: Annotated[list[str] | None, typer.Option(help="Verifier key of a witness; may be repeated.")] = None,
    quorum: Annotated[int | None, typer.Option(help="How many of the witnesses must have cosigned.")] = None,
    since: Annotated[Path | None, typer.Option(help="A checkpoint kept from before.")] = None,
    sealed: Annotated[bool, typer.Option("--sealed", help="Refuse a receipt that is not sealed as a whole.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run the single-file verifier on what was handed out. 0 verifies, 1 does not, 2 misuse."""
    from consent.receipts import verifier
    from orchestration import proving

    said = [str(path) for path in paths] + ["--key", key or proving.verifier_key(here(home).home)]
    for name in witness or []:
        said += ["--witness", name]
    said += [] if quorum is None else ["--quorum", str(quorum)]
    said += [] if since is None else ["--since", str(since)]
    said += [flag for flag, is_on in (("--sealed", sealed), ("--json", as_json)) if is_on]
    sys.exit(verifier.main(said))


@app.command("verifier")
def write_verifier(
    out: Annotated[Path, typer.Option(help="Where to put the file, for somebody who does not have Troth.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the verifier as one Python file that imports nothing of ours."""
    from orchestration import proving

    _show(proving.write_verifier(here(home).home, out), as_json)


@app.command("export")
def export_ledger(
    folder: Annotated[Path, typer.Argument(help="Folder to write into.")],
    tiles: Annotated[bool, typer.Option("--tiles", help="The public log alone, as c2sp.org/tlog-tiles.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the ledger for an auditor; or, with --tiles, the log without any event for whoever wants to watch it."""
    from orchestration import proving

    _show(proving.export(here(home).home, folder, tiles), as_json)


@app.command("checkpoint")
def show_checkpoint(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """The newest checkpoint as it was signed, with the cosignatures we have for it."""
    from orchestration import proving

    found = proving.checkpoint(here(home).home)
    if as_json:
        _show(found, as_json)
    sys.stdout.write(found["note"])


@app.command("witness")
def ask_witnesses(
    policy: Annotated[Path, typer.Option(help="A c2sp.org/tlog-policy file: witnesses, addresses, quorum.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Have the newest checkpoint cosigned. Kept only when as many cosign as the policy asks for; 1 when they do not."""
    from orchestration import proving

    _show(proving.witness(here(home).home, policy), as_json)


@app.command("decisions")
def show_decisions(
    number: Annotated[int | None, typer.Argument(help="One decision; all of them when left out.")] = None,
    replay: Annotated[int | None, typer.Option(help="Decide this one again as of then, and compare.")] = None,
    subject: Annotated[str | None, typer.Option(help="Customer id: the decision about them alone, with proof.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write that as a file that verifies without us.")] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """What people's data was used for: every use's signed receipt, the chain verified; one of them; or one again."""
    from orchestration import proving

    if replay is not None and (number is not None or subject):
        raise typer.BadParameter("expected --replay alone, found another decision or a subject; leave them out")
    if (number is None and subject) or (out and not subject):
        raise typer.BadParameter("expected a number, --subject and then --out, found one without the other; name them")
    if replay is not None:
        answer = proving.replay(here(home).home, replay)
    elif number is not None:
        answer = proving.decision(here(home).home, number, subject, out)
    else:
        answer = proving.decisions(here(home).home)
    _show(answer, as_json)


@app.command("measures")
def show_measures(
    by: Annotated[
        str, typer.Option(help="Some of purpose, channel, notice, version, place, with commas between.")
    ] = "purpose,channel",
    weekly: Annotated[bool, typer.Option("--weekly", help="Also by the week people were asked in.")] = False,
    least: Annotated[int, typer.Option(help="Cells of fewer people are not shown.", min=1)] = 10,
    control: Annotated[
        bool,
        typer.Option("--control", help="Also what every leaf is to the answers: not suppressed, for auditors only."),
    ] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw rates and weeks into this PNG or SVG file.")] = None,
    at: AtOption = None,
    known_at: KnownOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """How many said yes, reconciled to the ledger leaf by leaf; how long each consumer took to hear a no."""
    from orchestration import measuring

    asked = measuring.Asked(by.split(","), _at(at), moment("--known-at", known_at), least, weekly, control)
    answer = measuring.measures(here(home).home, asked, plot)
    _show(answer if as_json else measuring.for_people(answer), as_json)


@app.command("link")
def make_link(
    subject: Annotated[str, typer.Argument(help="Identifier token (email_...).")],
    scope: Annotated[str, typer.Option(help="preferences, unsubscribe or confirm.")] = "preferences",
    purpose: Annotated[str, typer.Option(help="What unsubscribe and confirm are about.")] = "*",
    channel: Annotated[str, typer.Option(help="What unsubscribe and confirm are about.")] = "*",
    days: Annotated[int | None, typer.Option(help="How long it works; default as long as its kind does.")] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Mint a signed link for one person. Whoever has it can act for them: send it to them and nobody else."""
    from orchestration import proving

    _show(proving.link(here(home).home, subject, scope, (purpose, channel), days), as_json)


@keys.command("make")
def make_key(
    name: Annotated[str, typer.Argument(help="Who will hold it. A key of the same name stops working.")],
    scope: Annotated[list[str] | None, typer.Option(help="capture, links, admin or events; may be repeated.")] = None,
    purpose: Annotated[list[str] | None, typer.Option(help="A purpose it may read for; may be repeated.")] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key and print it, this once."""
    from serving import keys as kept

    key = kept.make_key(here(home).home, name, purpose or [], SystemClock().now(), scope or [])
    _show({"name": name, "key": key, "shown": "this once; only its hash is kept"}, as_json)


@keys.command("list")
def list_keys(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Who holds keys, and for what."""
    from serving import keys as kept

    rows = [
        {
            "name": each.name,
            "scopes": " ".join(each.scopes),
            "purposes": " ".join(each.purposes),
            "made_at": each.made_at,
        }
        for each in kept.callers(here(home).home)
    ]
    _show({"count": len(rows), "keys": rows}, as_json)


@keys.command("drop")
def drop_key(
    name: Annotated[str, typer.Argument(help="Whose key.")], home: HomeOption = None, as_json: JsonOption = False
) -> None:
    """Make a key useless. A running service forgets it when it is started again."""
    from serving import keys as kept

    if not kept.drop_key(here(home).home, name):
        raise RunError("API key: expected one of that name, found none. See `troth consent keys list`.", MISUSE)
    _show({"name": name, "dropped": "it works no more once the service is started again"}, as_json)


def _at(text: str | None) -> datetime:
    return moment("--at", text) or SystemClock().now()


def _show(answer: Any, as_json: bool) -> None:
    from orchestration.printing import show

    sys.exit(show(answer, as_json))
