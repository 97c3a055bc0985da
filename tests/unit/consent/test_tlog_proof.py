"""Proofs in one file and trust policies: against the specification read a second time, and against damage."""

import base64
import hashlib
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consent.log.merkle import Node, VerificationError, leaf_hash, node_hash, tree_root
from consent.log.note import (
    COSIGNATURE,
    Checkpoint,
    Ed25519Signer,
    MLDSA44Signer,
    Verifier,
    sign_note,
    signature_line,
    with_signatures,
)
from consent.log.tlog_proof import Proof, TrustPolicy, prove, verify_proof
from tests.unit.consent import signed_note
from tests.unit.consent.signed_note import flipped

PIER = Ed25519Signer("pier.example/ledger", b"p" * 32)
GULL = Ed25519Signer("gull.example/witness", b"g" * 32, COSIGNATURE)
TERN = Ed25519Signer("tern.example/witness", b"t" * 32, COSIGNATURE)
HERON = MLDSA44Signer("heron.example/witness", b"h" * 32)
WITNESSES = [GULL.verifier, TERN.verifier, HERON.verifier]
AT = 1741000000
ENTRIES = [hashlib.sha512(b"%d" % n).digest() for n in range(7)]


def tree(entries: list[bytes]) -> Node:
    leaves = [leaf_hash(entry) for entry in entries]

    def node(level: int, index: int) -> bytes:
        part = leaves[index << level : (index + 1) << level]
        while len(part) > 1:
            part = [node_hash(left, right) for left, right in zip(part[::2], part[1::2], strict=True)]
        return part[0]

    return node


def note_of(entries: list[bytes], *witnesses: Ed25519Signer | MLDSA44Signer, extensions: tuple[str, ...] = ()) -> str:
    text = Checkpoint(PIER.verifier.name, len(entries), tree_root(len(entries), tree(entries)), extensions).text
    return with_signatures(sign_note(text, PIER), [signature_line(text, witness, AT) for witness in witnesses])


def proof_of(index: int, *witnesses: Ed25519Signer | MLDSA44Signer, extra: bytes = b"") -> str:
    return prove(index, tree(ENTRIES), note_of(ENTRIES, *witnesses), extra).text


def verify_from_the_specification(proof: bytes, entry: bytes, vkey: bytes) -> int:
    """c2sp.org/tlog-proof over bytes; the path by the recursion of RFC 6962, 2.1.1. The index, if it holds."""
    head, note = proof.split(b"\n\n", 1)
    lines = head.split(b"\n")
    assert lines.pop(0) == b"c2sp.org/tlog-proof@v1"
    if lines[0].startswith(b"extra "):
        lines.pop(0)
    index = int(lines.pop(0).removeprefix(b"index "))
    path = [base64.b64decode(line, validate=True) for line in lines]
    origin, size, root = signed_note.verify(note, [vkey])[0].split(b"\n")[:3]
    assert origin == vkey.split(b"+")[0]

    def up(index: int, size: int, path: list[bytes]) -> bytes:
        if size == 1:
            assert not path
            return hashlib.sha256(b"\0" + entry).digest()
        half = 1 << (size - 1).bit_length() - 1
        if index < half:
            return hashlib.sha256(b"\1" + up(index, half, path[:-1]) + path[-1]).digest()
        return hashlib.sha256(b"\1" + path[-1] + up(index - half, size - half, path[:-1])).digest()

    assert up(index, int(size), path) == base64.b64decode(root)
    return index


@pytest.mark.parametrize("index", range(7))
def test_a_proof_of_ours_holds_by_a_second_reading_of_the_specification(index: int) -> None:
    text = proof_of(index, GULL, HERON, extra=b"receipt")
    assert verify_from_the_specification(text.encode(), ENTRIES[index], PIER.verifier.text.encode()) == index


def test_a_proof_says_where_the_entry_is_and_who_saw_the_tree() -> None:
    proved = verify_proof(
        proof_of(4, GULL, extra=b"receipt"), ENTRIES[4], PIER.verifier, TrustPolicy.at_least(1, WITNESSES)
    )
    assert (proved.index, proved.checkpoint.size, proved.extra_unverified) == (4, 7, b"receipt")
    assert proved.note.verifiers == {PIER.verifier, GULL.verifier}
    assert [signature.at for signature in proved.note.signatures] == [None, AT]


def test_the_file_is_spelled_as_specified() -> None:
    path = tuple(hashlib.sha256(b"%d" % n).digest() for n in range(2))
    lines = [base64.b64encode(step).decode() for step in path]
    proof = Proof(73894, path, "note\n", b"age")
    assert proof.text == f"c2sp.org/tlog-proof@v1\nextra YWdl\nindex 73894\n{lines[0]}\n{lines[1]}\n\nnote\n"
    assert replace(proof, extra=b"", path=()).text == "c2sp.org/tlog-proof@v1\nindex 73894\n\nnote\n"
    assert Proof.parse(proof.text) == proof


@given(
    st.integers(0, 2**62),
    st.lists(st.binary(min_size=32, max_size=32), max_size=64).map(tuple),
    st.text(),
    st.binary(max_size=99),
)
@settings(deadline=None)
def test_any_proof_comes_back_as_it_was_written(index: int, path: tuple[bytes, ...], note: str, extra: bytes) -> None:
    proof = Proof(index, path, note, extra)
    assert Proof.parse(proof.text) == proof


def test_every_one_bit_change_of_a_proof_is_caught() -> None:
    policy = TrustPolicy.at_least(2, [GULL.verifier, TERN.verifier])
    text = proof_of(5, GULL, TERN)
    verify_proof(text, ENTRIES[5], PIER.verifier, policy)
    for broken in flipped(text):
        with pytest.raises(VerificationError):
            verify_proof(broken, ENTRIES[5], PIER.verifier, policy)


def test_a_changed_bit_of_the_extra_line_changes_the_extra_data_alone_or_is_refused() -> None:
    text = proof_of(5, extra=b"receipt")
    line = text.encode().index(b"\nextra ") + 1
    for broken in flipped(text, line, 1)[: len(b"extra cmVjZWlwdA==") * 8]:
        try:
            proved = verify_proof(broken, ENTRIES[5], PIER.verifier)
        except VerificationError:
            continue
        assert proved.index == 5
        assert proved.extra_unverified != b"receipt"


def test_every_one_bit_change_of_the_entry_is_caught() -> None:
    text = proof_of(6)
    for place in range(512):
        changed = (int.from_bytes(ENTRIES[6], "big") ^ 1 << place).to_bytes(64, "big")
        with pytest.raises(VerificationError, match="expected root"):
            verify_proof(text, changed, PIER.verifier)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("@v1", "@v2"),
        ("index 3", "index 03"),
        ("index 3", "index -1"),
        ("index 3", "index 7"),
        ("index 3", "index 2"),
        ("index 3", "index"),
        ("index 3", "extra \nindex 3"),
        ("index 3", "extra ?\nindex 3"),
        ("index 3", "extra YQ==\nextra YQ==\nindex 3"),
        ("index 3\n", "index 3\nYQ==\n"),
        ("index 3\n", "index 3\n" + "A" * 43 + "=\n"),
        ("index 3\n", "index 3\n" + ("A" * 43 + "=\n") * 65),
        ("index 3\n", "index 3\r\n"),
        ("index 3\n", "index 3\n\n"),
        ("\n\n", "\n"),
        ("c2sp", "\nc2sp"),
    ],
)
def test_a_malformed_proof_is_refused(old: str, new: str) -> None:
    text = proof_of(3)
    with pytest.raises(VerificationError):
        verify_proof(text.replace(old, new, 1), ENTRIES[3], PIER.verifier)


@pytest.mark.parametrize(
    "text", ["", "\n", "c2sp.org/tlog-proof@v1", "c2sp.org/tlog-proof@v1\n\n", "\n\n", "x" * 1_000_001]
)
def test_what_is_no_proof_at_all_is_refused(text: str) -> None:
    with pytest.raises(VerificationError):
        verify_proof(text, ENTRIES[0], PIER.verifier)


def test_a_proof_of_another_log_or_another_entry_is_refused() -> None:
    with pytest.raises(VerificationError, match="a signature by a known key"):
        verify_proof(proof_of(1), ENTRIES[1], Ed25519Signer("quay.example/ledger", b"q" * 32).verifier)
    with pytest.raises(VerificationError, match="expected root"):
        verify_proof(proof_of(1), ENTRIES[2], PIER.verifier)


def test_too_few_witnesses_are_not_enough_and_the_error_names_those_that_signed() -> None:
    with pytest.raises(VerificationError, match="quorum g, found w1"):
        verify_proof(proof_of(1, TERN), ENTRIES[1], PIER.verifier, TrustPolicy.at_least(2, WITNESSES))


def test_no_number_of_witnesses_replaces_the_log() -> None:
    text = Checkpoint(PIER.verifier.name, 7, tree_root(7, tree(ENTRIES))).text
    witnessed = with_signatures(sign_note(text, GULL, AT), [signature_line(text, TERN, AT)])
    with pytest.raises(VerificationError, match="signed by its key"):
        verify_proof(
            prove(0, tree(ENTRIES), witnessed).text, ENTRIES[0], PIER.verifier, TrustPolicy.at_least(2, WITNESSES)
        )


def test_one_witness_that_signs_many_times_counts_once() -> None:
    proof = Proof.parse(proof_of(1, GULL))
    text = proof.note.split("\n\n")[0] + "\n"
    note = with_signatures(proof.note, [signature_line(text, GULL, AT + n) for n in range(1, 4)])
    with pytest.raises(VerificationError, match="quorum"):
        verify_proof(replace(proof, note=note).text, ENTRIES[1], PIER.verifier, TrustPolicy.at_least(2, WITNESSES))


def key(name: str, kind: bytes = COSIGNATURE) -> Verifier:
    return Verifier(name, hashlib.sha256(name.encode()).digest(), kind)


NESTED = f"""# Two of the harbour's and any of the city's
log {PIER.verifier.text} https://pier.example/
witness X1 {key("x1").text} https://x1.example/witness
  witness X2\t{key("x2").text}
witness X3 {key("x3").text}
group X-witnesses 2 X1 X2 X3

witness Y1 {key("y1").text}
witness Y2 {key("y2").text}
group Y-witnesses any Y1 Y2
group X-and-Y all X-witnesses Y-witnesses
quorum X-and-Y
"""


@pytest.mark.parametrize(
    ("names", "met"),
    [("x1 x3 y2", True), ("x1 x2 x3 y1 y2", True), ("x1 y1 y2", False), ("x1 x2 x3", False), ("", False), ("z", False)],
)
def test_groups_within_groups_say_who_is_enough(names: str, met: bool) -> None:
    policy = TrustPolicy.parse(NESTED)
    assert policy.is_met([key(name) for name in names.split()]) is met
    assert policy.logs == (PIER.verifier,)
    assert policy.urls == {"X1": "https://x1.example/witness"}


def test_quorum_none_asks_for_no_witness_and_a_single_witness_can_be_the_quorum() -> None:
    assert TrustPolicy.parse("quorum none\n").is_met([])
    policy = TrustPolicy.parse(f"witness only {key('x1').text}\nquorum only\n")
    assert policy.is_met([key("x1")])
    assert not policy.is_met([key("x2")])


@pytest.mark.parametrize(
    "lines",
    [
        "",
        "quorum none\nquorum none",
        "quorum nobody",
        "witness none {x1}\nquorum none",
        "witness a {x1}\nwitness a {x2}\nquorum a",
        "witness a {x1}\nwitness b {x1}\nquorum a",
        "witness a {x1}\ngroup a any a\nquorum a",
        "group g any a\nwitness a {x1}\nquorum g",
        "witness a {x1}\ngroup g any a a\nquorum g",
        "witness a {x1}\ngroup g any a\ngroup h any a\nquorum h",
        "witness a {x1}\ngroup g any none\nquorum g",
        "witness a {x1}\ngroup g 0 a\nquorum g",
        "witness a {x1}\ngroup g 2 a\nquorum g",
        "witness a {x1}\ngroup g 01 a\nquorum g",
        "witness a {x1}\ngroup g ١ a\nquorum g",
        "witness a {x1}\ngroup g any\nquorum g",
        "witness a {pier}\nquorum a",
        "log {x1}\nquorum none",
        "log {pier}\nlog {pier}\nquorum none",
        "log {pier} url url\nquorum none",
        "witness a\u00a0{x1}\nquorum a",
        "trust everybody\nquorum none",
        "quorum none\x00",
        "quorum none\r",
    ],
)
def test_a_policy_that_is_not_as_specified_is_refused(lines: str) -> None:
    with pytest.raises(VerificationError, match=r"policy|verifier key"):
        TrustPolicy.parse(lines.format(x1=key("x1").text, x2=key("x2").text, pier=PIER.verifier.text))


def test_a_log_the_policy_does_not_list_is_not_believed() -> None:
    with pytest.raises(VerificationError, match="a log line for pier"):
        verify_proof(proof_of(1), ENTRIES[1], PIER.verifier, TrustPolicy.at_least(0, [], [key("other", b"\x01")]))


def test_a_quorum_of_none_signs_for_no_log_by_itself() -> None:
    with pytest.raises(VerificationError, match="a signature by a known key"):
        TrustPolicy.parse("quorum none\n").open(note_of(ENTRIES))
    assert TrustPolicy.at_least(0, [], [PIER.verifier]).open(note_of(ENTRIES))[0].size == 7
