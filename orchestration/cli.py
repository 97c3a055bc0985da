"""The `troth` command. Parses, calls, prints; imports what a command needs inside the command, so that --help is quick.

Exit codes: 0 done; 1 refused, or does not verify; 2 misuse; 3 nothing could be read; 4 a step or blocking check failed;
130 interrupted (what was written stays whole, the next run goes on from there).
"""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestration import (
    activating_commands,
    audit_commands,
    books_commands,
    consenting,
    console_commands,
    event_commands,
    flow_commands,
    identity_commands,
    promising,
    record_commands,
    results_commands,
    stock_commands,
    stock_measures,
    watching,
)
from orchestration.options import HomeOption, JsonOption
from troth.errors import TrothError
from troth.settings import Settings, here, silence_telemetry

INTERRUPTED = 130
app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
                  help="An open data platform for retailers: what we may do with your data, and what we said you could have.")  # fmt: skip
ask = typer.Typer(
    no_args_is_help=True, help="Ask what an online service would ask; every answer with its age and reason."
)
segment = typer.Typer(no_args_is_help=True, help="Described groups of customers, and whom of them we may contact.")
quarantine = typer.Typer(
    no_args_is_help=True, help="Rows that were set aside: which, why, from where; read them again after a fix."
)
app.add_typer(activating_commands.app, name="activate")
app.add_typer(ask, name="ask")
app.add_typer(audit_commands.app, name="audit")
audit_commands.app.command("record")(record_commands.audit_record)
audit_commands.app.command("events")(record_commands.audit_events)
app.add_typer(consenting.app, name="consent")
app.add_typer(console_commands.app, name="console")
app.add_typer(identity_commands.app, name="identity")
segment.command("results")(results_commands.segment_results)
app.add_typer(segment, name="segment")
app.add_typer(event_commands.app, name="events")
stock_commands.app.command("breaks")(books_commands.stock_breaks)
stock_commands.app.command("rebuild")(books_commands.stock_rebuild)
stock_commands.app.command("measures")(stock_measures.stock_measures)
app.add_typer(stock_commands.app, name="stock")
ask.command("stock")(books_commands.ask_stock)
app.add_typer(quarantine, name="quarantine")
app.add_typer(flow_commands.app, name="flow")
app.add_typer(watching.app, name="watch")
privacy = typer.Typer(
    no_args_is_help=True,
    help="The rights of a person: access, correction, objection, erasure; every request with its deadline.",
)
app.add_typer(privacy, name="privacy")


def main() -> None:
    """Run the command; turn refusals into one clear message and an exit code."""
    silence_telemetry()
    try:
        app()
    except TrothError as error:
        print(f"troth: {error}", file=sys.stderr)
        sys.exit(getattr(error, "code", 1))
    except SystemExit as end:
        if end.code == INTERRUPTED:  # Typer makes this of Ctrl-C, and says nothing
            print("troth: interrupted; what was written is whole, and the next run goes on from there", file=sys.stderr)
        raise


@app.command()
def run(
    home: HomeOption = None,
    source: Annotated[
        list[str] | None, typer.Option(help="Bring your own export: SOURCE=FILE, with --mapping.")
    ] = None,
    mapping: Annotated[
        Path | None, typer.Option(help="YAML that maps the file's columns onto the source's contracts.")
    ] = None,
    sample: Annotated[bool, typer.Option(help="Write a sample retailer when nothing has landed.")] = True,
    force: Annotated[bool, typer.Option(help="Bring everything up to date even when nothing new has landed.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Take what has landed and bring tables, consents, features, models and segments up to date."""
    from orchestration.progress import RichDisplay, Silent
    from orchestration.run import run as run_everything

    settings = here(home)
    if source or mapping:
        _land(settings, source or [], mapping)
        sample = False
    if as_json:
        import msgspec

        report = run_everything(settings, Silent(), sample, force)
        print(msgspec.json.encode(report).decode())
        return
    with RichDisplay() as display:
        report = run_everything(settings, display, sample, force)
    from orchestration.printing import console
    from orchestration.summary import render

    out = console()
    for table in render(report):
        out.print(table)
        out.print()
    if not report.is_changed:
        out.print("Nothing new has landed since the last run; nothing was changed.", style="bold")
    out.print(_next_steps(home), soft_wrap=True)


def _next_steps(home: Path | None) -> str:
    option = f" --home {home}" if home else ""
    return (
        "Try next:\n"
        f"  troth segment preview lapsed_regulars{option}     who may be contacted, and why the others may not\n"
        f"  troth ask availability SKU-00001{option}          where it is, how sure, how old\n"
        f"  troth audit verify{option}                        check the consent ledger without trusting it"
    )


def _land(settings: Settings, sources: list[str], mapping: Path | None) -> None:
    from orchestration.sources.mapped import land_mapped, load_mapping

    if mapping is None or len(sources) != 1 or "=" not in sources[0]:
        raise typer.BadParameter("expected one --source SOURCE=FILE together with --mapping FILE; give both")
    name, _, file = sources[0].partition("=")
    mapped = load_mapping(mapping)
    if mapped.source != name:
        raise typer.BadParameter(f"expected --source {mapped.source}=FILE for mapping {mapping.name}, found {name}")
    path = Path(file)
    if not path.is_file():
        raise typer.BadParameter(f"expected a file at {path}, found none; correct --source {name}=FILE")
    land_mapped(settings.home, mapped, path)


@app.command()
def simulate(
    home: HomeOption = None,
    scale: Annotated[str, typer.Option(help="small, medium or large.")] = "small",
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = 7,
) -> None:
    """Write a retailer that never was: native files of every source, faults included, and its physical truth."""
    import simulator
    from orchestration.progress import RichDisplay

    if scale not in simulator.SCALES:
        raise typer.BadParameter(f"expected one of {', '.join(simulator.SCALES)}, found {scale}")
    with RichDisplay() as display:
        simulator.simulate(here(home).home, simulator.SCALES[scale], seed, display.advance)


@app.command()
def dev(
    home: HomeOption = None,
    port: Annotated[int, typer.Option(help="Port on loopback.")] = 3000,
) -> None:
    """Open the graph in Dagster: assets, partitions, checks, schedules, sensor."""
    import os
    import subprocess

    from orchestration import warehouse
    from orchestration.instance import dagster_home

    settings = here(home)
    dagster_home(settings.home)
    os.environ["TROTH_HOME"] = str(settings.home.root)
    warehouse.manifest(settings.home)
    dagster = Path(sys.executable).with_name("dagster")
    sys.exit(
        subprocess.call([str(dagster), "dev", "-m", "orchestration.dev", "--host", "127.0.0.1", "--port", str(port)])
    )


@app.command()
def docs(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Write dbt's documentation of the project as one page into the home; the console shows it under Engineering."""
    from orchestration.documenting import write_docs
    from orchestration.printing import show

    show({"dbt_docs": str(write_docs(here(home).home))}, as_json)


@app.command()
def serve(
    home: HomeOption = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8400,
    workers: Annotated[int, typer.Option(min=1, help="Processes that answer.")] = 1,
) -> None:
    """Answer features, availability, promises and recommendations over HTTP."""
    from orchestration.rights.desk import seams_of
    from serving.server import serve as serve_http

    serve_http(here(home).home, host, port, rights=seams_of, workers=workers)


@app.command()
def bench(
    name: Annotated[str | None, typer.Argument(help="Which benchmark; see --list.")] = None,
    list_all: Annotated[bool, typer.Option("--list", help="Names of the benchmarks, with what each measures.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line per measure.")] = False,
    scale: Annotated[str | None, typer.Option(help="Scale of the data, where the benchmark has one.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write the plot to this PNG or SVG file.")] = None,
    data: Annotated[Path | None, typer.Option(help="The data file, for benchmarks on real data.")] = None,
) -> None:
    """Make a published number, its peer or limit in the same run."""
    from benchmarks.harness import main as bench_main

    sys.exit(bench_main(name, list_all, as_json, scale, plot, data))


@ask.command("customer")
def ask_customer(
    customer_id: Annotated[str, typer.Argument(help="Customer id (cus_...) or identifier token.")],
    service: Annotated[str, typer.Option(help="Feature service: what the answer is used for.")] = "recommend_v1",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Features of a customer for one use, and who they are, on whose word; each refused with a reason where consent does not allow it."""
    import msgspec

    from serving import answers

    desk, at = answers.desk(here(home).home), _now(home)
    features = answers.ask_customer(desk, customer_id, service, at)
    profile = answers.ask_profile(desk, customer_id, at)
    told = profile if as_json else answers.profile_in_short(profile)
    _show({**msgspec.structs.asdict(features), "profile": told}, as_json)


@ask.command("availability")
def ask_availability(
    sku: Annotated[str, typer.Argument(help="Item.")],
    location: Annotated[str | None, typer.Option(help="One location; all of them when left out.")] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Where an item is: on hand, committed, safety, available, and how old that is."""
    from serving import answers

    _show(answers.ask_availability(here(home).home, sku, location, _now(home)), as_json)


@ask.command("promisable")
def ask_promisable(
    sku: Annotated[str, typer.Argument(help="Item.")],
    location: Annotated[str | None, typer.Option(help="A location; or a group instead.")] = None,
    group: Annotated[
        str | None, typer.Option(help="Locations asked together: all, type/store, region/US-CA ...")
    ] = None,
    channel: Annotated[str | None, typer.Option(help="Channel that asks: what is protected for it counts.")] = None,
    by: Annotated[datetime | None, typer.Option("--by", help="For when, UTC; now, if left out.")] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """What may be promised of an item: by a location or a group of them, to a channel, for a later time."""
    from serving import answers, supply

    if (location is None) == (group is None):
        raise typer.BadParameter("expected --location or --group, found both or none; name one")
    desk = answers.desk(here(home).home)
    codes = [location] if location else supply.locations_of(desk, group or "")
    wanted = None if by is None else by.replace(tzinfo=UTC)
    _show(supply.ask_promisable(desk, sku, codes, _now(home), channel, wanted, group), as_json)


@ask.command("order")
def ask_order(
    order: Annotated[
        str, typer.Argument(help="Name or id: 10001, #10001, a marketplace's id, or store/till/number/day.")
    ],
    audience: Annotated[
        str, typer.Option(help="Who is told: contact_centre, or shopper, who sees no codes.")
    ] = "contact_centre",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """What became of an order: where it is, what was promised and what happened, line by line, money and goods apart."""
    from serving import answers

    answer = answers.ask_order(here(home).home, order, _now(home), audience)
    _show(answer if as_json else answers.in_short(answer), as_json)


ask.command("promise")(promising.ask_promise)


@ask.command("recommend")
def ask_recommend(
    customer_id: Annotated[str, typer.Argument(help="Customer id (cus_...).")],
    count: Annotated[int, typer.Option(help="How many.", min=1, max=100)] = 5,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Items a customer may like, in stock where they shop; refused with a reason where consent does not allow it."""
    from serving import answers

    _show(answers.ask_recommend(here(home).home, customer_id, _now(home), count), as_json)


def _now(home: Path | None) -> datetime:
    from serving.answers import clock_of

    return clock_of(here(home).home).now()


@segment.command("list")
def segment_list(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """The described segments: those that come with Troth, and those described in the home."""
    from orchestration import marketing

    _show(marketing.listing(here(home).home), as_json)


@segment.command("fields")
def segment_fields(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """What a definition may speak of: fields, events, and models whose scores a lookalike may use."""
    from orchestration import marketing

    _show(marketing.fields(here(home).home), as_json)


@segment.command("preview")
def segment_preview(
    name: Annotated[str, typer.Argument(help="A described segment, or a file that describes one (.yml).")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """How many match, how many may be contacted over each channel, and why the others may not."""
    from orchestration import marketing

    _show(marketing.preview(here(home).home, name), as_json)


@segment.command("sql")
def segment_sql(
    name: Annotated[str, typer.Argument(help="A described segment, or a file that describes one (.yml).")],
    dialect: Annotated[str, typer.Option(help="The engine it is written for, by sqlglot's name.")] = "duckdb",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """The query a segment is compiled to, with its parameters."""
    from orchestration import marketing

    _show(marketing.sql(here(home).home, name, dialect), as_json)


@segment.command("export")
def segment_export(
    name: Annotated[str, typer.Argument(help="A described segment, or a file that describes one (.yml).")],
    channel: Annotated[
        str | None, typer.Option(help="One of the segment's channels; may be left out where it has one.")
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option(help="Folder for the file and its manifest; default a new one in exports/segments/ of the home."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Write it. Without this the export is a dry run.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Contact data of those who may be contacted, with a manifest that names the checkpoint. A dry run unless --yes."""
    from orchestration import marketing

    _show(marketing.export(here(home).home, name, channel, to, dry_run=not yes), as_json)


@segment.command("exclude")
def segment_exclude(
    name: Annotated[str, typer.Argument(metavar="LIST", help="Name of the list; a new one is made.")],
    file: Annotated[
        Path, typer.Option(help="One identifier a line: e-mail, <type>:<identifier>, customer id or token.")
    ],
    remove: Annotated[bool, typer.Option("--remove", help="Take them off the list.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do it. Without this it only says what it would do.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put people on a list that no segment reaches, whatever its definition says. A dry run unless --yes."""
    from orchestration import marketing

    _show(marketing.exclude(here(home).home, name, file, remove, dry_run=not yes), as_json)


@quarantine.command("list")
def quarantine_list(
    table: Annotated[str | None, typer.Option(help="One raw table.")] = None,
    most: Annotated[int, typer.Option(help="How many rows to show.")] = 50,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Rows set aside: table, file, place in the file, reason."""
    from orchestration import taking

    rows = taking.quarantined(here(home).home, table).drop("received_at", "file_hash")
    _show({"rows": rows.head(most).to_dicts(), "count": rows.height}, as_json)


@quarantine.command("replay")
def quarantine_replay(
    source: Annotated[str, typer.Argument(help="Source whose files with rows set aside are read again.")],
    yes: Annotated[
        bool, typer.Option("--yes", help="Do it. Without this it only says which files it would read.")
    ] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read files with rows in quarantine again, after a reader, contract or mapping was mended. A dry run unless --yes."""
    from orchestration import replaying

    _show(replaying.replay(here(home), source, dry_run=not yes), as_json)


SubjectsArgument = Annotated[
    list[str],
    typer.Argument(
        help="Customer id (cus_...), token, or <type>:<identifier>; give what the person proved to be theirs."
    ),
]
OptionalSubjects = Annotated[list[str] | None, typer.Argument(help="As for access; not needed with --request.")]
RequestArgument = Annotated[str, typer.Argument(help="Number of the request (req_...).")]


@privacy.command("requests")
def privacy_requests(
    check: Annotated[
        bool, typer.Option("--check", help="Exit code 1 when a request or a recipient is overdue.")
    ] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Every request: kind, state, deadline, who did what when, and which recipients have acknowledged."""
    from orchestration.printing import show
    from serving.rights import desk

    answer = desk.requests(here(home).home, _clock())
    if not as_json:  # a line each; who did what when is for machines
        for request in answer["requests"]:
            request["recipients"] = ", ".join(f"{name} {state}" for name, state in request["recipients"].items())
            request["acts"] = len(request["acts"])
    show(answer, as_json)
    sys.exit(int(check and bool(answer["overdue"] or answer["overdue_recipients"])))


@privacy.command("receive")
def privacy_receive(
    kind: Annotated[str, typer.Argument(help="access, portability, rectification, erasure, restriction or objection.")],
    subjects: SubjectsArgument,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take a request in that will be worked on later: from now on its month runs."""
    from serving.rights import desk

    _show(desk.receive(here(home).home, _clock(), kind, subjects), as_json)


@privacy.command("advance")
def privacy_advance(
    request: RequestArgument,
    state: Annotated[str, typer.Argument(help="identity_checked, in_progress, done, refused or routed.")],
    reason: Annotated[
        str | None, typer.Option(help="Why, for refused and routed: one of the reasons there are.")
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bring a request into its next state by hand."""
    from serving.rights import desk

    _show(desk.advance(here(home).home, _clock(), request, state, reason), as_json)


@privacy.command("extend")
def privacy_extend(
    request: RequestArgument,
    reason: Annotated[str, typer.Option(help="complexity or number_of_requests.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take two more months, once and in time, with a reason the person is told."""
    from serving.rights import desk

    _show(desk.extend(here(home).home, _clock(), request, reason), as_json)


@privacy.command("acknowledge")
def privacy_acknowledge(
    request: RequestArgument,
    recipient: Annotated[str, typer.Argument(help="As the request lists it.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write down that a recipient has done its part of an erasure."""
    from serving.rights import desk

    _show(desk.acknowledge(here(home).home, _clock(), request, recipient), as_json)


@privacy.command("access")
def privacy_access(
    subjects: SubjectsArgument,
    portable: Annotated[
        bool, typer.Option("--portable", help="Only what the person gave, for another provider.")
    ] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Everything held about a person into a folder: a page to read, JSON, a CSV per table."""
    from orchestration.rights import desk

    _show(desk.access(here(home).home, _clock(), subjects, portable=portable), as_json)


@privacy.command("erase")
def privacy_erase(
    subjects: OptionalSubjects = None,
    request: Annotated[str | None, typer.Option(help="Go on with a request that was taken in or interrupted.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it. Without this it only says what would go.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Erase a person everywhere in the home, search every byte again, and certify it. A dry run unless --yes."""
    from orchestration.progress import RichDisplay, Silent
    from orchestration.rights.erasing import erase

    if not subjects and not (request and yes):
        raise typer.BadParameter("expected a subject, or --request with --yes; name the person or the request")
    with Silent() if as_json else RichDisplay() as display:
        answer = erase(
            here(home).home, _clock(), subjects or [], request_id=request, dry_run=not yes, advance=display.advance
        )
    _show(answer, as_json)


@privacy.command("search")
def privacy_search(subjects: SubjectsArgument, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Search every byte of the home for what identifies a person. Exit code 1 when something is found; values are never shown."""
    from orchestration.printing import show
    from orchestration.rights import desk

    answer = desk.search(here(home).home, subjects)
    show(answer, as_json)
    sys.exit(int(bool(answer["count"])))


@privacy.command("rectify")
def privacy_rectify(
    subjects: SubjectsArgument,
    column: Annotated[str, typer.Option(help="Which column is wrong: email, first_name, city ...")],
    to: Annotated[str, typer.Option(help="What is right.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Correct a value in every record of the person's own; what the books keep stays as it was issued."""
    from orchestration.rights.correcting import rectify

    _show(rectify(here(home).home, _clock(), subjects, column, to), as_json)


@privacy.command("object")
def privacy_object(
    subjects: SubjectsArgument,
    purpose: Annotated[str, typer.Option(help="Which purpose; * for all that may be objected to.")] = "*",
    channel: Annotated[str, typer.Option(help="Which channel; * for all.")] = "*",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Record an objection under every proved identity; one that cannot be granted is routed, with what we can do instead."""
    from serving.rights import desk

    _show(desk.say_no(here(home).home, _clock(), subjects, "object", purpose, channel), as_json)


@privacy.command("restrict")
def privacy_restrict(
    subjects: SubjectsArgument,
    end: Annotated[bool, typer.Option("--end", help="End the restriction instead.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Restrict every use of a person's data that does not rest on a contract, or end that."""
    from serving.rights import desk

    _show(desk.say_no(here(home).home, _clock(), subjects, "unrestrict" if end else "restrict"), as_json)


@privacy.command("rotate-key")
def privacy_rotate_key(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Wrap every key of ledger and vault under a new key-encryption key and destroy the old: erased is gone from backups, too."""
    from consent.ledger.rotation import rotate_kek

    _show(rotate_kek(here(home).home, _clock()), as_json)


def _clock() -> Any:
    from troth.clock import SystemClock

    return SystemClock()


def _show(answer: Any, as_json: bool) -> None:
    """Print an answer: JSON for machines, a table for people. Exit code 1 when the answer is a refusal."""
    from orchestration.printing import show

    sys.exit(show(answer, as_json))


if __name__ == "__main__":
    main()
