"""The Merkle tree of RFC 9162 against a recursive reference, published vectors, and broken proofs."""

import base64
import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consent.log.merkle import (
    EMPTY_ROOT,
    CompactRange,
    VerificationError,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    tree_root,
    verify_consistency,
    verify_inclusion,
)

VECTORS = Path(__file__).parents[4] / "shared" / "data" / "merkle"
# transparency-dev/merkle, testdata (Apache-2.0): the eight leaves of Certificate Transparency and known roots.
LEAVES = [
    bytes.fromhex(text)
    for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
ROOTS = {
    1: "bjQLnP+zepicpUTmu3gKLHiQHT+zNzh2hRGjBhevoB0=",
    2: "+sVCA+fMaWzw38tCySodnbr3CtnmIfS9jZhmLwDjwSU=",
    3: "rra8/idLcKFPsGel5VeCZNsPqbUa9eC6FZFY8yngbnc=",
    5: "Tju7H3tHjc/nH7YxYxUZo7yhLJrvyhYSv85ME6hiZNQ=",
    6: "duZ9rbzfHhDht03cYIq9L5jfsW+851J3tSMqEn8gh+8=",
    8: "XcnaeacGWamtVZy3Ad7ZoqudgjqtL0lgz+Nw7/RgQyg=",
}
INCLUSION = {  # (leaf, size): audit path
    (0, 8): ("lqKW0iTyhcZ77pPDD4owkVfw2qNdxbh+QQt4YwoJz8c=", "Xwg/ChozygdqlSeYMlgNs+DvRYS9/x9UyKNg9Q3jAx4=",
             "a0eq8p7jwq+a+Im8H7klTavTEXfxYjLdaqsDXKOb9uQ="),
    (5, 8): ("vBoGQ7EuTS18d5GPROD095qDi2z57FtcKD4fTYhZnms=", "yoVOoSjtBQtBs1/8G4e46yveRh6eO1WW7Oa51ZdaCuA=",
             "037kGJdt2VdTwcc4Yrk5j6Kiz5tP8P3+izDNlSCWFLc="),
    (2, 3): ("+sVCA+fMaWzw38tCySodnbr3CtnmIfS9jZhmLwDjwSU=",),
    (0, 1): (),
}  # fmt: skip
CONSISTENCY = {  # (old size, new size): proof
    (1, 8): ("lqKW0iTyhcZ77pPDD4owkVfw2qNdxbh+QQt4YwoJz8c=", "Xwg/ChozygdqlSeYMlgNs+DvRYS9/x9UyKNg9Q3jAx4=",
             "a0eq8p7jwq+a+Im8H7klTavTEXfxYjLdaqsDXKOb9uQ="),
    (6, 8): ("DrxdNDf74tsVi58Sah0RjjCBgQMdCpSfje3t68VY72o=", "yoVOoSjtBQtBs1/8G4e46yveRh6eO1WW7Oa51ZdaCuA=",
             "037kGJdt2VdTwcc4Yrk5j6Kiz5tP8P3+izDNlSCWFLc="),
    (2, 5): ("Xwg/ChozygdqlSeYMlgNs+DvRYS9/x9UyKNg9Q3jAx4=", "vBoGQ7EuTS18d5GPROD095qDi2z57FtcKD4fTYhZnms="),
}  # fmt: skip


def reference_root(leaves: Sequence[bytes]) -> bytes:
    """MTH of RFC 9162, 2.1.1, word for word, over leaf hashes."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return sha256(b"\x01" + reference_root(leaves[:split]) + reference_root(leaves[split:])).digest()


class Tree:
    """A tree in memory, its nodes by the reference."""

    def __init__(self, size: int) -> None:
        self.leaves = [leaf_hash(b"%d" % n) for n in range(size)]

    def node(self, level: int, index: int) -> bytes:
        return reference_root(self.leaves[index << level : (index + 1) << level])


def decoded(texts: Sequence[str]) -> list[bytes]:
    return [base64.b64decode(text) for text in texts]


sizes = st.integers(1, 70)


def test_the_empty_tree_has_the_hash_of_nothing() -> None:
    assert CompactRange().root() == EMPTY_ROOT == tree_root(0, Tree(0).node)


@pytest.mark.parametrize("size", ROOTS)
def test_known_leaves_give_the_published_roots(size: int) -> None:
    tree = CompactRange()
    tree.extend(map(leaf_hash, LEAVES[:size]))
    assert base64.b64encode(tree.root()).decode() == ROOTS[size]


@pytest.mark.parametrize(("at", "proof"), INCLUSION.items())
def test_known_audit_paths_verify(at: tuple[int, int], proof: tuple[str, ...]) -> None:
    index, size = at
    verify_inclusion(leaf_hash(LEAVES[index]), index, size, decoded(proof), base64.b64decode(ROOTS[size]))


@pytest.mark.parametrize(("at", "proof"), CONSISTENCY.items())
def test_known_consistency_proofs_verify(at: tuple[int, int], proof: tuple[str, ...]) -> None:
    roots = [base64.b64decode(ROOTS[size]) for size in at]
    verify_consistency(*at, *roots, decoded(proof))


@given(sizes, st.data())
def test_growing_in_any_batches_gives_the_root_of_the_reference(size: int, data: st.DataObject) -> None:
    leaves, tree = Tree(size).leaves, CompactRange()
    cut = data.draw(st.integers(0, size))
    tree.extend(leaves[:cut])
    tree.extend(leaves[cut:])
    assert tree.root() == reference_root(leaves) == tree_root(size, Tree(size).node)


@given(sizes, st.data())
def test_every_leaf_is_provably_in_its_tree_and_no_other_leaf_is(size: int, data: st.DataObject) -> None:
    tree, index = Tree(size), data.draw(st.integers(0, size - 1))
    proof, root = inclusion_proof(index, size, tree.node), reference_root(tree.leaves)
    verify_inclusion(tree.leaves[index], index, size, proof, root)
    with pytest.raises(VerificationError):
        verify_inclusion(leaf_hash(b"never said"), index, size, proof, root)
    with pytest.raises(VerificationError):
        verify_inclusion(tree.leaves[index], index, 2 * size, proof, root)
    for other in {index - 1, index + 1, size} - {index}:
        with pytest.raises(VerificationError):
            verify_inclusion(tree.leaves[index], other, size, proof, root)


@given(sizes, st.data())
def test_every_earlier_tree_is_provably_the_beginning_of_a_later_one(size: int, data: st.DataObject) -> None:
    tree, old = Tree(size), data.draw(st.integers(1, size))
    proof = consistency_proof(old, size, tree.node)
    old_root, new_root = reference_root(tree.leaves[:old]), reference_root(tree.leaves)
    verify_consistency(old, size, old_root, new_root, proof)
    changed = [leaf_hash(b"changed"), *tree.leaves[1:old]]
    with pytest.raises(VerificationError):
        verify_consistency(old, size, reference_root(changed), new_root, proof)


@given(st.integers(2, 70), st.data())
def test_a_proof_with_one_bit_changed_dropped_or_added_fails(size: int, data: st.DataObject) -> None:
    tree, index = Tree(size), data.draw(st.integers(0, size - 1))
    proof, root = inclusion_proof(index, size, tree.node), reference_root(tree.leaves)
    place, bit = data.draw(st.integers(0, len(proof) - 1)), data.draw(st.integers(0, 255))
    flipped = bytearray(proof[place])
    flipped[bit // 8] ^= 1 << bit % 8
    for broken in ([*proof[:place], bytes(flipped), *proof[place + 1 :]], proof[:-1], [*proof, root], [root, *proof]):
        with pytest.raises(VerificationError):
            verify_inclusion(tree.leaves[index], index, size, broken, root)


def test_nothing_is_consistent_with_an_empty_past_by_proof() -> None:
    with pytest.raises(VerificationError, match="sizes that grow from at least 1"):
        verify_consistency(0, 3, EMPTY_ROOT, reference_root(Tree(3).leaves), [])


@pytest.mark.parametrize("kind", ["inclusion", "consistency"])
def test_all_vectors_of_transparency_dev_are_told_apart(kind: str) -> None:
    if not VECTORS.is_dir():
        pytest.skip("the vectors of transparency-dev/merkle are not beside the repository; a handful is in this file")
    disagreements = []
    paths = sorted((VECTORS / kind).rglob("*.json"))
    for path in paths:
        case = json.loads(path.read_text())
        proof = decoded(case["proof"] or [])
        try:
            if kind == "inclusion":
                leaf, root = base64.b64decode(case["leafHash"]), base64.b64decode(case["root"] or "")
                verify_inclusion(leaf, case["leafIdx"], case["treeSize"], proof, root)
            else:
                roots = [base64.b64decode(case[name] or "") for name in ("root1", "root2")]
                verify_consistency(case["size1"], case["size2"], *roots, proof)
            failed = False
        except VerificationError:
            failed = True
        if failed != case["wantErr"]:
            disagreements.append(str(path.relative_to(VECTORS)))
    assert len(paths) > 50
    assert disagreements == []
