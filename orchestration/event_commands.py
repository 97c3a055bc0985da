"""`troth events`: how the event log stands, what passes through it, dead letters and their replay, shops that send webhooks.

Parses and prints; what is done is in `serving/intake/`. No list shows what was sent: a payload may hold contact data.
"""

import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestration.errors import MISUSE, RunError
from orchestration.options import HomeOption, JsonOption
from troth.clock import SystemClock
from troth.home import Home
from troth.settings import here

if TYPE_CHECKING:
    from serving.intake.desk import IntakeDesk

app = typer.Typer(no_args_is_help=True, help="Events that came in: the log, dead letters and their replay, landing.")
Letters = Annotated[list[int] | None, typer.Argument(help="Numbers of dead letters; without any, all that wait.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Change nothing; tell what would become of each.")]


@app.command("status")
def show_status(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Offsets, how far behind each consumer is and how old its oldest event, what came again, what is set aside."""
    _show(_status(here(home).home, SystemClock().now()), as_json)


@app.command("tail")
def tail_log(
    count: Annotated[int, typer.Option(help="How many of the newest.", min=1, max=1_000)] = 20,
    after: Annotated[int | None, typer.Option(help="Those behind this offset instead.", min=0)] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """The newest events: what, about what, from whom and when, without what was sent."""
    with _Desk(here(home).home) as desk:
        events = desk.log.read(max(0, desk.log.head() - count) if after is None else after, count)
    told = [
        {
            "offset": event.offset,
            "event_type": event.event_type,
            "source_name": event.source_name,
            "key": event.key,
            "occurred_at": event.occurred_at.isoformat(),
            "received_at": event.received_at.isoformat(),
            "bytes": len(event.payload),
        }
        for event in events
    ]
    _show(told, as_json)


@app.command("dead")
def list_dead_letters(
    state: Annotated[str, typer.Option(help="waiting, replayed or dropped.")] = "waiting",
    count: Annotated[int, typer.Option(help="How many.", min=1, max=10_000)] = 100,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """What could not be taken or applied: reason, source, age, how often it was seen."""
    from serving.event_log.letters import STATES

    if state not in STATES:
        raise typer.BadParameter(f"expected one of {', '.join(STATES)}, found another; correct --state")
    now = SystemClock().now()
    with _Desk(here(home).home) as desk:
        letters = desk.log.letters.list(state, most=count)
    told = [
        {
            "letter_id": each.letter_id,
            "reason_code": each.reason_code,
            "detail": each.detail,
            "route": each.route,
            "source_name": each.source_name,
            "topic": each.topic,
            "age_seconds": round(max(0.0, (now - each.received_at).total_seconds())),
            "seen_count": each.seen_count,
        }
        for each in letters
    ]
    _show(told, as_json)


@app.command("replay")
def replay_letters(
    letters: Letters = None, dry_run: DryRun = False, home: HomeOption = None, as_json: JsonOption = False
) -> None:
    """Read dead letters again, after a contract, a topic or a projector was mended: what is good now is kept."""
    with _Desk(here(home).home) as desk:
        told = desk.replay(letters, dry_run=dry_run)
    _show([{"letter_id": each.letter_id, "outcome": each.outcome, "detail": each.detail} for each in told], as_json)


@app.command("drop")
def drop_letters(
    letters: Annotated[list[int], typer.Argument(help="Numbers of dead letters.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give dead letters up: what they held is emptied, that there was one stays listed."""
    with _Desk(here(home).home) as desk:
        waiting = {each.letter_id for each in desk.log.letters.list("waiting", most=desk.log.bounds.most_letters)}
        dropped = [each for each in letters if each in waiting]
        desk.log.letters.settle(dropped, "dropped", SystemClock().now())
    _show({"dropped": dropped}, as_json)


@app.command("land")
def land_events(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Land what the log holds as files of its sources, for the next run to take."""
    from serving.intake.landing import land

    served = here(home).home
    with _Desk(served) as desk:
        done = land(desk.log, served)
    _show({"events": done.events, "files": done.files, "landed_offset": done.offset}, as_json)


@app.command("trim")
def trim_log(
    hours: Annotated[
        int | None, typer.Option(help="Keep what was received in the last so many hours; as a cycle does, 48.", min=0)
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove events that are landed, that every consumer has had, and that are older than some hours."""
    from orchestration.near_time import KEPT, REMEMBERED

    now, kept = SystemClock().now(), KEPT if hours is None else timedelta(hours=hours)
    with _Desk(here(home).home) as desk:
        removed = desk.log.trim_older(now - kept, now - REMEMBERED)
    _show({"removed": removed}, as_json)


@app.command("forget")
def forget_consumer(
    consumer: Annotated[str, typer.Argument(help="Name of a consumer that is no more.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Forget a consumer: it holds back neither senders nor trimming any more."""
    with _Desk(here(home).home) as desk:
        was = desk.log.forget_consumer(consumer)
    if not was:
        raise RunError(
            f"consumer {consumer}: expected one of `troth events status`, found another. Correct it.", MISUSE
        )
    _show({"forgotten": consumer}, as_json)


@app.command("shop")
def keep_shop(
    domain: Annotated[str, typer.Argument(help="The shop's domain, such as pier-outfitters.myshopify.com.")],
    jurisdiction: Annotated[str | None, typer.Option(help="Whose law applies to its customers, such as US-OR.")] = None,
    notice: Annotated[str | None, typer.Option(help="Notice its customers subscribe under.")] = None,
    notice_version: Annotated[int | None, typer.Option(help="Its version.")] = None,
    language: Annotated[str | None, typer.Option(help="Language it is shown in.")] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take webhooks of a shop: its secret is read from standard input, or asked for; the one before stays good."""
    from serving.intake.shops import add_shop

    secret = typer.prompt("Secret", hide_input=True) if sys.stdin.isatty() else sys.stdin.readline().strip()
    terms = {
        "jurisdiction_code": jurisdiction,
        "notice_id": notice,
        "notice_version": notice_version,
        "language_code": language,
    }
    shop = add_shop(here(home).home, domain, secret, **terms)
    _show({"shop": domain, "secrets": len(shop.secrets), "jurisdiction_code": shop.jurisdiction_code}, as_json)


class _Desk:
    """The intake's desk of a home that has a log; a command makes none."""

    def __init__(self, home: Home) -> None:
        from serving.event_log.log import has_log
        from serving.hub.desk import Desk
        from serving.intake.desk import IntakeDesk

        if not has_log(home):
            raise RunError(
                "event log: expected one in the home, found none. Send an event to `troth serve` first.", MISUSE
            )
        self._hub = Desk(home, SystemClock())
        self._desk = IntakeDesk(home, SystemClock(), self._hub)

    def __enter__(self) -> "IntakeDesk":
        return self._desk

    def __exit__(self, *_: object) -> None:
        self._desk.close()
        self._hub.close()


def _status(home: Home, now: datetime) -> dict[str, Any]:
    with _Desk(home) as desk:
        log = desk.log
        consumers = [
            {
                "consumer": each.consumer_name,
                "offset": each.offset,
                "behind": each.behind,
                "oldest_age_seconds": None
                if each.oldest_received_at is None
                else round(max(0.0, (now - each.oldest_received_at).total_seconds()), 3),
                "committed_at": each.committed_at.astimezone(UTC).isoformat() if each.committed_at else None,
            }
            for each in log.consumers()
        ]
        return {
            "first_offset": log.first(),
            "newest_offset": log.head(),
            "came_again": log.counters()["known"],
            "conflicts": log.counters()["conflict"],
            "dead_letters_waiting": log.letters.count("waiting"),
            "consumers": consumers,
        }


def _show(answer: object, as_json: bool) -> None:
    from orchestration.printing import show

    sys.exit(show(answer, as_json))
