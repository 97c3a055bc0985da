"""Signed notes, checkpoints and cosignatures against a second implementation, published examples, and damage."""

import base64
import hashlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consent.log.merkle import VerificationError
from consent.log.note import (
    COSIGNATURE,
    Checkpoint,
    Ed25519Signer,
    MLDSA44Signer,
    Signer,
    Verifier,
    checkpoint_unverified,
    open_checkpoint,
    open_note,
    sign_note,
    signature_line,
    split_unverified,
    with_signatures,
)
from tests.unit.consent import signed_note
from tests.unit.consent.signed_note import flipped

PIER = Ed25519Signer("pier.example/ledger", b"p" * 32)
QUAY = Ed25519Signer("quay.example/ledger", b"q" * 32)
GULL = Ed25519Signer("gull.example/witness", b"g" * 32, COSIGNATURE)
HERON = MLDSA44Signer("heron.example/witness", b"h" * 32)
AT = 1741000000
CHECKPOINT = Checkpoint(PIER.verifier.name, 20852163, hashlib.sha256(b"leaves").digest())
NOTE = sign_note(CHECKPOINT.text, PIER)
EXTENDED = Checkpoint("pier.example/ledger", 7, b"r" * 32, ("a line", "state " + base64.b64encode(b"s" * 32).decode()))

# The example of c2sp.org/signed-note, and the worked one of Go's golang.org/x/mod/sumdb/note (BSD-3).
PUBLISHED = [
    (
        "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
        "This is an example message.\n\n"
        "— example.com/foo "
        "Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n",
    ),
    (
        "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n\n"
        "— PeterNeumann "
        "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n",
    ),
]
# A checkpoint that github.com/transparency-dev/formats 0.1.1 cosigned: log key, witness key and its seed.
VECTOR_LOG = "example.com/vector-log+4516a1da+ARGkVJ4QEa2MOOLGBO6i7NVSJ1FQ97tIX+w+Ku0RZ6Em"
VECTOR_WITNESS = "witness.example.com/vector+416f103d+BK/QmJFVP3SKJOqAMhFxBQPtylo3sjwWibyFDAlZKK8B"
VECTOR_SEED = base64.b64decode("BJEX3xv88eoQIKT4E+GkxZcXaJCYlQfi/GJ3NDFmZIW8")[1:]
VECTOR_AT = 1791014171
VECTOR_TEXT = "example.com/vector-log\n1234\nSBNJTRN+FjG7owHVrKtue7eqdM4RhdRWVl71HXN2d7I=\n"
VECTOR_LOG_LINE = (
    "— example.com/vector-log "
    "RRah2qlLrSlk6J8DA1HmNewppUM15Quhs5cAIb1KjBsV3otVirJTW8AFVsQtJkTW1Zny7GuoAxZpI6bUPcpM68QOIgE=\n"
)
VECTOR_WITNESS_LINE = (
    "— witness.example.com/vector "
    "QW8QPQAAAABqwLUbDdj7sDNRIVjmjYgqFI6y4UJhPg/UAA8J8wAdqSd3q4PedRhkgXA4xFN/Jg5uWn7ZkBA+H/UHQs5d9hITdXmQAA==\n"
)
# The examples of c2sp.org/tlog-checkpoint, tlog-cosignature and tlog-witness; their keys are not published.
SPECIFIED_TEXT = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
SPECIFIED_LINES = [
    "— example.com/behind-the-sofa "
    "Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n",
    "— example.com/behind-the-sofa "
    "opLqBQsREYCgu6xQkYQwJr9fo45a62DN9EdmHXnZdXNqlcVGlCum2Wks+49/V6267UEjw6QUXTS5Rovnzv++qbSzm9Q=\n",
    "— witness.example.com/w1 "
    "jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n",
]
SIGNERS: list[tuple[Signer, int | None]] = [(PIER, None), (GULL, AT), (HERON, AT)]


def cosigned(text: str, *signers: Signer) -> str:
    return with_signatures(sign_note(text, PIER), [signature_line(text, signer, AT) for signer in signers])


@pytest.mark.parametrize(("signer", "at"), SIGNERS)
def test_what_we_sign_verifies_with_the_second_implementation(signer: Signer, at: int | None) -> None:
    vkey = signer.verifier.text.encode()
    for text in (CHECKPOINT.text, EXTENDED.text):
        assert signed_note.verify(sign_note(text, signer, at).encode(), [vkey]) == (text.encode(), {vkey: at})


@pytest.mark.parametrize(("kind", "seed", "signer"), [(1, b"p", PIER), (4, b"g", GULL), (6, b"h", HERON)])
def test_what_the_second_implementation_signs_verifies_here(kind: int, seed: bytes, signer: Signer) -> None:
    text = CHECKPOINT.text
    line = signed_note.sign(text.encode(), signer.verifier.name.encode(), seed * 32, kind, AT).decode()
    opened = open_note(f"{text}\n{line}", [signer.verifier])
    assert opened.text == text
    assert [(signature.verifier, signature.at) for signature in opened.signatures] == [
        (signer.verifier, None if kind == 1 else AT)
    ]


@pytest.mark.parametrize(("key", "note"), PUBLISHED)
def test_the_published_examples_verify_here(key: str, note: str) -> None:
    assert Verifier.parse(key).text == key
    assert open_note(note, [Verifier.parse(key)]).text == note.rsplit("\n\n", 1)[0] + "\n"


def test_a_checkpoint_cosigned_by_another_implementation_verifies_and_we_write_the_same_bytes() -> None:
    log, witness = Verifier.parse(VECTOR_LOG), Verifier.parse(VECTOR_WITNESS)
    opened = open_note(f"{VECTOR_TEXT}\n{VECTOR_LOG_LINE}{VECTOR_WITNESS_LINE}", [log, witness])
    assert [(signature.verifier, signature.at) for signature in opened.signatures] == [
        (log, None),
        (witness, VECTOR_AT),
    ]
    signer = Ed25519Signer(witness.name, VECTOR_SEED, COSIGNATURE)
    assert signer.verifier == witness
    assert signature_line(VECTOR_TEXT, signer, VECTOR_AT) == VECTOR_WITNESS_LINE


def test_a_checkpoint_of_a_post_quantum_log_of_another_implementation_verifies() -> None:
    """filippo.io/torchwood 0.10.0: the log its witness is tested with, its seed and its note, at time 0."""
    seed = bytes.fromhex("2886adc2b0eabfce67c0472939127998bf886cf256bfee8ba76a253fce1146e0")
    log = MLDSA44Signer("example.com/mldsa-log", seed).verifier
    note = (Path(__file__).parent / "mldsa44.note").read_text()
    assert log.text.startswith("example.com/mldsa-log+b5df45c5+BuhtcL97l3dcitjZ8Y9J54gmQ1TW")
    assert Verifier.parse(log.text) == log
    assert open_checkpoint(note, log).size == 1
    assert [signature.at for signature in open_note(note, [log]).signatures] == [0]
    assert signed_note.verify(note.encode(), [log.text.encode()])[1] == {log.text.encode(): 0}
    with pytest.raises(VerificationError, match="one that fails"):
        open_checkpoint(note.replace("\n1\n", "\n2\n"), log)


def test_the_specified_example_reads_as_it_is_described() -> None:
    text, lines = split_unverified(SPECIFIED_TEXT + "\n" + "".join(SPECIFIED_LINES))
    checkpoint = checkpoint_unverified(text)
    assert (checkpoint.origin, checkpoint.size, checkpoint.text) == ("example.com/behind-the-sofa", 20852163, text)
    assert [(name, len(raw) - 4) for name, raw in lines[1:]] == [
        ("example.com/behind-the-sofa", 64),
        ("witness.example.com/w1", 72),
    ]
    assert int.from_bytes(lines[2][1][4:12], "big") == 1679315147


def test_a_checkpoint_is_origin_size_and_root_and_comes_back_whole() -> None:
    assert CHECKPOINT.text.split("\n")[:2] == ["pier.example/ledger", "20852163"]
    assert open_checkpoint(NOTE, PIER.verifier) == CHECKPOINT


def test_a_checkpoint_carries_its_extension_lines_and_names_the_state_root() -> None:
    opened = open_checkpoint(sign_note(EXTENDED.text, PIER), PIER.verifier)
    assert opened == EXTENDED
    assert opened.state_root == b"s" * 32
    assert CHECKPOINT.state_root is None


@pytest.mark.parametrize("lines", [("state x",), ("state ",), (f"state {base64.b64encode(b's' * 32).decode()}",) * 2])
def test_a_checkpoint_with_a_state_line_that_is_not_one_hash_is_refused(lines: tuple[str, ...]) -> None:
    with pytest.raises(VerificationError, match="one state line"):
        _ = Checkpoint("pier.example/ledger", 7, b"r" * 32, lines).state_root


def test_every_one_bit_change_of_a_checkpoint_is_caught() -> None:
    for broken in flipped(NOTE):
        with pytest.raises(VerificationError):
            open_checkpoint(broken, PIER.verifier)


@pytest.mark.parametrize(("signer", "step"), [(GULL, 1), (HERON, 13)])
def test_every_one_bit_change_of_a_cosigned_note_changes_who_signed_or_refuses_it(signer: Signer, step: int) -> None:
    note = cosigned(CHECKPOINT.text, signer)
    keys = {PIER.verifier, signer.verifier}
    for broken in flipped(note, step=step):
        try:
            assert open_note(broken, keys).verifiers < keys
        except VerificationError:
            continue


@pytest.mark.parametrize(("signer", "step"), [(PIER, 1), (GULL, 1), (HERON, 7)])
def test_every_one_bit_change_of_a_key_is_caught(signer: Signer, step: int) -> None:
    for broken in flipped(signer.verifier.text, step=step):
        with pytest.raises(VerificationError):
            Verifier.parse(broken)


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
    assert open_note(both, [PIER.verifier]).verifiers == {PIER.verifier}
    assert open_note(both, [QUAY.verifier]).verifiers == {QUAY.verifier}
    assert open_note(both, [PIER.verifier, QUAY.verifier]).verifiers == {PIER.verifier, QUAY.verifier}


def test_a_key_that_signs_twice_counts_once_and_each_of_its_lines_must_hold() -> None:
    later = signature_line(CHECKPOINT.text, GULL, AT + 60)
    opened = open_note(with_signatures(cosigned(CHECKPOINT.text, GULL), [later, later]), [PIER.verifier, GULL.verifier])
    assert [signature.at for signature in opened.signatures] == [None, AT, AT + 60]
    assert opened.verifiers == {PIER.verifier, GULL.verifier}
    foreign = signature_line(EXTENDED.text, GULL, AT)
    with pytest.raises(VerificationError, match="one that fails"):
        open_note(cosigned(CHECKPOINT.text, GULL) + foreign, [GULL.verifier])


def test_a_key_that_shares_only_its_name_or_only_its_id_with_a_signature_is_another_key() -> None:
    line = signature_line(CHECKPOINT.text, PIER)
    renamed = line.replace("pier.example", "gate.example")
    for other in (renamed, signature_line(CHECKPOINT.text, Ed25519Signer(PIER.verifier.name, b"o" * 32))):
        assert open_note(NOTE + other, [PIER.verifier]).verifiers == {PIER.verifier}
        with pytest.raises(VerificationError, match="a signature by a known key"):
            open_note(f"{CHECKPOINT.text}\n{other}", [PIER.verifier])


def test_a_cosignature_is_no_log_signature_under_the_same_seed() -> None:
    log = Ed25519Signer(GULL.verifier.name, b"g" * 32)
    assert log.verifier.public_key == GULL.verifier.public_key
    assert log.verifier.key_id != GULL.verifier.key_id
    with pytest.raises(VerificationError, match="a signature by a known key"):
        open_note(sign_note(CHECKPOINT.text, GULL, AT), [log.verifier])


def test_extension_lines_need_a_signature_that_covers_them() -> None:
    lattice = MLDSA44Signer("pier.example/ledger", b"l" * 32)
    assert open_checkpoint(sign_note(CHECKPOINT.text, lattice, AT), lattice.verifier) == CHECKPOINT
    note = sign_note(EXTENDED.text, lattice, AT)
    assert (
        lattice.verifier.verify(split_unverified(note)[1][0][1][4:], "".join(EXTENDED.text.splitlines(True)[:3])) == AT
    )
    with pytest.raises(VerificationError, match="extension lines"):
        open_checkpoint(note, lattice.verifier)
    with pytest.raises(VerificationError, match="extension lines"):
        open_note(note, [lattice.verifier])
    both = with_signatures(note, [signature_line(EXTENDED.text, PIER)])
    assert open_note(both, [lattice.verifier, PIER.verifier]).verifiers == {lattice.verifier, PIER.verifier}


def test_a_time_beyond_63_bits_is_neither_signed_nor_believed() -> None:
    with pytest.raises(ValueError, match="expected a time"):
        signature_line(CHECKPOINT.text, GULL, 2**63)
    late = signed_note.sign(CHECKPOINT.text.encode(), GULL.verifier.name.encode(), b"g" * 32, signed_note.TIMED, 2**63)
    with pytest.raises(VerificationError, match="one that fails"):
        open_note(NOTE + late.decode(), [GULL.verifier])


@pytest.mark.parametrize(("signer", "at"), [(PIER, AT), (GULL, None), (GULL, -1), (HERON, None)])
def test_a_time_belongs_to_a_cosignature_and_to_nothing_else(signer: Signer, at: int | None) -> None:
    with pytest.raises(ValueError, match="expected a time"):
        signature_line(CHECKPOINT.text, signer, at)


def test_a_post_quantum_cosigner_refuses_a_text_that_is_no_checkpoint() -> None:
    with pytest.raises(VerificationError, match="origin, size and root"):
        signature_line("Any other text\n", HERON, AT)


def test_sixteen_post_quantum_cosignatures_fit_in_a_note() -> None:
    note = with_signatures(NOTE, [signature_line(CHECKPOINT.text, HERON, AT + n) for n in range(16)])
    assert len(open_note(note, [HERON.verifier]).signatures) == 16


@pytest.mark.parametrize("line", ["— x y\n", "x\n", "", "\n", "— name QUJDREU="])
def test_what_is_no_signature_line_is_not_added_to_a_note(line: str) -> None:
    if line:
        with pytest.raises(VerificationError):
            with_signatures(NOTE, [line])
    assert with_signatures(NOTE, []) == NOTE


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
@settings(deadline=None)
def test_any_text_comes_back_as_it_was_signed(text: str) -> None:
    assert open_note(sign_note(text, PIER), [PIER.verifier]).text == text


@pytest.mark.parametrize("name", ["", "two words", "a+b", "a\u2003b", "a\nb", "a\x00b", "a\ud800b"])
def test_a_key_needs_a_name_that_fits_on_a_signature_line(name: str) -> None:
    with pytest.raises(ValueError, match="without spaces or plus"):
        Ed25519Signer(name, b"p" * 32)
