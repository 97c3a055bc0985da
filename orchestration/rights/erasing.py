"""Erasure of one person from a home: step by step, written down as it goes, to be taken up again after a kill at any instant.

What each place needs is done by the room it belongs to, or by `landed` and `tables`; here is the order, and the proof at the end.
"""

import fcntl
import json
import os
import secrets
import sqlite3
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import polars as pl
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from consent.rights import open_rights, sign_certificate
from orchestration import taking
from orchestration.catalog import contract_of, source_of
from orchestration.identities import TABLES as IDENTITY_TABLES
from orchestration.raw import made_table, write_table
from orchestration.rights import tables
from orchestration.rights.copies import erase_exports, exported_to, mend, other_tables
from orchestration.rights.held import BOOKS, KEPT, Held, held, outlives, personal_columns
from orchestration.rights.landed import Edit, rewrite
from orchestration.rights.logged import bring_in, erase_logged, search_logged
from orchestration.rights.suppression import marks_of
from orchestration.rights.traces import Traces, as_json, search
from serving.activation.recalling import recall_erased
from serving.rights.desk import FOLDER, NOTE
from serving.rights.persons import Person, RightsError, resolve
from serving.rights.work import Progress
from troth.clock import Clock, SystemClock
from troth.errors import TrothError
from troth.home import Home, write_atomically
from troth.ids import file_hash

PLAN, JOURNAL, FAULT = "plan.sealed", "journal.json", "fault.txt"
ANSWER_WITHIN = timedelta(days=30)  # recipients have as long as we have
Advance = Callable[[str, int, int], None]


class AloneError(RightsError):
    """Somebody else is erasing for the same request."""


@dataclass(frozen=True)
class Erased:
    """How an erasure ended, or what it would do. `places`: what happened there, with counts; `kept`: what stays, and why."""

    request_id: str | None
    is_dry_run: bool
    places: Mapping[str, Any]
    kept: Sequence[Mapping[str, Any]]
    recipients: Sequence[str]
    finds: int | None = None
    certificate: str | None = None


@dataclass(frozen=True)
class Plan:
    """Who is erased and what of them lies where: made once, sealed on disk until the end, and followed to the letter."""

    request_id: str
    at: datetime
    person: Person
    identifiers: tuple[str, ...]  # theirs alone: tokens and customer ids, as tables hold them
    texts: tuple[str, ...]  # and in every spelling
    plain: Mapping[str, tuple[str, ...]]
    others: tuple[str, ...]
    edits: Mapping[str, Edit]  # by source/day/name
    kept_rows: Mapping[str, int]

    @property
    def subjects(self) -> tuple[str, ...]:
        """Whom the ledger may know them by: the tokens proved to be theirs, then contacts that nobody else gave."""
        contacts = sorted({*self.identifiers} - {*self.person.customer_ids})
        return tuple(dict.fromkeys([*self.person.tokens, *contacts]))

    @property
    def traces(self) -> Traces:
        return Traces.of(self.texts, self.plain)


def erase(
    home: Home,
    clock: Clock,
    subjects: Sequence[str],
    *,
    request_id: str | None = None,
    actor: str = "privacy_desk",
    dry_run: bool = False,
    advance: Advance = lambda _stage, _done, _total: None,
) -> Erased:
    """Erase a person everywhere in the home and prove it; a dry run lists what would go and writes nothing.

    Name the person by what was proved to be theirs, or take up a request that is open. Killed, or stopped by a fault, it goes
    on where it was when it is called again. Raises: RightsError where something is left; then no certificate is written.
    """
    if dry_run:
        return _foreseen(home, subjects)
    with open_rights(home) as log:
        if request_id is None:
            request_id = log.receive(
                "erasure", resolve(home, subjects).tokens, clock.now(), "privacy_desk", actor
            ).request_id
        request = log.request(request_id)
        if request.state == "done":
            _forget(home.root / FOLDER / request_id)
            return _answer(home, request_id)
        if request.kind != "erasure":
            raise RightsError(f"request {request_id}: expected an erasure, found {request.kind}. Name another.")
        if request.state == "received":
            log.advance(request_id, "identity_checked", clock.now(), actor)
        log.advance(request_id, "in_progress", clock.now(), actor)
        subjects = log.subjects(request_id)
    with _alone(home, request_id) as folder:
        (folder / FAULT).unlink(missing_ok=True)
        plan = _opened(home, folder) or _planned(home, folder, request_id, subjects, clock.now())
        done = _journal(folder)
        for number, (name, step) in enumerate(STEPS):
            advance("erase", number, len(STEPS) + 1)
            if name not in done:
                done[name] = _stepped(name, step, home, clock, plan)
                write_atomically(folder / JOURNAL, json.dumps(done, indent=1).encode())
        advance("erase", len(STEPS), len(STEPS) + 1)
        _finish(home, clock, plan, done, actor)
    advance("erase", len(STEPS) + 1, len(STEPS) + 1)
    return _answer(home, request_id)


def erase_and_tell(home: Home, clock: Clock, request_id: str) -> None:
    """Erase for an open request while nobody waits for it: what stops it is kept beside its plan, for `progress`."""
    try:
        erase(home, clock, [], request_id=request_id)
    except AloneError:  # somebody else is at it, and tells
        pass
    except TrothError as fault:
        write_atomically(home.root / FOLDER / request_id / FAULT, str(fault).encode())
    except Exception as fault:  # of a library, whose words may name the person
        told = f"erasure {request_id}: expected to finish, found {type(fault).__name__}. Begin it again: it goes on from there."
        write_atomically(home.root / FOLDER / request_id / FAULT, told.encode())


def progress(home: Home, request_id: str) -> Progress | None:
    """How far the erasure of a request is; None where none was begun, or none is left to do."""
    folder = home.root / FOLDER / request_id
    is_running = folder.is_dir() and not _is_free(folder)
    if not (is_running or (folder / PLAN).exists() or (folder / FAULT).exists()):
        return None
    fault = None if is_running or not (folder / FAULT).exists() else (folder / FAULT).read_text(encoding="utf-8")
    return Progress(len(_journal(folder)), len(STEPS) + 1, is_running, fault)


@contextmanager
def _alone(home: Home, request_id: str) -> Iterator[Path]:
    """The folder of an erasure, for one at a time. Raises: AloneError where another process, or thread, is at it."""
    folder = home.root / FOLDER / request_id
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise AloneError(
            f"erasure {request_id}: expected nobody at it, found another process that is. Wait until it has ended."
        ) from None
    try:
        yield folder
    finally:
        os.close(descriptor)


def _is_free(folder: Path) -> bool:
    """Whether nobody is at an erasure. Whoever begins in the same instant is told to wait, and begins again."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def _stepped(name: str, step: "Step", home: Home, clock: Clock, plan: Plan) -> Any:
    try:
        return step(home, clock, plan)
    except (OSError, sqlite3.Error) as fault:
        raise RightsError(
            f"erasure {plan.request_id}, step {name}: expected to finish, found {type(fault).__name__}. "
            f"Mend it and run `troth privacy erase --request {plan.request_id}` again: it goes on from here."
        ) from fault


def _foreseen(home: Home, subjects: Sequence[str]) -> Erased:
    person = resolve(home, subjects)
    found = held(home, person)
    identifiers = _identifiers(person, found)
    places = {
        "raw": {table: rows.height for table, rows in found.rows.items()},
        "raw rows of nobody that carry an identifier": {table: rows.height for table, rows in found.loose.items()},
        "published": tables.count_published(home, identifiers, person.tokens),
        "warehouse": tables.count_warehouse(home, identifiers),
    }
    kept = [{"table": table, "rows": rows.height, "why": BOOKS} for table, rows in found.rows.items() if table in KEPT]
    recipients = exported_to(home, [*identifiers, *_spellings(found)])
    return Erased(None, True, places, [*kept, *_stays(person, found.others)], recipients)


def _planned(home: Home, folder: Path, request_id: str, subjects: Sequence[str], at: datetime) -> Plan:
    """What lies where, from raw and from the bytes of landed files; kept sealed until the end."""
    if brought := bring_in(home):
        ask_for_a_run(home, brought)
    person = resolve(home, subjects)
    found = held(home, person)
    identifiers = tuple(sorted(_identifiers(person, found)))
    plain = {name: tuple(sorted(values)) for name, values in found.plain.items()}
    texts = tuple(sorted({*identifiers, *_spellings(found)}))
    kept = {table: rows.height for table, rows in found.rows.items() if table in KEPT}
    edits = _edits(home, found, Traces.of(texts, plain))
    plan = Plan(request_id, at, person, identifiers, texts, plain, tuple(sorted(found.others)), edits, kept)
    _keep_sealed(home, folder, plan)
    return plan


def _identifiers(person: Person, found: Held) -> set[str]:
    return {*person.customer_ids, *found.spellings}


def _spellings(found: Held) -> set[str]:
    spelled = {value for values in found.spellings.values() for value in values}
    return spelled | {value for values in found.plain.values() for value in values}


def _edits(home: Home, found: Held, traces: Traces) -> dict[str, Edit]:
    """What has to go from which landed file: the person's records, and whatever else names them."""
    edits: dict[str, Edit] = {}
    alone = {spelled.strip() for spelled in _spellings(found)}
    for rows_of, is_theirs in ((found.rows, True), (found.loose, False)):
        for table, rows in rows_of.items():
            contract = contract_of(table)
            names = personal_columns(contract)
            for row in rows.select("source_file", "record_offset", *names).to_dicts():
                file, place = row.pop("source_file"), row.pop("record_offset")
                edit = edits.setdefault(f"{contract.source}/{file}", Edit())
                values = {str(value) for value in row.values() if value is not None}
                if outlives(source_of(home, contract.source), Path(file).name):
                    edit.stripped.setdefault(place, set()).update(values if is_theirs else values & alone)
                elif is_theirs or table not in KEPT:
                    edit.gone.add(place)
    for find in search(home, traces, [home.landing]):
        edits.setdefault(find.path.removeprefix("landing/"), Edit())
    aside = taking.quarantined(home)
    sources = pl.col("table").str.extract("^raw_([a-z]+)__")
    for source, file, place in aside.select(sources, "source_file", "record_offset").iter_rows():
        if f"{source}/{file}" in edits:
            edits[f"{source}/{file}"].aside.add(place)
    return edits


# The steps. Each may be done twice.

Step = Callable[[Home, Clock, Plan], Any]


def _remember(home: Home, _clock: Clock, plan: Plan) -> Any:
    with open_rights(home) as log:
        log.remember_erased(marks_of([*plan.person.tokens, *plan.identifiers], plan.plain), plan.at)
    return {"subjects": len(plan.person.tokens)}


def _erase_ledger(home: Home, clock: Clock, plan: Plan) -> Any:
    """Destroy the keys of every subject the ledger knows, each with its `erased` event; of the first in any case."""
    from consent.events import Event
    from consent.ledger.opening import open_ledger

    leaves = []
    with open_ledger(home, clock) as ledger:
        for number, token in enumerate(plan.subjects):
            known = ledger.events_of(token)
            if number and not ledger.leaves_of(token):
                continue
            erased = Event(
                subject_id=token, event_type="erased", purpose_code="*", channel_code="*",
                occurred_at=plan.at, recorded_at=plan.at, received_at=plan.at,
                notice_id=None, notice_version=None, language_code=None,
                capture_method="erasure", capture_place="privacy_desk", actor_type="system",
                jurisdiction_code=known[-1].event.jurisdiction_code if known else "*",
                signal_id=f"erasure:{plan.request_id}",
            )  # fmt: skip
            leaves.append(ledger.erase(erased))
        return {"leaves": leaves, "checkpoint": ledger.checkpoint()}


def _erase_vault(home: Home, _clock: Clock, plan: Plan) -> Any:
    from consent.vault import open_vault

    with open_vault(home) as vault:
        return {"contact_points": vault.erase(plan.identifiers)}


def _rewrite_landed(home: Home, _clock: Clock, plan: Plan) -> Any:
    paths = {name: home.landing / name for name in plan.edits}
    changed = [name for name, path in paths.items() if path.exists() and rewrite(path, plan.edits[name], plan.traces)]
    return {"files": len(changed)}


def _erase_logged(home: Home, clock: Clock, plan: Plan) -> Any:
    return erase_logged(home, plan.traces, clock.now())


def _read_again(home: Home, _clock: Clock, plan: Plan) -> Any:
    plans = reread(home, plan.edits)
    took = taking.take(home, plans, workers=1)
    return {"days": len(plans), "files": sum(took.files_of.values())}


def reread(home: Home, edited: Collection[str]) -> list[taking.DayPlan]:
    """Plans that read landed files (source/day/name) again whose bytes are no longer those that were taken."""
    import msgspec

    days: dict[tuple[str, str], set[str]] = {}
    for each in edited:
        source, day, name = each.split("/", 2)
        days.setdefault((source, day), set()).add(name)
    plans = []
    for (source, day), names in sorted(days.items()):
        record = home.taken / source / f"{day}.json"
        if not record.exists():
            continue
        read, keep = [], []
        for file in msgspec.json.decode(record.read_bytes(), type=taking.TakenDay).files:
            path = home.landing / source / day / file.path
            digest = file_hash(path) if file.path in names and path.exists() else file.sha256
            if digest == file.sha256:
                keep.append(file)
                continue
            state, first = path.stat(), file.duplicate_of
            if first is not None and file_hash(home.landing / source / first) != digest:
                first = None
            read.append(taking.TakenFile(file.path, digest, state.st_size, state.st_mtime_ns, duplicate_of=first))
        if read:
            plans.append(taking.DayPlan(source, day, tuple(read), tuple(keep)))
    return plans


def _rewrite_consents(home: Home, clock: Clock, _plan: Plan) -> Any:
    """The ledger's events where SQL reads them, as they can still be read."""
    from consent.ledger.opening import open_ledger
    from consent.rule.identity import joined_frame

    if not (home.raw / "consent_ledger").exists():
        return {"events": 0}
    with open_ledger(home, clock) as ledger:
        recorded = ledger.frame()
    for table, frame in (("consent_ledger", recorded), ("consent_links", joined_frame(recorded))):
        write_table(home, table, frame)
    return {"events": recorded.height}


def _erase_identities(home: Home, _clock: Clock, plan: Plan) -> Any:
    """Who the person was taken for, and what they were compared with."""
    made = {table: made_table(home, table) for table in IDENTITY_TABLES}
    return {table: tables.erase_file(path, plan.identifiers) for table, path in made.items() if path.exists()}


def _erase_published(home: Home, _clock: Clock, plan: Plan) -> Any:
    return tables.erase_published(home, plan.identifiers, plan.subjects)


def _erase_warehouse(home: Home, _clock: Clock, plan: Plan) -> Any:
    return tables.erase_warehouse(home, plan.identifiers, plan.subjects)


def _erase_features(home: Home, _clock: Clock, plan: Plan) -> Any:
    from feature_repo.store import online_store

    store = online_store(home.features)
    return {"rows": store.erase(None, plan.identifiers, int(plan.at.timestamp() * 1_000_000))}


def _erase_copies(home: Home, clock: Clock, plan: Plan) -> Any:
    """Exports, access packages and tables that belong to no room; and whoever was given them is written down to be told."""
    told = [(name, "privacy_desk") for name in exported_to(home, plan.texts)]
    outbox = home.root / "webhooks.db"
    if outbox.exists():
        connection = sqlite3.connect(f"{outbox.as_uri()}?mode=ro", uri=True)
        try:
            told += [(f"webhook:{name}", "webhook") for (name,) in connection.execute("select name from destinations")]
        finally:
            connection.close()
    with open_rights(home) as log:
        log.tell(plan.request_id, told, plan.at + ANSWER_WITHIN)
    recalled = recall_erased(home, plan.texts, clock.now())["recalled"]  # before nobody knows any more who was in what
    copies = erase_exports(home, clock, plan.request_id, plan.texts)
    return {**copies, "recalled": recalled, "other_tables": other_tables(home, plan.texts)}


def _next_run(home: Home, _clock: Clock, plan: Plan) -> Any:
    return {"days": ask_for_a_run(home, plan.edits)}


def ask_for_a_run(home: Home, edited: Collection[str]) -> int:
    """Have the next run make sums over many people, models and scores anew, from what there is now. How many days it judges."""
    from serving.operations.runs import UNFINISHED

    path = home.reports / UNFINISHED
    days = set(json.loads(path.read_bytes())) if path.exists() else set()
    days |= {name.split("/", 2)[1] for name in edited}
    write_atomically(path, json.dumps(sorted(days)).encode())
    return len(days)


STEPS: tuple[tuple[str, Step], ...] = (
    ("suppression", _remember),
    ("ledger", _erase_ledger),
    ("vault", _erase_vault),
    ("event log", _erase_logged),
    ("landed files", _rewrite_landed),
    ("raw and quarantine", _read_again),
    ("consent tables", _rewrite_consents),
    ("identity tables", _erase_identities),
    ("published versions", _erase_published),
    ("warehouse", _erase_warehouse),
    ("online features", _erase_features),
    ("exports and other copies", _erase_copies),
    ("next run", _next_run),
)


def _finish(home: Home, clock: Clock, plan: Plan, done: Mapping[str, Any], actor: str) -> None:
    """Search every byte; then the certificate, and nothing that names the person any more."""
    from consent.ledger.opening import ORIGIN
    from consent.log.note import Ed25519Signer

    folder = home.root / FOLDER / plan.request_id
    traces = plan.traces
    finds = [*search(home, traces), *search_logged(home, traces)]
    mended = mend(home, traces, finds)
    if mended:
        finds = [find for find in finds if find.path not in mended] + search(
            home, traces, [home.root / p for p in mended]
        )
    if finds:
        raise RightsError(
            f"erasure {plan.request_id}: expected no trace, found {len(finds)}: "
            f"{'; '.join(f'{find.path} ({find.place})' for find in finds[:5])}. "
            "Stop whatever writes there and erase again."
        )
    sealed = _sealed_leaves(home, clock, plan, done["ledger"]["leaves"])
    with open_rights(home) as log:
        recipients = [each.recipient for each in log.request(plan.request_id).recipients]
        kept = [{"table": table, "rows": rows, "why": BOOKS} for table, rows in plan.kept_rows.items()]
        content = {
            "format": "troth erasure certificate 1",
            "request_id": plan.request_id,
            "received_at": log.request(plan.request_id).received_at.isoformat(),
            "erased_at": plan.at.isoformat(),
            "certified_at": clock.now().isoformat(),
            "subject_keys": [_subject_key(token) for token in plan.subjects],
            "places": {name: done[name] for name, _ in STEPS},
            "kept": [*kept, *_stays(plan.person, plan.others)],
            "recipients": recipients,
            "search": {
                "files": sum(path.is_file() for path in home.root.rglob("*")),
                "identifiers": len(plan.texts),
                "finds": as_json(finds),
                "sealed_leaves": sealed,
            },
        }
        note = sign_certificate(content, Ed25519Signer(ORIGIN, home.key("ledger")))
        write_atomically(folder / NOTE, note.encode())
        log.advance(plan.request_id, "done", clock.now(), actor)
    _forget(folder)


def _sealed_leaves(home: Home, clock: Clock, plan: Plan, erased: Collection[int]) -> int:
    """How many leaves the ledger has of the person that no key opens; asked of its database, wherever that is.

    Raises: RightsError where one from before the erasure opens.
    """
    from consent.ledger.opening import open_ledger

    with open_ledger(home, clock) as ledger:
        known = [ledger.leaves_of(token) for token in plan.subjects]
        before = [leaf for leaves in known for leaf in leaves if leaf < max({*leaves} & {*erased}, default=0)]
        opened = sum(ledger.opened(leaf) is not None for leaf in before)
    if opened:
        raise RightsError(
            f"erasure {plan.request_id}: expected a ledger that opens nothing said before, found {opened} events it opens. "
            "A destroyed key was put back: find out who did, and erase again."
        )
    return len(before)


def _forget(folder: Path) -> None:
    """The plan named the person; nothing needs it any more."""
    for name in (PLAN, JOURNAL, FAULT):
        _overwrite(folder / name)


def _subject_key(token: str) -> str:
    from consent.log.entry import prefix_of

    return prefix_of(token).hex()


def _stays(person: Person, others: Collection[str]) -> list[dict[str, Any]]:
    from consent.ledger.opening import is_outside
    from troth.settings import given_log

    kept: list[dict[str, Any]] = [
        {
            "what": "the erased event of each subject, under a token",
            "why": "So that no old file brings the person back (GDPR 5(2), 17(3)(b)).",
        },
        {
            "what": "links of contacts that others gave, too, under a token",
            "why": "They are events of somebody else's contact, and say why it is silent: a no heard stays heard.",
        },
    ]
    if is_outside():
        kept.append(
            {
                "what": "what the PostgreSQL server keeps beside the ledger's tables",
                "why": "Its log, replicas and backups hold the destroyed keys for a while, wrapped: `troth privacy rotate-key` "
                "closes them. The search reads the home's files; the database was asked, and opens nothing.",
            }
        )
    if given_log():
        kept.append(
            {
                "what": "what the PostgreSQL server keeps beside the event log's tables",
                "why": "Its log, replicas and backups hold what was emptied for as long as they are kept. The tables were searched.",
            }
        )
    if others:
        kept.append(
            {
                "what": "identifiers that others gave as theirs, too",
                "count": len(others),
                "why": "They are in records of other people, which stay as they are.",
            }
        )
    unproved = [token for token in person.unproved if token in others]
    if unproved:
        kept.append(
            {
                "what": "contacts only seen beside the person",
                "count": len(unproved),
                "why": "Nobody proved that they are the same person's. Ask again with the identifier itself.",
            }
        )
    return kept


def _answer(home: Home, request_id: str) -> Erased:
    path = home.root / FOLDER / request_id / NOTE
    content = json.loads(path.read_text(encoding="utf-8").splitlines()[1])
    return Erased(
        request_id,
        False,
        content["places"],
        content["kept"],
        content["recipients"],
        len(content["search"]["finds"]),
        str(path),
    )


# The plan on disk: it names the person, so it is sealed, and overwritten at the end.


def _keep_sealed(home: Home, folder: Path, plan: Plan) -> None:
    told = {
        "at": plan.at.astimezone(UTC).isoformat(),
        "person": [plan.person.customer_ids, plan.person.tokens, plan.person.unproved],
        "identifiers": plan.identifiers, "texts": plan.texts, "plain": plan.plain, "others": plan.others, "kept_rows": plan.kept_rows,
        "edits": {
            name: [sorted(edit.gone), {str(place): sorted(values) for place, values in edit.stripped.items()}, sorted(edit.aside)]
            for name, edit in plan.edits.items()
        },
    }  # fmt: skip
    nonce = secrets.token_bytes(12)
    sealed = _cipher(home).encrypt(nonce, json.dumps(told).encode(), plan.request_id.encode())
    write_atomically(folder / PLAN, nonce + sealed)


def _opened(home: Home, folder: Path) -> Plan | None:
    path = folder / PLAN
    if not path.exists():
        return None
    data = path.read_bytes()
    told = json.loads(_cipher(home).decrypt(data[:12], data[12:], folder.name.encode()))
    edits = {
        name: Edit(set(gone), {int(place): set(values) for place, values in stripped.items()}, set(aside))
        for name, (gone, stripped, aside) in told["edits"].items()
    }
    return Plan(
        folder.name, datetime.fromisoformat(told["at"]), Person(*(tuple(each) for each in told["person"])),
        tuple(told["identifiers"]), tuple(told["texts"]), {name: tuple(each) for name, each in told["plain"].items()},
        tuple(told["others"]), edits, told["kept_rows"],
    )  # fmt: skip


def _cipher(home: Home) -> AESGCM:
    return AESGCM(sha256(b"troth-erasure-plan-v1\0" + home.key("rights")).digest())


def _journal(folder: Path) -> dict[str, Any]:
    path = folder / JOURNAL
    return json.loads(path.read_bytes()) if path.exists() else {}


def _overwrite(path: Path) -> None:
    if path.exists():
        with path.open("r+b") as file:
            file.write(bytes(path.stat().st_size))
            file.flush()
            os.fsync(file.fileno())
        path.unlink()


if __name__ == "__main__":
    erase_and_tell(Home(Path(sys.argv[1])), SystemClock(), sys.argv[2])
