"""Witnesses: asking them for cosignatures, and being one (c2sp.org/tlog-witness).

A log that shows two people two histories needs a witness to say so: it cosigns a checkpoint only if it is a
continuation of the last one it saw. The small witness here is one for tests, and for whoever wants to watch a log.
"""

import http.client
import re
import socket
import sqlite3
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from consent.errors import ConsentError
from consent.log.merkle import EMPTY_ROOT, HASH_BYTES, VerificationError, verify_consistency
from consent.log.note import (
    ED25519,
    Checkpoint,
    Signer,
    Verifier,
    checkpoint_unverified,
    from_base64,
    open_note,
    signature_line,
    split_unverified,
    to_base64,
    with_signatures,
)
from consent.log.tlog_proof import TrustPolicy
from troth.clock import Clock
from troth.sqlite import write_ahead

if TYPE_CHECKING:
    from starlette.applications import Starlette

SIZE_TYPE = "text/x.tlog.size"
TEXT_TYPE = "text/plain; charset=utf-8"
MAXIMUM_PROOF_LINES = 63
MAXIMUM_REQUEST_BYTES = 2**18
MAXIMUM_ANSWER_BYTES = 2**16
MAXIMUM_SIZE = 2**63 - 1
_ATTEMPTS = 4
_WHOLE = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
_STATE = """
create table if not exists latest
    (origin text primary key, size integer not null, root blob not null, cosigned_at integer not null, note text not null)
    strict;
create table if not exists evidence
    (origin text not null, size integer not null, note text not null, held_note text not null,
    primary key (origin, size)) strict;
"""

# The consistency proof between two sizes of the log.
Prove = Callable[[int, int], Sequence[bytes]]


class WitnessError(ConsentError):
    """A witness could not be asked, would not sign, or answered something else than the protocol says."""


class SizeConflictError(WitnessError):
    """The witness holds another size than the proof starts from."""

    def __init__(self, size: int, expected: int) -> None:
        super().__init__(
            f"witness: expected to prove from size {expected}, found that it holds {size}. Prove from there."
        )
        self.size = size


@dataclass(frozen=True)
class Cosigned:
    """A checkpoint's note with the cosignatures it was given, and why others, by name, gave none."""

    note: str
    refusals: Mapping[str, str]


def cosign(note: str, policy: TrustPolicy, prove: Prove, timeout_seconds: float = 10) -> Cosigned:
    """Ask every witness of the policy that has an address, all at once. Whether it is enough, `policy.open` says."""

    def ask(name: str) -> list[str] | str:
        try:
            return ask_witness(policy.urls[name], policy.witnesses[name], note, prove, timeout_seconds)
        except (WitnessError, VerificationError) as error:
            return str(error)

    with ThreadPoolExecutor(max(1, len(policy.urls))) as pool:
        answers = dict(zip(policy.urls, pool.map(ask, policy.urls), strict=True))
    lines = [line for answer in answers.values() if isinstance(answer, list) for line in answer]
    return Cosigned(with_signatures(note, lines), {name: why for name, why in answers.items() if isinstance(why, str)})


def ask_witness(
    url: str, witness: Verifier, note: str, prove: Prove, timeout_seconds: float = 10, known_size: int = 0
) -> list[str]:
    """Signature lines by this witness under the note, checked. Asks again from the size the witness says it holds.

    `known_size`: what it is thought to hold; a right guess saves a round trip. Raises: WitnessError, VerificationError.
    """
    text = split_unverified(note)[0]
    checkpoint = checkpoint_unverified(text)
    for _ in range(_ATTEMPTS):
        try:
            proof = prove(known_size, checkpoint.size) if known_size else []
            lines = add_checkpoint(url, known_size, proof, note, timeout_seconds)
        except SizeConflictError as conflict:
            if conflict.size > checkpoint.size:
                raise WitnessError(
                    f"witness: expected a size up to {checkpoint.size}, found that it has seen {conflict.size}. "
                    "The checkpoint is old, or the log was rolled back."
                ) from None
            known_size = conflict.size
            continue
        mine = [line for line in lines if _signature(line)[:2] == (witness.name, witness.key_id)]
        times = [witness.verify(_signature(line)[2], text) for line in mine]
        if not times or not all(times):
            raise WitnessError(
                f"witness: expected a cosignature by {witness.name} with a time, found none. Leave it out."
            )
        return mine
    raise WitnessError(f"witness: expected an end to its conflicts, found {_ATTEMPTS}. Ask again later.")


def add_checkpoint(
    url: str, old_size: int, proof: Sequence[bytes], note: str, timeout_seconds: float = 10
) -> list[str]:
    """One `add-checkpoint` call: the signature lines of the answer, none of them checked yet.

    Raises: SizeConflictError with the size the witness holds; WitnessError for any other answer, or none in time.
    """
    lines = [f"old {old_size}", *map(to_base64, proof)]
    request = "\n".join(lines) + "\n\n" + note
    status, content_type, body = _post(url, request.encode(), timeout_seconds)
    if status == 409 and content_type == SIZE_TYPE and _WHOLE.fullmatch(body.removesuffix("\n")) and body[-1:] == "\n":
        raise SizeConflictError(int(body), old_size)
    if status != 200:
        means = {
            400: "Correct the request",
            403: "It does not know the log's key",
            404: "It does not know the log",
            409: "It has seen another tree of this size: keep both checkpoints as evidence",
            422: "The proof does not hold: the log has two histories, or the proof is for other sizes",
        }
        raise WitnessError(
            f"witness: expected cosignatures, found status {status}. {means.get(status, 'Ask again later')}."
        )
    answer = body.splitlines(keepends=True)
    try:
        _ = [_signature(line) for line in answer or [""]]
    except VerificationError as error:
        raise WitnessError(f"witness: {error}") from None
    return answer


def _signature(line: str) -> tuple[str, bytes, bytes]:
    """Key name, key id and signature of one signature line. Raises: VerificationError."""
    name, raw = split_unverified(f"text\n\n{line}")[1][0]
    return name, raw[:4], raw[4:]


def _post(url: str, body: bytes, timeout_seconds: float) -> tuple[int, str, str]:
    """Status, content type and body of the answer; no redirects; bounded in size, in time to connect and to answer."""
    connection, path = _connection(url, timeout_seconds)
    late = threading.Event()
    try:
        connection.connect()
        # The socket's timeout is one for each read; the timer ends an answer that drips.
        timer = threading.Timer(timeout_seconds, _hang_up, [connection.sock, late])
        timer.daemon = True
        timer.start()
        try:
            connection.request("POST", path, body, {"Content-Type": TEXT_TYPE, "Connection": "close"})
            response = connection.getresponse()
            answer = response.read(MAXIMUM_ANSWER_BYTES + 1)
        finally:
            timer.cancel()
        if late.is_set() or len(answer) > MAXIMUM_ANSWER_BYTES:
            raise WitnessError(
                f"witness: expected up to {MAXIMUM_ANSWER_BYTES} bytes within {timeout_seconds} s, found more. "
                "Ask again later."
            )
        return response.status, response.getheader("Content-Type", ""), answer.decode()
    except (OSError, http.client.HTTPException, UnicodeDecodeError) as error:
        raise WitnessError(
            f"witness: expected an answer within {timeout_seconds} s, found {type(error).__name__}. Ask again later."
        ) from None
    finally:
        connection.close()


def _connection(url: str, timeout_seconds: float) -> tuple[http.client.HTTPConnection, str]:
    kinds = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
    try:
        parts = urlsplit(url)
        host, port, connect = parts.hostname, parts.port, kinds[parts.scheme]
    except (ValueError, KeyError):
        host = None
    if not host or parts.query or parts.fragment:
        raise WitnessError("witness: expected an address like https://host/path, found another. Correct the policy.")
    return connect(host, port, timeout=timeout_seconds), parts.path.rstrip("/") + "/add-checkpoint"


def _hang_up(connected: socket.socket, late: threading.Event) -> None:
    late.set()
    with suppress(OSError):  # closed already
        connected.shutdown(socket.SHUT_RDWR)


@dataclass(frozen=True)
class Answer:
    """What a witness says to a request."""

    status: int
    body: str = field(repr=False)
    content_type: str = TEXT_TYPE


@dataclass(frozen=True)
class _Held:
    """The last checkpoint of a log the witness cosigned; before the first, the empty tree."""

    size: int = 0
    root: bytes = EMPTY_ROOT
    cosigned_at: int = 0
    note: str = ""


class Witness:
    """Cosigns checkpoints of the logs it knows, each a continuation of the one before. Safe for threads and processes.

    `logs`: origin to the keys that sign for it. `signers`: cosigner keys, used for nothing else. State is in SQLite:
    the check against the last checkpoint and the new one's place on the disk are one transaction, before any signature.
    """

    def __init__(
        self, path: Path, signers: Sequence[Signer], logs: Mapping[str, Collection[Verifier]], clock: Clock
    ) -> None:
        theirs = {key.public_key for keys in logs.values() for key in keys}
        if not signers or any(
            signer.verifier.signature_type == ED25519 or signer.verifier.public_key in theirs for signer in signers
        ):
            raise ValueError("witness: expected cosigner keys of its own, found none or a log's. Make a key for it.")
        self._signers = tuple(signers)
        self._logs = dict(logs)
        self._clock = clock
        self._lock = threading.Lock()
        self._state = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
        write_ahead(self._state)
        self._state.execute("pragma synchronous = full")
        self._state.executescript(_STATE)

    def close(self) -> None:
        self._state.close()

    def latest(self, origin: str) -> str | None:
        """The note of the last checkpoint cosigned for a log."""
        with self._lock:
            return self._held(origin).note or None

    def evidence(self, origin: str) -> list[tuple[str, str]]:
        """Pairs of notes in which the log signed two trees of one size; one pair for each size."""
        with self._lock:
            rows = self._state.execute("select note, held_note from evidence where origin = ? order by size", [origin])
            return [(note, held) for note, held in rows]

    def add_checkpoint(self, request: bytes) -> Answer:
        """The answer to the body of an `add-checkpoint` request."""
        try:
            old_size, proof, note, checkpoint = _parsed(request)
        except (VerificationError, UnicodeDecodeError):
            return Answer(400, "expected an old size line, up to 63 hashes, a blank line and a checkpoint\n")
        keys = self._logs.get(checkpoint.origin)
        if keys is None:
            return Answer(404, "unknown origin\n")
        try:
            open_note(note, keys)
        except VerificationError:
            return Answer(403, "no valid signature by a known key of this origin\n")
        if old_size > checkpoint.size:
            return Answer(400, "expected an old size up to the checkpoint's\n")
        with self._transaction():
            held = self._held(checkpoint.origin)
            refusal = _refusal(held, old_size, proof, checkpoint)
            if refusal is None:
                at = max(int(self._clock.now().timestamp()), held.cosigned_at)
                self._state.execute(
                    "insert or replace into latest values (?, ?, ?, ?, ?)",
                    [checkpoint.origin, checkpoint.size, checkpoint.root, at, note],
                )
            elif checkpoint.size == held.size and checkpoint.root != held.root:
                self._state.execute(
                    "insert or ignore into evidence values (?, ?, ?, ?)",
                    [checkpoint.origin, checkpoint.size, note, held.note],
                )
        if refusal is not None:
            return refusal
        return Answer(200, "".join(signature_line(checkpoint.text, signer, at) for signer in self._signers))

    def _held(self, origin: str) -> _Held:
        row = self._state.execute("select size, root, cosigned_at, note from latest where origin = ?", [origin])
        return _Held(*(row.fetchone() or ()))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """One at a time, among threads and among processes; on the disk when it ends."""
        with self._lock:
            self._state.execute("begin immediate")
            try:
                yield
                self._state.execute("commit")
            except BaseException:
                self._state.execute("rollback")
                raise


def witness_app(witness: Witness) -> "Starlette":
    """The witness's HTTP interface: `POST /add-checkpoint`."""
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    async def add_checkpoint_endpoint(request: Request) -> Response:
        answer = await run_in_threadpool(witness.add_checkpoint, await request.body())
        return Response(answer.body, answer.status, {"content-type": answer.content_type})

    routes = [Route("/add-checkpoint", add_checkpoint_endpoint, methods=["POST"])]
    return Starlette(routes=routes, max_body_size=MAXIMUM_REQUEST_BYTES)


def _refusal(held: _Held, old_size: int, proof: Sequence[bytes], checkpoint: Checkpoint) -> Answer | None:
    """Why the checkpoint does not continue the one held, in the order of the specification; None if it does."""
    if old_size != held.size:
        return Answer(409, f"{held.size}\n", SIZE_TYPE)
    if checkpoint.size == held.size and checkpoint.root != held.root:
        return Answer(409, "another tree of this size was cosigned\n")
    if held.size == 0 and not proof:
        return None
    try:
        verify_consistency(held.size, checkpoint.size, held.root, checkpoint.root, proof)
    except VerificationError:
        return Answer(422, "the consistency proof does not hold\n")
    return None


def _parsed(request: bytes) -> tuple[int, list[bytes], str, Checkpoint]:
    """Old size, proof, note and its checkpoint. Raises: VerificationError, UnicodeDecodeError."""
    head, _, note = request.decode().partition("\n\n")
    old, *lines = head.split("\n")
    proof = [hash_ for line in lines if (hash_ := from_base64(line)) is not None and len(hash_) == HASH_BYTES]
    checkpoint = checkpoint_unverified(split_unverified(note)[0])
    size = old.removeprefix("old ")
    fits = len(proof) == len(lines) <= MAXIMUM_PROOF_LINES and len(request) <= MAXIMUM_REQUEST_BYTES
    if not fits or size == old or not _WHOLE.fullmatch(size) or checkpoint.size > MAXIMUM_SIZE:
        raise VerificationError("request", "as c2sp.org/tlog-witness has it", "another shape", "Correct the request")
    return int(size), proof, note, checkpoint
