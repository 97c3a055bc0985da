"""Bulk import, proofs from disk, verification and re-derivation of a ledger of a million events, or of as many as asked."""

import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.harness import Measure, conditions
from troth.errors import TrothError

SUMMARY = "A million consent events (or --scale 10M): import under checkpoints of 1,000, proofs from disk, verification"
SIZES = {"100k": 100_000, "1M": 1_000_000, "3M": 3_000_000, "10M": 10_000_000}
PART = 500_000
PROOFS = 20_000
PEER_LEAVES = 22_000
REDERIVED = 1_000_000


def measure(scale: str | None) -> Iterator[Measure]:
    """Events/s of import (all, and the slowest part), proofs/s, verifications/s, seconds to re-derive a root.

    Raises: TrothError for a size that is not listed, or when something does not verify.
    """
    size = SIZES.get(scale or "1M")
    if size is None:
        raise TrothError(f"ledger_bulk: expected --scale {', '.join(SIZES)}, found {scale}. Choose one.")
    from benchmarks.consent_events import Events
    from benchmarks.databases import opened_ledger

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        peer = _Peer.measured(folder, min(size, 200_000))
        with opened_ledger(folder) as ledger:
            events, parts = Events(), []
            for start in range(0, size, PART):
                frame = events.frame(min(PART, size - start))
                began = time.perf_counter()
                ledger.append_frame(frame)
                parts.append((frame.height, time.perf_counter() - began))
            state = conditions(
                events=size, batch=1_000, bytes_on_disk=sum(path.stat().st_size for path in folder.glob("ledger.db*")),
                peak_megabytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
                included="validation, canonical JSON, commitment, AES-256-GCM per subject, index, sync and Ed25519 per 1,000",
            )  # fmt: skip
            rate = size / sum(seconds for _, seconds in parts)
            bulk = "pymerkle SqliteTree, one transaction, no signature, no encryption"
            yield Measure(
                "bulk_append",
                rate,
                "events/s",
                "higher",
                50_000 / peer["bulk"] if peer else 50_000,
                bulk,
                peer.get("bulk"),
                state,
            )
            slowest = min(count / seconds for count, seconds in parts)
            yield Measure("bulk_append_slowest_part", slowest, "events/s", "higher", conditions=state)
            yield from _proofs(ledger, size, peer, state)
            yield from _states(ledger, frame, state)
            yield from _rederived(ledger, size, state)


def _proofs(ledger: Any, size: int, peer: dict[str, float], state: dict[str, Any]) -> Iterator[Measure]:
    from consent.log.merkle import verify_inclusion

    chance = Random(3)
    asked = [[chance.randrange(size) for _ in range(1_000)] for _ in range(PROOFS // 1_000)]
    began = time.perf_counter()
    proofs = [ledger.inclusion_proofs(leaves) for leaves in asked]
    together = PROOFS / (time.perf_counter() - began)
    began = time.perf_counter()
    for leaf in asked[0]:
        ledger.inclusion_proof(leaf)
    alone = len(asked[0]) / (time.perf_counter() - began)
    where = f"pymerkle SqliteTree at {PEER_LEAVES} leaves"
    yield Measure(
        "inclusion_proofs", together, "proofs/s", "higher", 20_000 / peer["prove"] if peer else 20_000, where, peer.get("prove"),
        {**state, "asked": "1,000 random leaves a call", "leaves": size},
    )  # fmt: skip
    yield Measure("inclusion_proof_one_by_one", alone, "proofs/s", "higher", None, where, peer.get("prove"), state)
    leaves = [leaf for part in asked for leaf in part]
    paths = [path for part in proofs for path in part]
    hashes, root = [ledger.leaf_hash(leaf) for leaf in leaves], ledger.root()
    began = time.perf_counter()
    for leaf, found, path in zip(leaves, hashes, paths, strict=True):
        verify_inclusion(found, leaf, size, path, root)
    verified = PROOFS / (time.perf_counter() - began)
    yield Measure(
        "verify_inclusion", verified, "proofs/s", "higher", 40_000 / peer["verify"] if peer else 40_000,
        f"pymerkle verify_inclusion at {PEER_LEAVES} leaves", peer.get("verify"), state,
    )  # fmt: skip


def _states(ledger: Any, frame: Any, state: dict[str, Any]) -> Iterator[Measure]:
    """Complete histories: proved from disk, and checked."""
    import json

    from consent.log.entry import prefix_of
    from consent.log.index import verify_state_proof
    from consent.log.note import open_checkpoint

    subjects = frame["subject_id"].unique().sample(500, seed=3).to_list()
    began = time.perf_counter()
    proofs = [ledger.state_proof(subject) for subject in subjects]
    proved = len(subjects) / (time.perf_counter() - began)
    signed = open_checkpoint(ledger.checkpoint(), ledger.verifier)
    began = time.perf_counter()
    for subject, proof in zip(subjects, proofs, strict=True):
        if not verify_state_proof(proof, prefix_of(subject), signed.size, signed.state_root):
            raise TrothError("ledger_bulk: expected events of every subject, found none. A fault of the index.")
    checked = len(subjects) / (time.perf_counter() - began)
    size = sum(len(json.dumps(proof)) for proof in proofs) // len(proofs)
    yield Measure(
        "state_proofs",
        proved,
        "proofs/s",
        "higher",
        conditions={**state, "bytes": size, "runs": len(proofs[0]["runs"])},
    )
    yield Measure("verify_state_proof", checked, "proofs/s", "higher", conditions=state)


def _rederived(ledger: Any, size: int, state: dict[str, Any]) -> Iterator[Measure]:
    size = min(size, REDERIVED)
    began = time.perf_counter()
    root = ledger.rederived_root(size)
    seconds = time.perf_counter() - began
    if root != ledger.root(size):
        raise TrothError(f"ledger_bulk: expected the root of {size} leaves, found another. A fault of the ledger.")
    yield Measure(
        "rederive_root",
        seconds,
        "seconds",
        "lower",
        3 if size == REDERIVED else None,
        conditions={**state, "leaves": size},
    )


class _Peer:
    @staticmethod
    def measured(folder: Path, size: int) -> dict[str, float]:
        """Rates of pymerkle's durable tree; empty where it is not installed."""
        try:
            from pymerkle import SqliteTree, verify_inclusion
        except ImportError:
            return {}
        from benchmarks.consent_events import Events
        from consent.events import encode_frame

        entries = encode_frame(Events().frame(size))
        tree = SqliteTree(str(folder / "peer.db"))
        began = time.perf_counter()
        tree.append_entries(entries)
        bulk = size / (time.perf_counter() - began)
        small = SqliteTree(str(folder / "small.db"))
        small.append_entries(entries[:PEER_LEAVES])
        leaves = [Random(3).randrange(1, PEER_LEAVES) for _ in range(500)]
        began = time.perf_counter()
        proofs = [small.prove_inclusion(leaf) for leaf in leaves]
        prove = len(leaves) / (time.perf_counter() - began)
        bases, root = [small.get_leaf(leaf) for leaf in leaves], small.get_state()
        began = time.perf_counter()
        for base, proof in zip(bases, proofs, strict=True):
            verify_inclusion(base, root, proof)
        return {"bulk": bulk, "prove": prove, "verify": len(leaves) / (time.perf_counter() - began)}
