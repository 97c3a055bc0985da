"""Neighbouring events of one subject share a payload; each is found alone, and none without its key or changed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consent.errors import LedgerError
from consent.ledger import payloads
from consent.ledger.keyring import Cipher, KeyRing, WrappedKey, block_of
from consent.ledger.preparing import Prepared
from consent.ledger.store import Batch
from consent.log.index import KEY_BYTES, SUBJECT_BYTES
from consent.log.merkle import commitment

FIRST = 70
WHO = st.lists(st.sampled_from("abc"), min_size=1, max_size=12)


class Shelf:
    """Keys in memory, in the place of a store."""

    def __init__(self) -> None:
        self.keys: list[WrappedKey] = []

    def keys_of(self, places: object) -> list[WrappedKey]:
        return [key for key in self.keys if (key.block, key.subject_key) in set(places)]  # type: ignore[call-overload]

    def add_keys(self, keys: object) -> None:
        self.keys += keys  # type: ignore[operator]


def batch_of(who: list[str]) -> tuple[Batch, list[bytes], dict[bytes, Cipher]]:
    """A batch sealed with a key for each of whom it speaks, its events, and the keys."""
    events = [f"{each} said {number}".encode() for number, each in enumerate(who)]
    prepared = Prepared.of([each.encode() * KEY_BYTES for each in who], events)
    borders = payloads.subject_runs(prepared.entries)
    ciphers = KeyRing([bytes(32)]).for_sealing({each.encode() * SUBJECT_BYTES: 0 for each in who}, {}, Shelf())
    return Batch(FIRST, len(who), prepared.entries, *payloads.sealed(prepared, borders, ciphers)), events, ciphers


@given(WHO)
def test_a_payload_covers_each_run_of_one_subject(who: list[str]) -> None:
    batch, _, _ = batch_of(who)
    changes = [at for at in range(len(who)) if not at or who[at] != who[at - 1]]
    assert payloads.subject_runs(batch.entries) == [*changes, len(who)]
    lengths = [int.from_bytes(batch.lengths[at : at + 4]) for at in range(0, len(batch.lengths), 4)]
    assert [at for at, length in enumerate(lengths) if length] == changes
    assert sum(lengths) == len(batch.payloads)


@given(WHO, st.data())
def test_any_stretch_opens_to_what_was_said_under_the_keys_there_are(who: list[str], data: st.DataObject) -> None:
    batch, events, ciphers = batch_of(who)
    start = data.draw(st.integers(FIRST - 5, FIRST + len(who) + 5))
    stop = data.draw(st.integers(start, FIRST + len(who) + 5))
    gone = data.draw(st.sampled_from("abcd")).encode() * SUBJECT_BYTES
    left = {subject: cipher for subject, cipher in ciphers.items() if subject != gone}
    asked: list[tuple[int, bytes]] = []

    def ciphers_of(places: payloads.Places) -> dict[bytes, Cipher]:
        asked.extend(places)
        return left

    found = list(payloads.opened(batch, start, stop, ciphers_of))
    assert [leaf for leaf, _, _ in found] == list(range(max(start, FIRST), min(stop, FIRST + len(who))))
    for leaf, entry, opened in found:
        assert entry == batch.entries[(leaf - FIRST) * 64 : (leaf - FIRST + 1) * 64]
        assert (opened is None) == (entry[:SUBJECT_BYTES] == gone)
        if opened is not None:
            assert opened.event == events[leaf - FIRST]
            assert entry[KEY_BYTES:] == commitment(opened.salt, opened.event)
    assert {subject for _, subject in asked} == {entry[:SUBJECT_BYTES] for _, entry, _ in found}
    assert {block for block, _ in asked} <= {block_of(cipher.key_id) for cipher in ciphers.values()}


@given(WHO, st.data())
def test_a_changed_byte_never_opens_to_something_else(who: list[str], data: st.DataObject) -> None:
    batch, events, ciphers = batch_of(who)
    column = data.draw(st.sampled_from(["entries", "lengths", "payloads"]))
    at = data.draw(st.integers(0, len(getattr(batch, column)) - 1))
    changed = bytearray(getattr(batch, column))
    changed[at] ^= data.draw(st.integers(1, 255))
    broken = batch._replace(**{column: bytes(changed)})
    try:
        found = list(payloads.opened(broken, FIRST, FIRST + len(who), lambda _: ciphers))
    except LedgerError:
        return
    assert all(opened is None or opened.event == events[leaf - FIRST] for leaf, _, opened in found)
    assert any(opened is None for _, _, opened in found)


@pytest.mark.parametrize("lengths", [b"", bytes(8), b"\0\0\0\x01"])
def test_lengths_of_other_leaves_or_bytes_are_refused(lengths: bytes) -> None:
    batch, _, ciphers = batch_of(["a", "b"])
    with pytest.raises(LedgerError, match="expected lengths of all 2 leaves"):
        list(payloads.opened(batch._replace(lengths=lengths), FIRST, FIRST + 2, lambda _: ciphers))
