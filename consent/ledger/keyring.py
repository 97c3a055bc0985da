"""A key of its own for every subject, wrapped under a key-encryption key; destroying it is what makes erased mean gone.

A payload is `key id || nonce || AES-256-GCM(salt || event)`, bound to the log's entry of the event.
Wrapped keys rest in the ledger's store, the key-encryption keys in files of their own or with whoever starts the process.
"""

import secrets
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import NamedTuple, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from consent.errors import LedgerError

KEY_BYTES = 32
KEY_ID_BYTES = 8  # block of its subject's first leaf, then a random mark: who comes back gets another key
_MARK_BYTES = 4
NONCE_BYTES = 12  # NIST SP 800-38D, 8.2.2: random, so at most 2^32 values under one key
_HELD = 200_000  # ciphers kept in memory


class WrappedKey(NamedTuple):
    """A subject's key as stored: where, whose, its id, the id of the key it is wrapped under, nonce and ciphertext.

    `block` is that of the subject's first leaf: keys that are made together rest together.
    """

    block: int
    subject_key: bytes
    key_id: bytes
    kek_id: bytes
    wrapped: bytes


class Cipher(NamedTuple):
    """A subject's key, ready to use, and its id."""

    key_id: bytes
    aes: AESGCM


class KeyStore(Protocol):
    """Where wrapped keys rest."""

    def keys_of(self, places: Iterable[tuple[int, bytes]]) -> list[WrappedKey]:
        """The keys there are of these (block, subject)."""
        ...

    def add_keys(self, keys: Iterable[WrappedKey]) -> None: ...


def block_of(key_id: bytes) -> int:
    """Where the key of this id rests; a payload begins with it."""
    return int.from_bytes(key_id[: KEY_ID_BYTES - _MARK_BYTES])


def kek_id(key: bytes) -> bytes:
    """What a key-encryption key is called; says nothing about it."""
    return sha256(b"troth-kek-v1\0" + key).digest()[:KEY_ID_BYTES]


class KeyRing:
    """Subjects' keys in memory, opened with the key-encryption keys at hand; the first of them wraps new ones."""

    def __init__(self, keks: Sequence[bytes]) -> None:
        if not keks or any(len(key) != KEY_BYTES for key in keks):
            raise LedgerError("key-encryption key: expected 32 bytes, found none. Restore it from its backup.")
        self._current = kek_id(keks[0])
        self._keks: Mapping[bytes, AESGCM] = {kek_id(key): AESGCM(key) for key in keks}
        self._held: dict[bytes, Cipher] = {}

    def missing(self, subject_keys: Iterable[bytes]) -> list[bytes]:
        """Subjects whose cipher is not at hand."""
        if len(self._held) > _HELD:
            self._held.clear()
        return [subject for subject in subject_keys if subject not in self._held]

    def for_sealing(
        self, here: Mapping[bytes, int], blocks: Mapping[bytes, int], store: KeyStore
    ) -> dict[bytes, Cipher]:
        """The cipher of every subject in `here`, which says the block a new one's key is made in.

        `blocks`: where the keys of those may be that are not at hand and not new. Call it inside the write that uses them.
        """
        self._held.update(self.for_opening([(block, subject) for subject, block in blocks.items()], store))
        new = [(blocks.get(subject, block), subject) for subject, block in here.items() if subject not in self._held]
        if new:
            store.add_keys(self._made(sorted(new)))
        return {subject: self._held[subject] for subject in here}

    def for_opening(self, places: Iterable[tuple[int, bytes]], store: KeyStore) -> dict[bytes, Cipher]:
        """The ciphers that exist, read afresh: a key destroyed by another process is not among them."""
        return {key.subject_key: Cipher(key.key_id, AESGCM(self._unwrapped(key))) for key in store.keys_of(places)}

    def forget(self, subject_keys: Iterable[bytes] | None = None) -> None:
        """Drop ciphers from memory; all of them when none are named."""
        if subject_keys is None:
            self._held.clear()
        else:
            for subject in subject_keys:
                self._held.pop(subject, None)

    def is_current(self, key: WrappedKey) -> bool:
        return key.kek_id == self._current

    def rewrapped(self, key: WrappedKey) -> WrappedKey:
        """The same key under the current key-encryption key."""
        return self._wrapped(key.subject_key, key.key_id, self._unwrapped(key), secrets.token_bytes(NONCE_BYTES))

    def _made(self, places: Sequence[tuple[int, bytes]]) -> list[WrappedKey]:
        """New keys for subjects, each made in a block."""
        width = KEY_BYTES + _MARK_BYTES + NONCE_BYTES
        drawn = secrets.token_bytes(len(places) * width)
        made = []
        for number, (block, subject) in enumerate(places):
            random = drawn[number * width : (number + 1) * width]
            key, mark, nonce = random[:KEY_BYTES], random[KEY_BYTES:-NONCE_BYTES], random[-NONCE_BYTES:]
            key_id = block.to_bytes(KEY_ID_BYTES - _MARK_BYTES) + mark
            self._held[subject] = Cipher(key_id, AESGCM(key))
            made.append(self._wrapped(subject, key_id, key, nonce))
        return made

    def _wrapped(self, subject: bytes, key_id: bytes, key: bytes, nonce: bytes) -> WrappedKey:
        sealed = self._keks[self._current].encrypt(nonce, key, subject + key_id)
        return WrappedKey(block_of(key_id), subject, key_id, self._current, nonce + sealed)

    def _unwrapped(self, key: WrappedKey) -> bytes:
        kek = self._keks.get(key.kek_id)
        if kek is None:
            raise LedgerError(
                f"key-encryption key: expected {key.kek_id.hex()}, found {', '.join(k.hex() for k in self._keks)}. "
                "Give the key this ledger was written under."
            )
        try:
            return kek.decrypt(key.wrapped[:NONCE_BYTES], key.wrapped[NONCE_BYTES:], key.subject_key + key.key_id)
        except InvalidTag:
            raise LedgerError(
                "subject key: expected one wrapped under this key, found a damaged one. Restore it."
            ) from None


def seal(cipher: Cipher, nonce: bytes, told: bytes, entry: bytes) -> bytes:
    """The payload of `salt || event`."""
    return cipher.key_id + nonce + cipher.aes.encrypt(nonce, told, entry)


def unseal(cipher: Cipher | None, payload: bytes, entry: bytes) -> bytes | None:
    """`salt || event` of a payload; None where its key is destroyed. Raises: LedgerError when it was changed."""
    if cipher is None or payload[:KEY_ID_BYTES] != cipher.key_id:
        return None
    nonce = payload[KEY_ID_BYTES : KEY_ID_BYTES + NONCE_BYTES]
    try:
        return cipher.aes.decrypt(nonce, payload[KEY_ID_BYTES + NONCE_BYTES :], entry)
    except InvalidTag:
        raise LedgerError(
            "ledger payload: expected one that opens under its subject's key, found a changed one. Restore it from a backup."
        ) from None
