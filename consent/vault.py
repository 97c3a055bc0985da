"""Contact data in the clear, kept apart: token to value, sealed with AES-256-GCM. The only place besides raw files.

A value is bound to its token, so that a sealed value moved under another token does not open.
"""

import secrets
import sqlite3
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from consent.errors import ConsentError
from troth.home import Home

NONCE_BYTES = 12  # NIST SP 800-38D, 8.2.2: random, so at most 2^32 values under one key
_AT_ONCE = 10_000  # SQLite binds up to 32,766 values in a statement


class Vault:
    """One retailer's contact data in a SQLite file, under one key."""

    def __init__(self, path: Path, key: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._cipher = AESGCM(key)
        self._lock = threading.RLock()
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
        try:
            self._connection.execute("pragma journal_mode = wal")
            self._connection.execute("pragma synchronous = full")
            self._connection.execute(
                "create table if not exists contacts (contact_ref text primary key, sealed blob not null)"
            )
        except sqlite3.DatabaseError as fault:
            self._connection.close()
            raise ConsentError(f"vault {path.name}: expected a SQLite database, found {fault}. Restore it.") from fault

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def put(self, contacts: Iterable[tuple[str, str]]) -> int:
        """Keep (token, value) pairs, durable on return; a token already held keeps its value. How many were new."""
        wanted = dict(contacts)
        with self._lock:
            self._connection.execute("begin immediate")
            try:
                held = set(self._sealed(list(wanted)))
                new = [(token, self._seal(token, value)) for token, value in wanted.items() if token not in held]
                self._connection.executemany("insert into contacts values (?, ?)", sorted(new))
                self._connection.execute("commit")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("rollback")
                raise
        return len(new)

    def get(self, tokens: Iterable[str]) -> dict[str, str]:
        """Values of the tokens that are held. Raises: ConsentError when one does not open under this key."""
        with self._lock:
            sealed = self._sealed(list(dict.fromkeys(tokens)))
        try:
            return {
                token: self._cipher.decrypt(value[:NONCE_BYTES], value[NONCE_BYTES:], token.encode()).decode()
                for token, value in sealed.items()
            }
        except InvalidTag:
            raise ConsentError(
                "vault: expected values sealed under this key, found one that does not open. "
                "Restore the vault and its key together."
            ) from None

    @property
    def size(self) -> int:
        """How many values are held."""
        with self._lock:
            return int(self._connection.execute("select count(*) from contacts").fetchone()[0])

    def _seal(self, token: str, value: str) -> bytes:
        nonce = secrets.token_bytes(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, value.encode(), token.encode())

    def _sealed(self, tokens: Sequence[str]) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        for start in range(0, len(tokens), _AT_ONCE):
            part = tokens[start : start + _AT_ONCE]
            marks = ",".join("?" * len(part))
            query = f"select contact_ref, sealed from contacts where contact_ref in ({marks})"  # noqa: S608
            found.update(self._connection.execute(query, part).fetchall())
        return found


def open_vault(home: Home) -> Vault:
    """The home's vault, under the home's key."""
    return Vault(home.vault, home.key("vault"))
