"""What is hashed and how: canonical JSON, commitments, and the Merkle tree of RFC 9162 with its proofs.

Pure functions over bytes: no store, no keys, no clock. Nothing of ours is imported: an auditor can read it alone.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256

HASH_BYTES = 32
EMPTY_ROOT = sha256(b"").digest()
COMMITMENT_TAG = b"troth-consent-event-v1\0"

# Hash of the perfect subtree at (level, index): level 0 holds the leaf hashes.
Node = Callable[[int, int], bytes]


class VerificationError(Exception):
    """Something that claims to be proved is not. Carries its evidence: what, expected, found."""

    def __init__(self, what: str, expected: str, found: str, advice: str) -> None:
        super().__init__(f"{what}: expected {expected}, found {found}. {advice}.")
        self.what = what
        self.expected = expected
        self.found = found


_ENCODER = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)


def canonical(value: object) -> bytes:
    """Canonical JSON: RFC 8785 for text, whole numbers below 2^53, booleans, null, lists, objects with ASCII keys."""
    return _ENCODER.encode(value).encode()


def commitment(salt: bytes, event: bytes) -> bytes:
    """SHA-256(tag || salt || event): the only thing the log learns of an event. Without the salt it says nothing."""
    return sha256(COMMITMENT_TAG + salt + event).digest()


def leaf_hash(entry: bytes) -> bytes:
    """RFC 9162, 2.1.1: SHA-256(0x00 || entry)."""
    return sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """RFC 9162, 2.1.1: SHA-256(0x01 || left || right)."""
    return sha256(b"\x01" + left + right).digest()


def level_above(hashes: bytes) -> bytes:
    """Parents of an even number of neighbouring hashes, all concatenated."""
    return b"".join([sha256(b"\x01" + hashes[i : i + 64]).digest() for i in range(0, len(hashes), 64)])


def levels_over(hashes: bytes) -> list[bytes]:
    """All levels over neighbouring hashes, concatenated each, from the bottom up; a hash without a partner ends its level."""
    levels = [hashes]
    while len(levels[-1]) > HASH_BYTES:
        below = levels[-1]
        levels.append(level_above(below[: len(below) // (2 * HASH_BYTES) * 2 * HASH_BYTES]))
    return levels


class CompactRange:
    """Right edge of a growing tree: one hash per set bit of its size, enough to append and to name the root."""

    def __init__(self, size: int = 0, peaks: Sequence[bytes] = ()) -> None:
        self.size = size
        self._peaks = list(peaks)

    @property
    def peaks(self) -> tuple[bytes, ...]:
        """Roots of the perfect subtrees from left to right, one per set bit of the size."""
        return tuple(self._peaks)

    def extend(self, leaf_hashes: Iterable[bytes]) -> None:
        """Append leaves, one hash each."""
        peaks, size = self._peaks, self.size
        for leaf in leaf_hashes:
            carry, found = size, leaf
            while carry & 1:
                found = sha256(b"\x01" + peaks.pop() + found).digest()
                carry >>= 1
            peaks.append(found)
            size += 1
        self.size = size

    def root(self) -> bytes:
        return joined(self._peaks)


def tree_root(size: int, node: Node) -> bytes:
    """Root of the first `size` leaves."""
    return _range_root(0, size, node)


def inclusion_proof(index: int, size: int, node: Node) -> list[bytes]:
    """RFC 9162, 2.1.3.1: the audit path of leaf `index` in the tree of `size` leaves."""
    if not 0 <= index < size:
        raise VerificationError(
            "inclusion proof", f"a leaf below size {size}", f"leaf {index}", "Ask for a leaf the tree holds"
        )
    return subtree_path(index, 0, size, node)


def subtree_path(index: int, level: int, size: int, node: Node) -> list[bytes]:
    """The audit path of the perfect subtree (`level`, `index`) in the tree of `size` leaves."""
    path: list[tuple[int, int]] = []
    start, end, first, width = 0, size, index << level, 1 << level
    while end - start > width:
        middle = _split(start, end)
        if first < middle:
            path.append((middle, end))
            end = middle
        else:
            path.append((start, middle))
            start = middle
    return [_range_root(*part, node) for part in reversed(path)]


def consistency_proof(old_size: int, new_size: int, node: Node) -> list[bytes]:
    """RFC 9162, 2.1.4.1: that a tree of `new_size` leaves begins with one of `old_size`. Empty if equal, and from 0."""
    if not 0 <= old_size <= new_size:
        raise VerificationError(
            "consistency proof", f"an old size up to {new_size}", f"{old_size}", "Ask for sizes the tree has had"
        )
    if old_size in (0, new_size):
        return []
    path: list[tuple[int, int]] = []
    start, end = 0, new_size
    while old_size != end:
        middle = _split(start, end)
        if old_size <= middle:
            path.append((middle, end))
            end = middle
        else:
            path.append((start, middle))
            start = middle
    if start:
        path.append((start, end))
    return [_range_root(*part, node) for part in reversed(path)]


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """RFC 9162, 2.1.3.2. Raises: VerificationError."""
    what = f"inclusion of leaf {index} at size {size}"
    if not 0 <= index < size:
        raise VerificationError(what, "an index below the size", f"{index}", "The proof is for another tree")
    _refuse_other_lengths(what, [leaf, *proof])
    steps, last, found = index, size - 1, leaf
    for sibling in proof:
        if not last:
            raise VerificationError(
                what, "a shorter proof", f"{len(proof)} hashes", "The proof is not for this leaf and size"
            )
        if steps & 1 or steps == last:
            found = sha256(b"\x01" + sibling + found).digest()
            while steps and not steps & 1:
                steps >>= 1
                last >>= 1
        else:
            found = sha256(b"\x01" + found + sibling).digest()
        steps >>= 1
        last >>= 1
    if last:
        raise VerificationError(what, "a longer proof", f"{len(proof)} hashes", "It is not for this leaf and size")
    if found != root:
        raise VerificationError(what, f"root {root.hex()}", found.hex(), "The leaf is not in the tree this root names")


def verify_consistency(old_size: int, new_size: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> None:
    """RFC 9162, 2.1.4.2. Raises: VerificationError, also from size 0 to a larger one: that would prove nothing."""
    what = f"consistency of size {old_size} with size {new_size}"
    fork = "Two histories exist: keep both checkpoints as evidence"
    if not 0 < old_size < new_size and old_size != new_size:
        raise VerificationError(what, "sizes that grow from at least 1", "others", "Compare with a later checkpoint")
    if old_size == new_size:
        if proof:
            raise VerificationError(what, "an empty proof", f"{len(proof)} hashes", "Equal sizes need no proof")
        found_old, found_new = new_root, old_root if old_size else EMPTY_ROOT
    else:
        found_old, found_new = _both_roots(what, old_size, new_size, old_root, proof)
    if found_old != old_root:
        raise VerificationError(what, f"old root {old_root.hex()}", found_old.hex(), fork)
    if found_new != new_root:
        raise VerificationError(what, f"new root {new_root.hex()}", found_new.hex(), fork)


def _both_roots(
    what: str, old_size: int, new_size: int, old_root: bytes, proof: Sequence[bytes]
) -> tuple[bytes, bytes]:
    """The old and the new root a consistency proof leads to."""
    _refuse_other_lengths(what, proof)
    path = [old_root, *proof] if old_size & (old_size - 1) == 0 else list(proof)
    if not path:
        raise VerificationError(what, "a proof", "none", "Ask for the proof between these sizes")
    steps, last = old_size - 1, new_size - 1
    while steps & 1:
        steps >>= 1
        last >>= 1
    found_old = found_new = path[0]
    for sibling in path[1:]:
        if not last:
            raise VerificationError(what, "a shorter proof", f"{len(proof)} hashes", "The proof is not for these sizes")
        if steps & 1 or steps == last:
            found_old = node_hash(sibling, found_old)
            found_new = node_hash(sibling, found_new)
            while steps and not steps & 1:
                steps >>= 1
                last >>= 1
        else:
            found_new = node_hash(found_new, sibling)
        steps >>= 1
        last >>= 1
    if last:
        raise VerificationError(what, "a longer proof", f"{len(proof)} hashes", "The proof is not for these sizes")
    return found_old, found_new


def _refuse_other_lengths(what: str, hashes: Sequence[bytes]) -> None:
    for found in hashes:
        if len(found) != HASH_BYTES:
            raise VerificationError(what, f"hashes of {HASH_BYTES} bytes", f"{len(found)}", "The proof is damaged")


def _split(start: int, end: int) -> int:
    """Where RFC 9162 divides leaves [start, end): after the largest power of two below their number."""
    return start + (1 << (end - start - 1).bit_length() - 1)


def _range_root(start: int, end: int, node: Node) -> bytes:
    """Root over leaves [start, end) of a subtree RFC 9162 forms: perfect subtrees from left to right, joined."""
    peaks = []
    while start < end:
        level = (end - start).bit_length() - 1
        peaks.append(node(level, start >> level))
        start += 1 << level
    return joined(peaks)


def joined(peaks: Sequence[bytes]) -> bytes:
    """Root over perfect subtrees from left to right."""
    if not peaks:
        return EMPTY_ROOT
    root = peaks[-1]
    for peak in reversed(peaks[:-1]):
        root = sha256(b"\x01" + peak + root).digest()
    return root
