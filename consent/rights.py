"""Requests of people about their own data: kinds, states, deadlines, and a log of who did what when. What is done, others do.

The log holds no contact data: a subject stands in it as the ledger's public key of it, and its tokens are sealed until the
request ends. It also remembers who was erased, as keyed hashes, so that an old file cannot bring them back.
"""

import calendar
import hmac
import json
import re
import secrets
import sqlite3
import threading
from base64 import b32encode
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from consent.errors import ConsentError
from consent.ledger.databases import one_writer
from consent.ledger.keyring import NONCE_BYTES
from consent.log.entry import prefix_of
from consent.log.merkle import VerificationError, canonical
from consent.log.note import Signer, Verifier, open_note, sign_note
from troth.home import Home
from troth.sqlite import write_ahead

FILE = "rights.db"
CERTIFICATE = "troth erasure certificate 1"
KINDS = ("access", "portability", "rectification", "erasure", "restriction", "objection")  # GDPR 15, 20, 16, 17, 18, 21
OPEN = ("received", "identity_checked", "in_progress", "routed")
# From each state, the ones that may follow. Nothing follows an end.
STATES: Mapping[str, tuple[str, ...]] = {
    "received": ("identity_checked", "refused", "routed"),
    "identity_checked": ("in_progress", "refused", "routed"),
    "in_progress": ("done", "refused", "routed"),
    "routed": ("in_progress", "done", "refused"),
    "done": (),
    "refused": (),
}
REFUSALS: Mapping[str, str] = {
    "identity_not_proved": "We could not make sure that it is you who asks (GDPR 12(6)).",
    "unfounded_or_excessive": "The request is manifestly unfounded or excessive (GDPR 12(5)).",
    "legal_duty": "A law obliges us to keep it (GDPR 17(3)(b)).",
    "legal_claims": "It is needed for legal claims (GDPR 17(3)(e)).",
    "not_held": "We hold nothing about you.",
}
EXTENDED = "extended"  # an act that changes the deadline, not the state
EXTENSIONS: Mapping[str, str] = {  # GDPR 12(3); the person is told within the first month
    "complexity": "Your request is complex: we need up to two more months to answer it (GDPR 12(3)).",
    "number_of_requests": "We have very many requests at the moment: we need up to two more months to answer yours (GDPR 12(3)).",
}
MONTHS, MORE_MONTHS = 1, 2
# Where a no is impossible, what we do instead. A person takes it from there.
ALTERNATIVES: Mapping[str, str] = {
    "contract": "Use for nothing but the contract: every other purpose is refused, and when the contract ends the data goes.",
    "legal_duty": "Kept without your name where the law lets us, and used for nothing but that duty.",
}
_CODE = re.compile(r"[A-Za-z0-9_.:-]{1,60}")
_SCHEMA = """
create table if not exists requests (
    request_id text primary key, kind text not null, subject_key text not null, subject_count integer not null,
    received_at text not null, received_through text not null, sealed blob
);
create table if not exists acts (
    act_id integer primary key autoincrement, request_id text not null references requests (request_id),
    at text not null, actor text not null, state text not null, reason text
);
create table if not exists recipients (
    request_id text not null references requests (request_id), recipient text not null, told_through text not null,
    due_at text not null, acknowledged_at text, primary key (request_id, recipient)
);
create table if not exists erased (mark blob primary key, erased_at text not null) without rowid;
create trigger if not exists acts_stay before update on acts begin select raise(abort, 'acts are never changed'); end;
create trigger if not exists acts_remain before delete on acts begin select raise(abort, 'acts are never removed'); end;
"""


@dataclass(frozen=True)
class Act:
    """One step of a request: who brought it into which state when, and why."""

    at: datetime
    actor: str
    state: str
    reason: str | None


@dataclass(frozen=True)
class Recipient:
    """Somebody who was given the person's data, and has to be told. `state`: pending, overdue or acknowledged."""

    recipient: str
    told_through: str
    due_at: datetime
    acknowledged_at: datetime | None

    def state(self, now: datetime) -> str:
        if self.acknowledged_at is not None:
            return "acknowledged"
        return "overdue" if now > self.due_at else "pending"


@dataclass(frozen=True)
class Request:
    """A request as it stands."""

    request_id: str
    kind: str
    subject_key: str
    received_at: datetime
    received_through: str
    deadline: datetime
    acts: tuple[Act, ...]
    recipients: tuple[Recipient, ...]

    @property
    def state(self) -> str:
        return next(act.state for act in reversed(self.acts) if act.state != EXTENDED)

    def is_overdue(self, now: datetime) -> bool:
        """Whether it should have been answered by now."""
        return self.state in OPEN and now > self.deadline


class RightsLog:
    """The requests of one home, in a SQLite file."""

    def __init__(self, path: Path, key: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._seal = AESGCM(sha256(b"troth-rights-seal-v1\0" + key).digest())
        self._marking = sha256(b"troth-rights-erased-v1\0" + key).digest()
        self._lock = threading.RLock()
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
        try:
            write_ahead(self._connection)
            for pragma in ("synchronous = full", "secure_delete = on", "foreign_keys = on"):
                self._connection.execute(f"pragma {pragma}")
            self._connection.executescript(_SCHEMA)
        except sqlite3.DatabaseError as fault:
            self._connection.close()
            raise ConsentError(
                f"rights log {path.name}: expected a SQLite database, found {fault}. Restore it."
            ) from fault

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def receive(self, kind: str, subjects: Sequence[str], at: datetime, through: str, actor: str) -> Request:
        """Take a request in. One of the same kind and subject that is still open is answered with itself.

        `subjects`: tokens, the one the person came with first. Raises: ConsentError for an unknown kind or no subject.
        """
        if kind not in KINDS or not subjects:
            raise ConsentError(
                f"request: expected a subject and one of {', '.join(KINDS)}, found otherwise. Name them."
            )
        _refuse_words(through, actor)
        subject_key = prefix_of(subjects[0]).hex()
        with self._writing():
            query = "select request_id from requests where kind = ? and subject_key = ? order by received_at desc"
            for (held,) in self._connection.execute(query, (kind, subject_key)).fetchall():
                if (request := self.request(held)).state in OPEN:
                    return request
            request_id = f"req_{b32encode(secrets.token_bytes(10)).decode().lower()}"
            nonce = secrets.token_bytes(NONCE_BYTES)
            sealed = nonce + self._seal.encrypt(nonce, json.dumps(list(subjects)).encode(), request_id.encode())
            self._connection.execute(
                "insert into requests values (?, ?, ?, ?, ?, ?, ?)",
                (request_id, kind, subject_key, len(subjects), _spelled(at), through, sealed),
            )
            self._act(request_id, at, actor, "received", None)
        return self.request(request_id)

    def advance(self, request_id: str, state: str, at: datetime, actor: str, reason: str | None = None) -> Request:
        """Bring a request into its next state. To be in a state already is no fault; `refused` and `routed` give a reason.

        Raises: ConsentError for a step that does not follow, or a reason that is not one of those there are.
        """
        _refuse_words(actor)
        known = {"refused": REFUSALS, "routed": ALTERNATIVES}.get(state)
        if known is not None and reason not in known:
            raise ConsentError(f"{state}: expected a reason of {', '.join(known)}, found none of them. Name one.")
        with self._writing():
            request = self.request(request_id)
            if request.state != state:
                if state not in STATES[request.state]:
                    expected = ", ".join(STATES[request.state]) or "nothing, for it has ended"
                    raise ConsentError(
                        f"request {request_id}, {request.state}: expected next {expected}, found {state}. Take the steps in order."
                    )
                self._act(request_id, at, actor, state, reason)
                if not STATES[state]:
                    self._connection.execute("update requests set sealed = null where request_id = ?", (request_id,))
        if not STATES[state]:
            self._connection.execute("pragma wal_checkpoint(truncate)")
        return self.request(request_id)

    def extend(self, request_id: str, reason: str, at: datetime, actor: str) -> Request:
        """Take two more months, once, before the first month is over. Raises: ConsentError where the law does not let us."""
        _refuse_words(actor)
        with self._writing():
            request = self.request(request_id)
            is_late = request.is_overdue(at) or request.state not in OPEN
            if reason not in EXTENSIONS or is_late or any(act.state == EXTENDED for act in request.acts):
                raise ConsentError(
                    f"extension of {request_id}: expected one, in time, for {' or '.join(EXTENSIONS)}, found otherwise. "
                    "Answer it, or refuse it with a reason."
                )
            self._act(request_id, at, actor, EXTENDED, reason)
        return self.request(request_id)

    def request(self, request_id: str) -> Request:
        """Raises: ConsentError for one that nobody made."""
        with self._lock:
            row = self._connection.execute(
                "select kind, subject_key, received_at, received_through from requests where request_id = ?",
                (request_id,),
            ).fetchone()
            if row is None:
                raise ConsentError(
                    "request: expected a known number (req_...), found another. See `troth privacy requests`."
                )
            query = "select at, actor, state, reason from acts where request_id = ? order by act_id"
            told = [Act(_instant(at), *rest) for at, *rest in self._connection.execute(query, (request_id,))]
            query = "select recipient, told_through, due_at, acknowledged_at from recipients where request_id = ? order by recipient"
            recipients = tuple(
                Recipient(name, through, _instant(due), _instant(done) if done else None)
                for name, through, due, done in self._connection.execute(query, (request_id,))
            )
        received = _instant(row[2])
        months = MONTHS + (MORE_MONTHS if any(act.state == EXTENDED for act in told) else 0)
        due = after_months(received, months)
        return Request(request_id, row[0], row[1], received, row[3], due, tuple(told), recipients)

    def requests(self) -> list[Request]:
        """Every request, oldest first."""
        with self._lock:
            found = self._connection.execute(
                "select request_id from requests order by received_at, request_id"
            ).fetchall()
        return [self.request(request_id) for (request_id,) in found]

    def subjects(self, request_id: str) -> list[str]:
        """Whom a request is about. Raises: ConsentError once it has ended: nobody needs to know any more."""
        with self._lock:
            row = self._connection.execute("select sealed from requests where request_id = ?", (request_id,)).fetchone()
        if row is None or row[0] is None:
            raise ConsentError(
                f"request {request_id}: expected an open one, found it ended or unknown. Take it in again."
            )
        try:
            told = self._seal.decrypt(row[0][:NONCE_BYTES], row[0][NONCE_BYTES:], request_id.encode())
        except InvalidTag:
            raise ConsentError(
                "rights log: expected it sealed under this home's key, found another. Restore both."
            ) from None
        subjects: list[str] = json.loads(told)
        return subjects

    def tell(self, request_id: str, recipients: Iterable[tuple[str, str]], due_at: datetime) -> None:
        """Write down who has to be told (name, through what) until when. Those written down already stay as they are."""
        with self._writing():
            self._connection.executemany(
                "insert or ignore into recipients values (?, ?, ?, ?, null)",
                [(request_id, name, through, _spelled(due_at)) for name, through in recipients],
            )

    def acknowledge(self, request_id: str, recipient: str, at: datetime) -> Request:
        """A recipient said that it has done its part. Raises: ConsentError for one that was never told."""
        with self._writing():
            done = self._connection.execute(
                "update recipients set acknowledged_at = coalesce(acknowledged_at, ?) where request_id = ? and recipient = ?",
                (_spelled(at), request_id, recipient),
            ).rowcount
        if not done:
            raise ConsentError(
                f"request {request_id}: expected a recipient that was told, found another. See its list."
            )
        return self.request(request_id)

    def remember_erased(self, tokens: Iterable[str], at: datetime) -> None:
        """What these subjects did until then stays out from now on, whichever file brings it."""
        with self._writing():
            self._connection.executemany(
                "insert into erased values (?, ?) on conflict (mark) do update set erased_at = max(erased_at, excluded.erased_at)",
                [(self._mark(token), _spelled(at)) for token in tokens],
            )

    def erased(self, tokens: Iterable[str]) -> dict[str, datetime]:
        """Those of the subjects who were erased, and when."""
        with self._lock:
            marks = {mark: _instant(at) for mark, at in self._connection.execute("select mark, erased_at from erased")}
        return {token: marks[mark] for token in tokens if (mark := self._mark(token)) in marks} if marks else {}

    @property
    def has_erased(self) -> bool:
        """Whether anybody was ever erased."""
        with self._lock:
            return self._connection.execute("select 1 from erased limit 1").fetchone() is not None

    def _mark(self, token: str) -> bytes:
        return hmac.digest(self._marking, token.encode(), "sha256")[:16]

    def _act(self, request_id: str, at: datetime, actor: str, state: str, reason: str | None) -> None:
        self._connection.execute(
            "insert into acts (request_id, at, actor, state, reason) values (?, ?, ?, ?, ?)",
            (request_id, _spelled(at), actor, state, reason),
        )

    def _writing(self) -> AbstractContextManager[None]:
        return one_writer(self._connection, self._lock)


def open_rights(home: Home) -> RightsLog:
    """The home's log of requests."""
    return RightsLog(home.root / FILE, home.key("rights"))


def after_months(at: datetime, months: int) -> datetime:
    """The same day some months later, or the last of that month where it has no such day (Regulation 1182/71, 3(2)(c))."""
    year, month = at.year + (at.month - 1 + months) // 12, (at.month - 1 + months) % 12 + 1
    return at.replace(year=year, month=month, day=min(at.day, calendar.monthrange(year, month)[1]))


def sign_certificate(content: Mapping[str, Any], signer: Signer) -> str:
    """A certificate of erasure as a signed note: its format, and what it says in canonical JSON, a line each."""
    return sign_note(f"{CERTIFICATE}\n{canonical(dict(content)).decode()}\n", signer)


def open_certificate(note: str, verifier: Verifier) -> dict[str, Any]:
    """What a certificate says, its signature checked. Raises: VerificationError."""
    first, _, rest = open_note(note, [verifier]).text.partition("\n")
    if first != CERTIFICATE:
        raise VerificationError("certificate", CERTIFICATE, "another format", "Give the file that the erasure wrote")
    content: dict[str, Any] = json.loads(rest)
    return content


def _refuse_words(*codes: str) -> None:
    if not all(_CODE.fullmatch(code) for code in codes):
        raise ConsentError(
            "rights log: expected codes of letters, digits and _ . : - alone, found something else. "
            "Name roles and places, not people: the log holds no contact data."
        )


def _spelled(at: datetime) -> str:
    if at.tzinfo is None:
        raise ConsentError("rights log: expected a time with a zone, found one without. Hand in an aware time.")
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text)
