"""Signed notes and checkpoints against a verifier written here from the C2SP text, and against damage."""

import base64
import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from consent.merkle import VerificationError
from consent.note import Checkpoint, Ed25519Signer, Verifier, open_checkpoint, open_note, sign_note

PIER = Ed25519Signer("pier.example/ledger", b"p" * 32)
QUAY = Ed25519Signer("quay.example/ledger", b"q" * 32)
CHECKPOINT = Checkpoint(PIER.verifier.name, 20852163, hashlib.sha256(b"leaves").digest())
NOTE = sign_note(CHECKPOINT.text, PIER)
# The worked example of Go's golang.org/x/mod/sumdb/note (BSD-3): its key, and a note that key signed.
GO_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_NOTE = (
    "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)


def verify_from_the_specification(note: bytes, key: str) -> bytes:
    """c2sp.org/signed-note with bytes, shares no code with the module."""
    name, hint, encoded = key.encode().split(b"+", 2)
    public = base64.b64decode(encoded)
    assert public[:1] == b"\x01"
    assert hashlib.sha256(name + b"\n" + public).digest()[:4].hex().encode() == hint
    split = note.rindex(b"\n\n")
    text, lines = note[: split + 1], note[split + 2 :].splitlines()
    for line in lines:
        dash, signer, signature = line.split(b" ")
        raw = base64.b64decode(signature)
        if dash == "—".encode() and signer == name and raw[:4].hex().encode() == hint:
            Ed25519PublicKey.from_public_bytes(public[1:]).verify(raw[4:], text)
            return text
    raise AssertionError("no signature by the key")


def test_a_note_of_ours_verifies_with_an_independent_reading_of_the_specification() -> None:
    assert verify_from_the_specification(NOTE.encode(), PIER.verifier.text) == CHECKPOINT.text.encode()


def test_the_note_of_another_implementation_verifies_here() -> None:
    assert open_note(GO_NOTE, [Verifier.parse(GO_KEY)]).startswith("If you think cryptography")


def test_a_checkpoint_is_origin_size_and_root_and_comes_back_whole() -> None:
    assert CHECKPOINT.text.split("\n")[:2] == ["pier.example/ledger", "20852163"]
    assert open_checkpoint(NOTE, PIER.verifier) == CHECKPOINT


def test_a_checkpoint_carries_its_extension_lines_and_names_the_state_root() -> None:
    state = hashlib.sha256(b"state").digest()
    extended = Checkpoint(
        "pier.example/ledger", 7, b"r" * 32, ("any line", f"state {base64.b64encode(state).decode()}")
    )
    opened = open_checkpoint(sign_note(extended.text, PIER), PIER.verifier)
    assert opened == extended
    assert opened.state_root == state
    assert CHECKPOINT.state_root is None


@pytest.mark.parametrize("lines", [("state x",), ("state ",), (f"state {base64.b64encode(b's' * 32).decode()}",) * 2])
def test_a_checkpoint_with_a_state_line_that_is_not_one_hash_is_refused(lines: tuple[str, ...]) -> None:
    with pytest.raises(VerificationError, match="one state line"):
        _ = Checkpoint("pier.example/ledger", 7, b"r" * 32, lines).state_root


def test_every_one_bit_change_of_a_checkpoint_is_caught() -> None:
    raw = NOTE.encode()
    for place in range(len(raw) * 8):
        broken = bytearray(raw)
        broken[place // 8] ^= 1 << place % 8
        with pytest.raises((VerificationError, UnicodeDecodeError)):
            open_checkpoint(broken.decode(), PIER.verifier)


def test_every_one_bit_change_of_a_key_is_caught() -> None:
    raw = PIER.verifier.text.encode()
    for place in range(len(raw) * 8):
        broken = bytearray(raw)
        broken[place // 8] ^= 1 << place % 8
        with pytest.raises((VerificationError, UnicodeDecodeError)):
            Verifier.parse(broken.decode())


def test_base64_in_another_spelling_of_the_same_bytes_is_refused() -> None:
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    last = NOTE[-3]  # before the padding and the newline: its two lowest bits carry nothing
    respelled = NOTE[:-3] + alphabet[alphabet.index(last) + 1] + NOTE[-2:]
    assert base64.b64decode(respelled.split()[-1]) == base64.b64decode(NOTE.split()[-1])
    with pytest.raises(VerificationError):
        open_note(respelled, [PIER.verifier])


@pytest.mark.parametrize("tail", ["", "\n", "\n\n"])
def test_an_empty_signature_list_never_verifies(tail: str) -> None:
    with pytest.raises(VerificationError):
        open_note(CHECKPOINT.text + tail, [PIER.verifier])


def test_no_known_keys_never_verifies() -> None:
    with pytest.raises(VerificationError, match="a signature by a known key"):
        open_note(NOTE, [])


def test_signatures_of_unknown_keys_are_ignored_beside_a_known_one() -> None:
    both = NOTE + sign_note(CHECKPOINT.text, QUAY).rsplit("\n\n", 1)[1]
    assert open_note(both, [PIER.verifier]) == CHECKPOINT.text
    assert open_note(both, [QUAY.verifier]) == CHECKPOINT.text


def test_a_failing_signature_of_a_known_key_refuses_the_whole_note() -> None:
    other = sign_note("pier.example/ledger\n1\n", QUAY).rsplit("\n\n", 1)[1]
    with pytest.raises(VerificationError, match="one that fails"):
        open_note(NOTE + other, [PIER.verifier, QUAY.verifier])


def test_a_checkpoint_of_another_log_is_refused_even_under_a_known_key() -> None:
    foreign = sign_note(Checkpoint("quay.example/ledger", 1, b"r" * 32).text, PIER)
    with pytest.raises(VerificationError, match="belongs to another log"):
        open_checkpoint(foreign, PIER.verifier)


@pytest.mark.parametrize(
    "body",
    [
        "{0}\n01\n{1}\n",
        "{0}\n-1\n{1}\n",
        "{0}\n1\n{1}x\n",
        "{0}\n1\n",
        "{0}\n1\n{1}\n\n",
        "{0}\n1\n{1}\n\nextension\n",
        "\n{0}\n1\n{1}\n",
        "{0}\n1\n{1}\n" + "extension\n" * 17,
    ],
)
def test_a_signed_text_that_is_no_checkpoint_is_refused(body: str) -> None:
    text = body.format(PIER.verifier.name, base64.b64encode(b"r" * 32).decode())
    with pytest.raises(VerificationError):
        open_checkpoint(sign_note(text, PIER), PIER.verifier)


@given(st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1).map(lambda text: text + "\n"))
def test_any_text_comes_back_as_it_was_signed(text: str) -> None:
    assert open_note(sign_note(text, PIER), [PIER.verifier]) == text


@pytest.mark.parametrize("name", ["", "two words", "a+b"])
def test_a_key_needs_a_name_that_fits_on_a_signature_line(name: str) -> None:
    with pytest.raises(ValueError, match="without spaces or plus"):
        Ed25519Signer(name, b"p" * 32)
