"""Subjects' keys: opened by the right key-encryption key alone, damaged ones refused, destroyed ones gone."""

import secrets
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consent.errors import LedgerError
from consent.ledger.keyring import KEY_ID_BYTES, KeyRing, WrappedKey, block_of, kek_id, seal, unseal

KEK, NEXT = bytes(range(32)), bytes(range(32, 64))
ALMA, BEA, CARLOS = (name.encode().ljust(16, b"\0") for name in ("alma", "bea", "carlos"))
ENTRY = b"e" * 64


class Shelf:
    """Wrapped keys in a dictionary."""

    def __init__(self) -> None:
        self.keys: dict[tuple[int, bytes], WrappedKey] = {}

    def keys_of(self, places: Iterable[tuple[int, bytes]]) -> list[WrappedKey]:
        return [self.keys[place] for place in places if place in self.keys]

    def add_keys(self, keys: Iterable[WrappedKey]) -> None:
        for key in keys:
            assert (key.block, key.subject_key) not in self.keys
            self.keys[key.block, key.subject_key] = key

    def replace(self, key: WrappedKey) -> None:
        self.keys[key.block, key.subject_key] = key


def sealed(ring: KeyRing, shelf: Shelf, subject: bytes, told: bytes, block: int = 0) -> bytes:
    cipher = ring.for_sealing({subject: block}, dict.fromkeys(ring.missing([subject]), block), shelf)[subject]
    return seal(cipher, secrets.token_bytes(12), told, ENTRY)


def opened(ring: KeyRing, shelf: Shelf, subject: bytes, payload: bytes, entry: bytes = ENTRY) -> bytes | None:
    return unseal(ring.for_opening([(block_of(payload), subject)], shelf).get(subject), payload, entry)


@given(told=st.binary(max_size=300), block=st.integers(0, 2**32 - 1))
def test_what_is_sealed_opens_in_another_process_that_has_the_key(told: bytes, block: int) -> None:
    shelf = Shelf()
    payload = sealed(KeyRing([KEK]), shelf, ALMA, told, block)
    assert block_of(payload) == block
    assert opened(KeyRing([KEK]), shelf, ALMA, payload) == told


@given(told=st.binary(min_size=1, max_size=40), data=st.data())
def test_every_changed_bit_of_a_payload_or_its_entry_is_refused_or_of_no_key(told: bytes, data: st.DataObject) -> None:
    shelf, ring = Shelf(), KeyRing([KEK])
    payload = sealed(ring, shelf, ALMA, told)
    cipher = ring.for_opening([(0, ALMA)], shelf)[ALMA]
    bit = data.draw(st.integers(0, len(payload) * 8 - 1))
    changed = (int.from_bytes(payload) ^ 1 << bit).to_bytes(len(payload))
    if changed[:KEY_ID_BYTES] != payload[:KEY_ID_BYTES]:
        assert unseal(cipher, changed, ENTRY) is None  # what verify() refuses unless an erasure explains it
    else:
        with pytest.raises(LedgerError, match="found a changed one"):
            unseal(cipher, changed, ENTRY)
    with pytest.raises(LedgerError, match="found a changed one"):
        unseal(cipher, payload, ENTRY[:-1] + b"f")


def test_one_subject_has_one_key_and_two_have_two() -> None:
    shelf, ring = Shelf(), KeyRing([KEK])
    first, second, other = (sealed(ring, shelf, who, b"x") for who in (ALMA, ALMA, BEA))
    assert first[:KEY_ID_BYTES] == second[:KEY_ID_BYTES] != other[:KEY_ID_BYTES]
    assert first[KEY_ID_BYTES:] != second[KEY_ID_BYTES:]
    assert len(shelf.keys) == 2


def test_a_key_is_found_where_it_was_made_and_new_ones_are_made_where_their_subject_begins() -> None:
    shelf = Shelf()
    KeyRing([KEK]).for_sealing({ALMA: 3, BEA: 4}, {}, shelf)
    KeyRing([KEK]).for_sealing({ALMA: 9, BEA: 9, CARLOS: 9}, {ALMA: 3, BEA: 4}, shelf)
    assert sorted(shelf.keys) == [(3, ALMA), (4, BEA), (9, CARLOS)]


def test_a_destroyed_key_opens_nothing_and_who_comes_back_has_another() -> None:
    shelf, ring = Shelf(), KeyRing([KEK])
    payload = sealed(ring, shelf, ALMA, b"before", 5)
    del shelf.keys[5, ALMA]
    ring.forget([ALMA])
    assert opened(ring, shelf, ALMA, payload) is None
    later = sealed(ring, shelf, ALMA, b"after", 5)
    assert opened(ring, shelf, ALMA, payload) is None
    assert opened(ring, shelf, ALMA, later) == b"after"


def test_another_key_encryption_key_is_named_and_refused_without_saying_either() -> None:
    shelf = Shelf()
    payload = sealed(KeyRing([KEK]), shelf, ALMA, b"told")
    with pytest.raises(LedgerError, match=f"expected {kek_id(KEK).hex()}, found {kek_id(NEXT).hex()}") as refusal:
        opened(KeyRing([NEXT]), shelf, ALMA, payload)
    assert KEK.hex() not in str(refusal.value)
    assert NEXT.hex() not in str(refusal.value)


@pytest.mark.parametrize("keks", [[], [b"short"], [KEK, b""], [KEK + b"\0"]])
def test_a_ring_without_whole_keys_is_refused(keks: list[bytes]) -> None:
    with pytest.raises(LedgerError, match="expected 32 bytes"):
        KeyRing(keks)


@given(st.data())
def test_every_changed_bit_of_a_wrapped_key_is_refused(data: st.DataObject) -> None:
    shelf = Shelf()
    payload = sealed(KeyRing([KEK]), shelf, ALMA, b"told", 7)
    key = shelf.keys[7, ALMA]
    name = data.draw(st.sampled_from(["key_id", "kek_id", "wrapped", "subject_key"]))
    value: bytes = getattr(key, name)
    bit = data.draw(st.integers(0, len(value) * 8 - 1))
    shelf.replace(key._replace(**{name: (int.from_bytes(value) ^ 1 << bit).to_bytes(len(value))}))
    damaged = next(each for each in shelf.keys.values() if each != key)
    shelf.keys = {(7, ALMA): damaged}
    with pytest.raises(LedgerError, match=r"found a damaged one|Give the key this ledger was written under"):
        opened(KeyRing([KEK]), shelf, ALMA, payload)


def test_a_wrapped_key_put_in_anothers_place_is_refused() -> None:
    shelf, ring = Shelf(), KeyRing([KEK])
    payload = sealed(ring, shelf, ALMA, b"told")
    sealed(ring, shelf, BEA, b"told")
    shelf.replace(shelf.keys[0, BEA]._replace(subject_key=ALMA))
    with pytest.raises(LedgerError, match="found a damaged one"):
        opened(KeyRing([KEK]), shelf, ALMA, payload)


def test_half_rotated_with_both_keys_at_hand_everything_opens_and_in_the_end_one_is_enough() -> None:
    shelf, people = Shelf(), [ALMA, BEA, CARLOS]
    old = KeyRing([KEK])
    payloads = {who: sealed(old, shelf, who, who) for who in people}
    both = KeyRing([NEXT, KEK])
    first, *rest = list(shelf.keys.values())
    shelf.replace(both.rewrapped(first))
    assert {who: opened(both, shelf, who, payload) for who, payload in payloads.items()} == {who: who for who in people}
    assert [both.is_current(key) for key in shelf.keys.values()] == [True, False, False]
    with pytest.raises(LedgerError, match="Give the key"):
        KeyRing([NEXT]).for_opening([(0, rest[0].subject_key)], shelf)
    for key in rest:
        shelf.replace(both.rewrapped(key))
    assert {who: opened(KeyRing([NEXT]), shelf, who, payload) for who, payload in payloads.items()} == {
        who: who for who in people
    }
    with pytest.raises(LedgerError, match="Give the key"):
        KeyRing([KEK]).for_opening([(0, ALMA)], shelf)


def test_new_keys_are_wrapped_under_the_first_key_encryption_key() -> None:
    shelf = Shelf()
    sealed(KeyRing([NEXT, KEK]), shelf, ALMA, b"told")
    assert shelf.keys[0, ALMA].kek_id == kek_id(NEXT)
