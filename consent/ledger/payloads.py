"""What rests sealed beside the log: neighbouring events of one subject in one write share a payload.

A payload is sealed under its subject's key (`keyring.py`) over the salts of its events, then their lines; it is bound to all their entries.
`lengths` holds one number per leaf: the payload's at its first leaf, nought at those that share it.
"""

import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import pairwise

import numpy as np

from consent.errors import LedgerError
from consent.ledger.keyring import NONCE_BYTES, Cipher, block_of, seal, unseal
from consent.ledger.preparing import Prepared
from consent.ledger.store import Batch
from consent.log.audit import Opened
from consent.log.entry import ENTRY_BYTES, SALT_BYTES
from consent.log.index import SUBJECT_BYTES

_LENGTH = np.dtype(">u4")
Places = Iterable[tuple[int, bytes]]  # (block, subject)


def subject_runs(entries: bytes) -> list[int]:
    """Where in concatenated entries each run of one subject begins, and, last, how many entries there are."""
    words = np.frombuffer(entries, np.uint64).reshape(-1, ENTRY_BYTES // 8)[:, : SUBJECT_BYTES // 8]
    changes = (words[1:] != words[:-1]).any(axis=1)
    return [0, *(np.flatnonzero(changes) + 1).tolist(), len(words)]


def sealed(prepared: Prepared, borders: list[int], ciphers: Mapping[bytes, Cipher]) -> tuple[bytes, bytes]:
    """Lengths and payloads of events, by the runs between `borders`."""
    entries, salts, events = prepared.entries, prepared.salts, prepared.events
    ends = [0, *prepared.lengths.cumsum(dtype=np.int64).tolist()]
    nonces = secrets.token_bytes(len(borders) * NONCE_BYTES)
    lengths = np.zeros(len(prepared), _LENGTH)
    payloads = []
    for number, (start, stop) in enumerate(pairwise(borders)):
        said = salts[start * SALT_BYTES : stop * SALT_BYTES] + events[ends[start] : ends[stop] - 1]
        bound = entries[start * ENTRY_BYTES : stop * ENTRY_BYTES]
        nonce = nonces[number * NONCE_BYTES : (number + 1) * NONCE_BYTES]
        payloads.append(seal(ciphers[bound[:SUBJECT_BYTES]], nonce, said, bound))
    lengths[borders[:-1]] = [len(payload) for payload in payloads]
    return lengths.tobytes(), b"".join(payloads)


def opened(
    batch: Batch, start: int, stop: int, ciphers_of: Callable[[Places], Mapping[bytes, Cipher]]
) -> Iterator[tuple[int, bytes, Opened | None]]:
    """Those of leaves [start, stop) that a batch holds, each with its entry and what is known of it: None without its key.

    Raises: LedgerError when a payload is not what was sealed.
    """
    first = batch.first_leaf
    borders, ends = _places(batch)
    wanted = range(max(start - first, 0), min(stop - first, batch.leaf_count))
    if not wanted:
        return
    runs = range(_run_of(borders, wanted[0]), _run_of(borders, wanted[-1]) + 1)
    entries = {
        number: batch.entries[borders[number] * ENTRY_BYTES : borders[number + 1] * ENTRY_BYTES] for number in runs
    }
    payloads = {number: batch.payloads[ends[number] : ends[number + 1]] for number in runs}
    ciphers = ciphers_of({(block_of(payloads[number]), entries[number][:SUBJECT_BYTES]) for number in runs})
    for number in runs:
        bound = entries[number]
        found = _parted(unseal(ciphers.get(bound[:SUBJECT_BYTES]), payloads[number], bound), len(bound) // ENTRY_BYTES)
        for at, said in enumerate(found, borders[number]):
            if at in wanted:
                inside = (at - borders[number]) * ENTRY_BYTES
                yield first + at, bound[inside : inside + ENTRY_BYTES], said


def _places(batch: Batch) -> tuple[list[int], list[int]]:
    """Where payloads begin, in leaves and in bytes; last, where all end."""
    lengths = np.frombuffer(batch.lengths, _LENGTH).astype(np.int64)
    starts = np.flatnonzero(lengths)
    ends = [0, *lengths[starts].cumsum().tolist()]
    if len(lengths) != batch.leaf_count or not len(starts) or starts[0] or ends[-1] != len(batch.payloads):
        raise LedgerError(
            f"ledger payloads from leaf {batch.first_leaf}: expected lengths of all {batch.leaf_count} leaves, found others. "
            "Restore the ledger from a backup."
        )
    return [*starts.tolist(), len(lengths)], ends


def _run_of(borders: list[int], at: int) -> int:
    return int(np.searchsorted(borders, at, "right")) - 1


def _parted(said: bytes | None, count: int) -> list[Opened] | list[None]:
    """The events of an opened payload."""
    if said is None:
        return [None] * count
    events = said[count * SALT_BYTES :].split(b"\n")
    if len(events) != count:
        raise LedgerError(
            f"ledger payload: expected {count} events, found {len(events)}. Restore the ledger from a backup."
        )
    salts = (said[at : at + SALT_BYTES] for at in range(0, count * SALT_BYTES, SALT_BYTES))
    return [Opened(event, salt) for event, salt in zip(events, salts, strict=True)]
