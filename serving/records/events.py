"""One log of what flowed, was approved and was shared, put together from what the system keeps where it happens. Nothing is written here.

Each kind is read by the one function that knows its files; a home that has none of them adds nothing.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar, get_args

import msgspec
import polars as pl

from consent.ledger.opening import signer_of
from consent.receipts import decisions
from consent.receipts.uses import folder_of
from consent.rights import FILE as RIGHTS_FILE
from consent.rights import open_rights
from models.purpose_flow.kept import kept
from serving.activation import deliveries
from serving.console import looks
from serving.errors import ServingError
from serving.hub.webhooks import MOST_DELIVERIES, OUTBOX_FILE, Outbox
from serving.operations import read_log
from serving.records.shapes import Event, EventKind
from troth.home import Home
from troth.ids import file_hash

_Line = TypeVar("_Line", bound=read_log.Line)
Reading = Callable[[Home, datetime, datetime], Iterator[Event]]
MOST = 10_000


def events(
    home: Home, since: datetime, until: datetime, kinds: Collection[EventKind] | None = None, most: int = MOST
) -> list[Event]:
    """What happened from `since` until before `until` (aware times), oldest first; of more than `most` the newest.

    Raises: ServingError for a kind there is none of; VerificationError where a receipt does not verify.
    """
    known = get_args(EventKind)
    if odd := sorted(set(kinds or ()) - set(known)):
        raise ServingError(f"events: expected kinds among {', '.join(known)}, found {', '.join(odd)}. Correct them.")
    wanted = set(kinds or known)
    found = [
        event
        for mine, read in _READINGS.items() if wanted & set(mine)
        for event in read(home, since, until)
        if event.kind in wanted and since <= event.at < until
    ]  # fmt: skip
    return sorted(found, key=lambda each: (each.at, each.kind, each.what, each.who))[-most:]


def _uses(home: Home, since: datetime, until: datetime) -> Iterator[Event]:
    """Exports, trainings, segments: their receipts, signatures checked."""
    paths = sorted(folder_of(home).glob("*.note"))
    key = signer_of(home).verifier if paths else None
    for path in paths:
        assert key is not None  # noqa: S101 - there are receipts
        receipt = decisions.load(path.parent, int(path.stem), key)
        at = datetime.fromisoformat(receipt.decided_at)
        allowed = sum(row["subject_count"] for row in receipt.counts if row["is_allowed"])
        yield Event(
            at=at,
            kind="export" if receipt.use.use == "export" else "use",
            who=receipt.use.asked_by,
            what=f"{receipt.use.use}: {allowed} of {receipt.subject_count} people allowed",
            purpose_code=receipt.use.question.purpose_code,
            count=allowed,
            evidence=f"decision receipt {receipt.number}",
            evidence_sha256=receipt.hash,
        )


def _shared(home: Home, since: datetime, until: datetime) -> Iterator[Event]:
    """What went to recipients, was asked for, approved, refused, called back and acknowledged."""
    if not (home.root / deliveries.FILE).exists():
        return
    for shared in deliveries.sharing(home):
        yield Event(
            at=shared.at,
            kind="delivery" if shared.event == "sent" else "recall",
            who=shared.asked_by if shared.event == "sent" else "troth",
            what=f"{shared.segment_name} by {shared.channel_code} {'to' if shared.event == 'sent' else 'called back from'} "
            f"{shared.recipient.legal_name} ({shared.destination})",
            purpose_code=shared.purposes[0] if shared.purposes else None,
            count=shared.people,
            evidence=f"delivery {shared.delivery_id}",
            evidence_sha256=shared.manifest_sha256,
        )
    with deliveries.Book(home) as book:
        for delivery in book.deliveries():
            for act in book.acts(delivery.delivery_id):
                yield Event(
                    at=act.at,
                    kind="approval",
                    who=act.who,
                    what=f"{act.act}: {delivery.segment_name} for {delivery.destination}",
                    purpose_code=delivery.purpose_code,
                    count=delivery.expected,
                    evidence=f"delivery {delivery.delivery_id}",
                    evidence_sha256=delivery.approves,
                )


def _webhooks(home: Home, since: datetime, until: datetime) -> Iterator[Event]:
    """Consent events that a system downstream acknowledged: one line per destination and hour."""
    if not (home.root / OUTBOX_FILE).exists():
        return
    outbox = Outbox(home)
    try:
        for destination in outbox.destinations():
            told: dict[datetime, list[datetime]] = defaultdict(list)
            last = 0
            while some := outbox.deliveries(destination.destination_id, "delivered", last, MOST_DELIVERIES):
                last = some[-1].delivery_id
                for each in some:
                    if each.last_attempt_at is not None and since <= each.last_attempt_at < until:
                        told[each.last_attempt_at.replace(minute=0, second=0, microsecond=0)].append(
                            each.last_attempt_at
                        )
            for moments in told.values():
                yield Event(
                    at=max(moments),
                    kind="webhook",
                    who="troth",
                    what=f"consent events to {destination.name}, acknowledged",
                    purpose_code=destination.purposes[0] if len(destination.purposes) == 1 else None,
                    count=len(moments),
                    evidence=f"destination {destination.destination_id}",
                )
    finally:
        outbox.close()


def _publications(home: Home, since: datetime, until: datetime) -> Iterator[Event]:
    """Versions of tables about people that were published and are still there; what is not about people is not told."""
    known = kept(home)
    about = {name.partition(".")[0] for name in known.declared} if known is not None else set()
    for path in sorted(home.published.glob("*/*.parquet")):
        at = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        if path.parent.name in about and since <= at < until:
            yield Event(
                at=at,
                kind="publication",
                who="troth",
                what=f"{path.parent.name} version {path.stem[:12]}",
                count=pl.scan_parquet(path).select(pl.len()).collect().item(),
                evidence=f"{path.parent.name}/{path.name}",
                evidence_sha256=path.stem,
            )


def _looks(home: Home, since: datetime, until: datetime) -> Iterator[Event]:
    """Who of the staff looked at whom; whom, the log itself says by a key."""
    for line in _lines(home, looks.FILE_NAME, looks.Look, since, until):
        reason = f" ({line.reason_code})" if line.reason_code and not line.allowed else ""
        yield Event(
            at=line.at,
            kind="look",
            who=line.staff,
            what=f"{line.act} on {line.page}{'' if line.allowed else ', refused'}{reason}",
            purpose_code=line.purpose_code,
            count=int(line.subject_key is not None),
            evidence=f"request {line.request_id}",
        )


def _reads(home: Home, since: datetime, until: datetime) -> Iterator[Event]:
    """What systems read of people: one line per hour, caller, service and purpose."""
    found: dict[tuple[datetime, str, str, str], list[read_log.PersonalRead]] = defaultdict(list)
    for line in _lines(home, read_log.FILE_NAME, read_log.PersonalRead, since, until):
        found[line.at.replace(minute=0, second=0, microsecond=0), line.caller, line.service, line.purpose_code].append(
            line
        )
    for (_, caller, service, purpose), lines in found.items():
        asked, allowed = sum(line.asked for line in lines), sum(line.allowed for line in lines)
        yield Event(
            at=max(line.at for line in lines),
            kind="read",
            who=caller,
            what=f"{service}: {len(lines)} requests about {asked}, {allowed} allowed",
            purpose_code=purpose,
            count=allowed,
            evidence=f"logs/{read_log.FILE_NAME}",
        )


def _requests(home: Home, since: datetime, until: datetime) -> Iterator[Event]:
    """What became of people's requests, and which recipients were told and answered."""
    if not (home.root / RIGHTS_FILE).exists():
        return
    with open_rights(home) as log:
        found = log.requests()
    for request in found:
        certificate = home.root / "rights" / request.request_id / "certificate.note"
        for act in request.acts:
            is_certified = act.state == "done" and certificate.exists()
            yield Event(
                at=act.at,
                kind="request",
                who=act.actor,
                what=f"{request.kind}: {act.state}{f', {act.reason}' if act.reason else ''}",
                count=1,
                evidence=f"{'certificate of ' if is_certified else ''}request {request.request_id}",
                evidence_sha256=file_hash(certificate) if is_certified else None,
            )
        for each in request.recipients:
            if each.acknowledged_at is not None:
                yield Event(
                    at=each.acknowledged_at,
                    kind="told",
                    who=each.recipient,
                    what=f"{request.kind}: acknowledged through {each.told_through}",
                    count=1,
                    evidence=f"request {request.request_id}",
                )


def _lines(home: Home, file_name: str, kind: type[_Line], since: datetime, until: datetime) -> Iterator[_Line]:
    """Lines of a log and of its files that were put aside. A line that a crash cut short is not one."""
    path = home.root / "logs" / file_name
    # A file that was written to last before `since` holds nothing later.
    for each in sorted([*path.parent.glob(f"{path.stem}-*.jsonl"), path]):
        if each.exists() and each.stat().st_mtime >= since.timestamp():
            yield from _of_file(each, kind, since, until)


def _of_file(path: Path, kind: type[_Line], since: datetime, until: datetime) -> Iterator[_Line]:
    decoder = msgspec.json.Decoder(kind)
    with path.open("rb") as file:
        for line in file:
            with suppress(msgspec.MsgspecError):
                found = decoder.decode(line)
                if since <= found.at < until:
                    yield found


_READINGS: Mapping[tuple[EventKind, ...], Reading] = {
    ("use", "export"): _uses,
    ("delivery", "recall", "approval"): _shared,
    ("webhook",): _webhooks,
    ("publication",): _publications,
    ("look",): _looks,
    ("read",): _reads,
    ("request", "told"): _requests,
}
