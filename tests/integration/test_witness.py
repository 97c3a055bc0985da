"""A log asks witnesses on loopback to cosign; they sign one growing history and nothing else, whatever happens."""

import hashlib
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path

import httpx
import pytest

from consent.log.merkle import EMPTY_ROOT, VerificationError, consistency_proof, tree_root
from consent.log.note import (
    COSIGNATURE,
    Checkpoint,
    Ed25519Signer,
    MLDSA44Signer,
    Signer,
    open_note,
    sign_note,
    signature_line,
    split_unverified,
    to_base64,
)
from consent.log.tlog_proof import TrustPolicy, prove, verify_proof
from consent.log.witness import (
    MAXIMUM_REQUEST_BYTES,
    SizeConflictError,
    Witness,
    WitnessError,
    add_checkpoint,
    ask_witness,
    cosign,
)
from tests.integration.witnesses import LOOPBACK, served
from tests.unit.consent import signed_note
from tests.unit.consent.test_tlog_proof import tree
from troth.clock import FixedClock

MONDAY = datetime(2025, 3, 3, 10, tzinfo=UTC)
PIER = Ed25519Signer("pier.example/ledger", b"p" * 32)
ORIGIN = PIER.verifier.name
GULL = Ed25519Signer("gull.example/witness", b"g" * 32, COSIGNATURE)
TERN = Ed25519Signer("tern.example/witness", b"t" * 32, COSIGNATURE)
HERON = MLDSA44Signer("heron.example/witness", b"h" * 32)
ENTRIES = [hashlib.sha512(b"%d" % n).digest() for n in range(40)]
TREE = tree(ENTRIES)
FORK = tree([b"fork", *ENTRIES[1:]])
STATE = ("state " + to_base64(b"s" * 32),)


def note_at(size: int, node: Callable[[int, int], bytes] = TREE, signer: Signer = PIER) -> str:
    return sign_note(Checkpoint(ORIGIN, size, tree_root(size, node), STATE).text, signer)


def proof(old: int, new: int) -> list[bytes]:
    return consistency_proof(old, new, TREE)


def request(old: int, note: str, hashes: list[bytes] | None = None) -> bytes:
    return ("\n".join([f"old {old}", *map(to_base64, hashes or [])]) + "\n\n" + note).encode()


def open_witness(folder: Path, *signers: Signer, clock: FixedClock | None = None) -> Witness:
    return Witness(folder / "witness.db", signers or (GULL,), {ORIGIN: [PIER.verifier]}, clock or FixedClock(MONDAY))


@pytest.fixture
def witness(tmp_path: Path) -> Iterator[Witness]:
    opened = open_witness(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def url(witness: Witness) -> Iterator[str]:
    with served(witness) as address:
        yield address


@contextmanager
def answering(*answers: bytes) -> Iterator[str]:
    """Something that listens and answers with these bytes, one after the other, the last one for ever."""
    numbers = count()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.wfile.write(answers[min(next(numbers), len(answers) - 1)])

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer((LOOPBACK, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://{LOOPBACK}:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def http(status: str, body: str = "", content_type: str = "text/plain") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body.encode())}\r\n\r\n{body}".encode()


def test_a_growing_log_is_cosigned_by_every_witness_and_its_receipts_say_so(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("gull", "heron")]
    for folder in folders:
        folder.mkdir()
    gull, heron = open_witness(folders[0], GULL, TERN), open_witness(folders[1], HERON)
    with served(gull) as first, served(heron) as second:
        policy = TrustPolicy.parse(
            f"log {PIER.verifier.text}\nwitness gull {GULL.verifier.text} {first}/\n"
            f"witness tern {TERN.verifier.text} {first}\nwitness heron {HERON.verifier.text} {second}\n"
            "group all all gull tern heron\nquorum all\n"
        )
        for size in (0, 1, 7, 8, 40):
            cosigned = cosign(note_at(size), policy, proof)
            assert cosigned.refusals == {}
            checkpoint, _ = policy.open(cosigned.note)
            assert (checkpoint.size, checkpoint.state_root) == (size, b"s" * 32)
    gull.close()
    heron.close()
    verified = verify_proof(prove(17, TREE, cosigned.note).text, ENTRIES[17], PIER.verifier, policy)
    assert {signature.at for signature in verified.note.signatures} == {None, int(MONDAY.timestamp())}
    keys = [signer.verifier.text.encode() for signer in (PIER, GULL, TERN, HERON)]
    assert signed_note.verify(cosigned.note.encode(), keys)[1].keys() == set(keys)


def test_the_answer_is_a_cosignature_a_second_implementation_verifies(witness: Witness) -> None:
    note = note_at(5)
    answer = witness.add_checkpoint(request(0, note))
    assert answer.status == 200
    key = GULL.verifier.text.encode()
    assert signed_note.verify((note + answer.body).encode(), [key])[1] == {key: int(MONDAY.timestamp())}
    assert witness.latest(ORIGIN) == note


def test_a_client_that_knows_no_size_is_told_it_and_proves_from_there(witness: Witness, url: str) -> None:
    for size in (5, 9):
        ask_witness(url, GULL.verifier, note_at(size), proof)
    with pytest.raises(SizeConflictError) as conflict:
        add_checkpoint(url, 0, [], note_at(12))
    assert conflict.value.size == 9
    asked: list[tuple[int, int]] = []

    def prove_and_note(old: int, new: int) -> list[bytes]:
        asked.append((old, new))
        return proof(old, new)

    assert ask_witness(url, GULL.verifier, note_at(12), prove_and_note)
    assert ask_witness(url, GULL.verifier, note_at(13), prove_and_note, known_size=12)
    assert asked == [(9, 12), (12, 13)]


def test_the_same_checkpoint_is_cosigned_again_at_the_time_it_is_asked(tmp_path: Path) -> None:
    clock = FixedClock(MONDAY)
    witness = open_witness(tmp_path, clock=clock)
    first = witness.add_checkpoint(request(0, note_at(5)))
    clock.at += timedelta(hours=1)
    second = witness.add_checkpoint(request(5, note_at(5)))
    clock.at -= timedelta(days=1)
    third = witness.add_checkpoint(request(5, note_at(5)))
    witness.close()
    times = [open_note(note_at(5) + answer.body, [GULL.verifier]).signatures[0].at for answer in (first, second, third)]
    assert times == [int(MONDAY.timestamp()) + seconds for seconds in (0, 3600, 3600)]


def test_two_trees_of_one_size_are_refused_and_kept_as_evidence(witness: Witness, url: str) -> None:
    ask_witness(url, GULL.verifier, note_at(8), proof)
    with pytest.raises(WitnessError, match="another tree of this size"):
        ask_witness(url, GULL.verifier, note_at(8, FORK), lambda old, new: consistency_proof(old, new, FORK))
    assert witness.latest(ORIGIN) == note_at(8)
    assert witness.evidence(ORIGIN) == [(note_at(8, FORK), note_at(8))]


def test_a_split_view_that_has_grown_is_refused(witness: Witness, url: str) -> None:
    ask_witness(url, GULL.verifier, note_at(8), proof)
    with pytest.raises(WitnessError, match="two histories"):
        ask_witness(url, GULL.verifier, note_at(12, FORK), lambda old, new: consistency_proof(old, new, FORK))
    assert witness.latest(ORIGIN) == note_at(8)


def test_a_rolled_back_log_is_refused_and_the_client_says_what_the_witness_has_seen(witness: Witness, url: str) -> None:
    ask_witness(url, GULL.verifier, note_at(20), proof)
    with pytest.raises(WitnessError, match="it has seen 20"):
        ask_witness(url, GULL.verifier, note_at(19), proof)
    assert witness.add_checkpoint(request(20, note_at(19))).status == 400
    assert witness.add_checkpoint(request(19, note_at(19))).status == 409
    assert witness.latest(ORIGIN) == note_at(20)


HELD = note_at(8)
REFUSED: dict[str, tuple[int, bytes]] = {
    "another origin": (404, request(8, sign_note(Checkpoint("quay.example/ledger", 9, b"r" * 32).text, PIER))),
    "another key of the same name": (403, request(8, note_at(9, signer=Ed25519Signer(ORIGIN, b"x" * 32)))),
    "a signature that fails": (403, request(8, note_at(9).replace("state c3", "state d3"), proof(8, 9))),
    "one valid and one failing line": (
        403,
        request(8, note_at(9) + signature_line("another text\n", PIER), proof(8, 9)),
    ),
    "no proof": (422, request(8, note_at(9))),
    "a proof for other sizes": (422, request(8, note_at(9), proof(7, 9))),
    "a proof that goes on": (422, request(8, note_at(9), [*proof(8, 9), b"h" * 32])),
    "a proof for the same size": (422, request(8, HELD, [b"h" * 32])),
    "the size before the last": (409, request(7, note_at(9), proof(7, 9))),
    "a size nobody asked for": (400, request(10, note_at(9))),
    "a tree said to be empty": (409, request(0, note_at(0))),
    "nothing": (400, b""),
    "no note": (400, b"old 8\n\n"),
    "no old line": (400, note_at(9).encode()),
    "a size with a leading zero": (400, request(8, note_at(9)).replace(b"old 8", b"old 08")),
    "a size that is no number": (400, request(8, note_at(9)).replace(b"old 8", b"old eight")),
    "a hash that is cut": (400, request(8, note_at(9), [b"h" * 31])),
    "a line that is no base64": (400, request(8, note_at(9)).replace(b"old 8\n", b"old 8\n?\n")),
    "too long a proof": (400, request(8, note_at(9), [b"h" * 32] * 64)),
    "no UTF-8": (400, b"\xff" + request(8, note_at(9))),
    "a note that is no checkpoint": (400, request(8, sign_note("any text\n", PIER))),
    "a size beyond 63 bits": (400, request(8, sign_note(Checkpoint(ORIGIN, 2**63, b"r" * 32).text, PIER))),
    "too large a request": (413, request(8, "x" * MAXIMUM_REQUEST_BYTES)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_refused_with_the_specified_status_and_changes_nothing(witness: Witness, name: str) -> None:
    status, body = REFUSED[name]
    assert witness.add_checkpoint(request(0, HELD)).status == 200
    answer = witness.add_checkpoint(body)
    assert answer.status == (status if status != 413 else 400)
    assert "—" not in answer.body
    if name == "the size before the last":
        assert (answer.body, answer.content_type) == ("8\n", "text/x.tlog.size")
    assert witness.latest(ORIGIN) == HELD
    assert witness.evidence(ORIGIN) == []


def test_the_statuses_travel_over_http(witness: Witness, url: str) -> None:
    witness.add_checkpoint(request(0, HELD))
    for status, body in REFUSED.values():
        assert httpx.post(f"{url}/add-checkpoint", content=body).status_code == status
    stale = httpx.post(f"{url}/add-checkpoint", content=request(0, note_at(9)))
    assert (stale.status_code, stale.text, stale.headers["content-type"]) == (409, "8\n", "text/x.tlog.size")
    chunked = httpx.post(f"{url}/add-checkpoint", content=iter([b"x" * MAXIMUM_REQUEST_BYTES] * 2))
    assert chunked.status_code == 413
    assert httpx.get(f"{url}/add-checkpoint").status_code == 405
    assert witness.latest(ORIGIN) == HELD


def test_the_first_checkpoint_of_an_empty_log_has_the_root_of_nothing(witness: Witness) -> None:
    odd = sign_note(Checkpoint(ORIGIN, 0, b"r" * 32).text, PIER)
    assert witness.add_checkpoint(request(0, odd)).status == 409
    assert witness.add_checkpoint(request(0, note_at(0))).status == 200
    assert tree_root(0, TREE) == EMPTY_ROOT
    assert witness.add_checkpoint(request(0, note_at(3), [b"h" * 32])).status == 422
    assert witness.add_checkpoint(request(0, note_at(3))).status == 200


def test_the_example_request_of_the_specification_is_read(witness: Witness) -> None:
    example = (
        "old 20852014\nPlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=\njrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=\n"
        "5+pKlUdi2LeF/BcMHBn+Ku6yhPGNCswZZD1X/6QgPd8=\n/6WVhPs2CwSsb5rYBH5cjHV/wSmA79abXAwhXw3Kj/0=\n\n"
        "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n"
        "— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
        "— example.com/behind-the-sofa opLqBQsREYCgu6xQkYQwJr9fo45a62DN9EdmHXnZdXNqlcVGlCum2Wks+49/V6267UEjw6QUXTS5Rovnzv++qbSzm9Q=\n"
    )
    assert witness.add_checkpoint(example.encode()).status == 404  # read, of a log this one does not know
    assert witness.add_checkpoint(example.replace("old 2", "old 02").encode()).status == 400


@pytest.mark.parametrize("signers", [[], [PIER], [Ed25519Signer("x", b"p" * 32, COSIGNATURE)], [GULL, PIER]])
def test_a_witness_needs_cosigner_keys_that_no_log_uses(tmp_path: Path, signers: list[Signer]) -> None:
    with pytest.raises(ValueError, match="cosigner keys of its own"):
        Witness(tmp_path / "witness.db", signers, {ORIGIN: [PIER.verifier]}, FixedClock(MONDAY))


class TickingClock:
    """A second later each time it is asked."""

    def __init__(self) -> None:
        self._seconds = count()

    def now(self) -> datetime:
        return MONDAY + timedelta(seconds=next(self._seconds))


@pytest.mark.parametrize("first", [6, 9])
def test_of_two_checkpoints_at_once_one_is_told_the_size_of_the_other(witness: Witness, first: int) -> None:
    witness.add_checkpoint(request(0, note_at(4)))
    barrier = threading.Barrier(2)
    answers: dict[int, tuple[int, str]] = {}

    def submit(size: int) -> None:
        body = request(4, note_at(size), proof(4, size))
        barrier.wait()
        answer = witness.add_checkpoint(body)
        answers[size] = (answer.status, answer.body)

    threads = [threading.Thread(target=submit, args=(size,)) for size in (first, 15 - first)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    won = next(size for size, (status, _) in answers.items() if status == 200)
    assert answers[15 - won] == (409, f"{won}\n")
    assert witness.latest(ORIGIN) == note_at(won)


def test_many_submitters_never_roll_the_witness_back(tmp_path: Path) -> None:
    """Two witnesses on one state, as two processes would be, and what they sign never shrinks as time goes on."""
    clock = TickingClock()
    open_one = [Witness(tmp_path / "witness.db", [GULL], {ORIGIN: [PIER.verifier]}, clock) for _ in range(2)]
    signed: list[tuple[int, int]] = []

    def submit(start: int) -> None:
        for size in range(start, 41, 4):
            old = 0
            for _ in range(20):
                answer = open_one[start % 2].add_checkpoint(
                    request(old, note_at(size), proof(old, size) if old else [])
                )
                if answer.status == 200:
                    at = open_note(note_at(size) + answer.body, [GULL.verifier]).signatures[0].at
                    assert at is not None
                    signed.append((at, size))
                    break
                old = int(answer.body) if answer.content_type == "text/x.tlog.size" else 0
                if old > size:
                    break

    threads = [threading.Thread(target=submit, args=(start,)) for start in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert signed
    sizes = [size for _, size in sorted(signed)]
    assert sizes == sorted(sizes)
    assert open_one[0].latest(ORIGIN) == open_one[1].latest(ORIGIN) == note_at(sizes[-1])
    for witness in open_one:
        witness.close()


KILLED = """
import os, signal, sys
from pathlib import Path
from consent.log.note import COSIGNATURE, Ed25519Signer, Verifier
from consent.log.witness import Witness
from troth.clock import SystemClock

class Dying:
    '''The power goes when the first signature is asked for.'''
    verifier = Ed25519Signer("gull.example/witness", b"g" * 32, COSIGNATURE).verifier
    def sign(self, message):
        os.kill(os.getpid(), signal.SIGKILL)

key = Verifier.parse(sys.argv[2])
witness = Witness(Path(sys.argv[1]), [Dying()], {key.name: [key]}, SystemClock())
witness.add_checkpoint(sys.stdin.buffer.read())
"""


def test_a_witness_killed_between_its_record_and_its_answer_keeps_the_record(tmp_path: Path) -> None:
    witness = open_witness(tmp_path)
    witness.add_checkpoint(request(0, note_at(8)))
    witness.close()
    run = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "witness.db"), PIER.verifier.text],
        input=request(8, note_at(12), proof(8, 12)),
        check=False,
        cwd=Path.cwd(),
        timeout=60,
    )
    assert run.returncode == -signal.SIGKILL
    witness = open_witness(tmp_path)
    assert witness.latest(ORIGIN) == note_at(12)
    fork = consistency_proof(8, 12, FORK)
    assert witness.add_checkpoint(request(8, note_at(12, FORK), fork)).status == 409
    assert witness.add_checkpoint(request(12, note_at(12, FORK))).status == 409
    with served(witness) as address:
        assert ask_witness(address, GULL.verifier, note_at(12), proof, known_size=8)
    witness.close()


LINE = signature_line(split_unverified(note_at(9))[0], GULL, 1741000000)
OTHER = signature_line(split_unverified(note_at(9))[0], TERN, 1741000000)
WITHOUT_TIME = signature_line(split_unverified(note_at(9))[0], HERON, 0)


def test_cosignatures_of_keys_nobody_knows_are_left_out_of_an_answer() -> None:
    with answering(http("200 OK", OTHER + LINE)) as address:
        assert ask_witness(address, GULL.verifier, note_at(9), proof) == [LINE]


@pytest.mark.parametrize(
    "answers",
    [
        [http("200 OK")],
        [http("200 OK", "\n")],
        [http("200 OK", LINE[:-1])],
        [http("200 OK", LINE.replace("—", "-"))],
        [http("200 OK", "text\n\n" + LINE)],
        [http("200 OK", OTHER)],
        [http("200 OK", LINE.replace(" gull", " g\u00fcll"))],
        [http("200 OK", signature_line(split_unverified(note_at(8))[0], GULL, 1741000000))],
        [http("200 OK", OTHER * 2000)],
        [http("200 OK", LINE)[:-9]],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n\xff\xff\xff\n"],
        [http("302 Found", LINE)],
        [http("500 Internal Server Error")],
        [http("409 Conflict", "5\n", "text/x.tlog.size")],
        [http("409 Conflict", "5\n")],
        [http("409 Conflict", "05\n", "text/x.tlog.size")],
        [http("409 Conflict", "5", "text/x.tlog.size")],
        [http("409 Conflict", "99\n", "text/x.tlog.size")],
        [http("409 Conflict", f"{10**30}\n", "text/x.tlog.size")],
        [http("409 Conflict", "5\n", "text/x.tlog.size"), http("422 Unprocessable Entity")],
        [b""],
        [b"HTTP/1.1"],
        [b"\0" * 70_000],
        [b"HTTP/1.1 200 OK\r\n" + b"X-Header: x\r\n" * 200 + b"\r\n"],
    ],
)
def test_a_witness_that_answers_anything_else_gives_no_cosignature(answers: list[bytes]) -> None:
    with answering(*answers) as address, pytest.raises((WitnessError, VerificationError)):
        ask_witness(address, GULL.verifier, note_at(9), proof)


def test_a_cosignature_without_a_time_does_not_count() -> None:
    with answering(http("200 OK", WITHOUT_TIME)) as address, pytest.raises(WitnessError, match="with a time"):
        ask_witness(address, HERON.verifier, note_at(9), proof)


@pytest.mark.parametrize("drip", [b"", b"H", b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\n\r\n" + LINE.encode()])
def test_a_witness_that_never_comes_to_an_end_is_left(drip: bytes) -> None:
    done = threading.Event()

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(drip)
            while not done.wait(0.02):
                try:
                    connection.sendall(b"x" if drip else b"")
                except OSError:
                    return

    with socket.create_server((LOOPBACK, 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        address = f"http://{LOOPBACK}:{listener.getsockname()[1]}"
        with pytest.raises(WitnessError, match=r"within 0\.2 s"):
            ask_witness(address, GULL.verifier, note_at(9), proof, timeout_seconds=0.2)
        done.set()
        thread.join()


@pytest.mark.parametrize(
    "address",
    [
        "",
        "gull.example",
        "ftp://gull.example",
        "file:///etc/hosts",
        "http://",
        "http://[x",
        "http://h:x/",
        "http://h/?q",
    ],
)
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(WitnessError, match="expected an address"):
        add_checkpoint(address, 0, [], note_at(9))


def test_witnesses_that_fail_are_named_and_the_policy_decides_whether_the_others_are_enough(
    witness: Witness, url: str
) -> None:
    with socket.create_server((LOOPBACK, 0)) as closed:
        nobody = f"http://{LOOPBACK}:{closed.getsockname()[1]}"
    lines = f"witness gull {GULL.verifier.text} {url}\nwitness tern {TERN.verifier.text} {nobody}\n"
    enough = TrustPolicy.parse(lines + "group g any gull tern\nquorum g\n")
    cosigned = cosign(note_at(9), enough, proof)
    assert cosigned.refusals.keys() == {"tern"}
    assert "ConnectionRefusedError" in cosigned.refusals["tern"]
    assert enough.open(cosigned.note, PIER.verifier)[0].size == 9
    with pytest.raises(VerificationError, match="quorum g, found gull"):
        TrustPolicy.parse(lines + "group g all gull tern\nquorum g\n").open(cosigned.note, PIER.verifier)
