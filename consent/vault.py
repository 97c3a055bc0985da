"""Contact data in the clear, kept apart: token to value, each sealed with AES-256-GCM under a key of its own. The only place besides raw files.

A value's key rests beside it, wrapped under the key-encryption key; both are bound to the token, so that neither opens under
another. A value that is erased goes with its key, and a copy in a backup goes when the key-encryption key is changed.
"""

import secrets
import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from consent.errors import ConsentError
from consent.ledger.databases import one_writer
from consent.ledger.keyring import NONCE_BYTES, kek_id
from troth.home import Home
from troth.sqlite import write_ahead

_AT_ONCE = 10_000  # SQLite binds up to 32,766 values in a statement
_TABLE = """
create table if not exists contacts (
    contact_ref text primary key, kek_id blob not null, wrapped blob not null, sealed blob not null
)
"""
_Row = tuple[bytes, bytes, bytes]  # id of the key-encryption key, wrapped key, sealed value


class Vault:
    """One retailer's contact data in a SQLite file."""

    def __init__(self, path: Path, keks: Sequence[bytes], former: Callable[[], bytes] | None = None) -> None:
        """`keks`: the first wraps, all of them open. `former`: the one key of a vault that was made before values had keys."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._current = kek_id(keks[0])
        self._keks = {kek_id(key): AESGCM(key) for key in keks}
        self._lock = threading.RLock()
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
        try:
            write_ahead(self._connection)
            self._connection.execute("pragma synchronous = full")
            self._connection.execute("pragma secure_delete = on")
            self._prepare(former)
        except sqlite3.DatabaseError as fault:
            self._connection.close()
            raise ConsentError(f"vault {path.name}: expected a SQLite database, found {fault}. Restore it.") from fault
        except BaseException:
            self._connection.close()
            raise

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
        with self._writing():
            held = set(self._held(list(wanted)))
            new = [(token, *self._seal(token, value)) for token, value in wanted.items() if token not in held]
            self._connection.executemany("insert into contacts values (?, ?, ?, ?)", sorted(new))
        return len(new)

    def get(self, tokens: Iterable[str]) -> dict[str, str]:
        """Values of the tokens that are held. Raises: ConsentError when one does not open under these keys."""
        with self._lock:
            held = self._held(list(dict.fromkeys(tokens)))
        return {token: _opened(self._key(token, row), token, row[2]).decode() for token, row in held.items()}

    def held(self, tokens: Iterable[str]) -> list[str]:
        """Which of the tokens have a value here."""
        with self._lock:
            return sorted(self._held(list(dict.fromkeys(tokens))))

    def replace(self, token: str, value: str) -> None:
        """Put a value in the place of the one held, which goes with its key: for what was wrong."""
        with self._writing():
            self._connection.execute("delete from contacts where contact_ref = ?", (token,))
            self._connection.execute("insert into contacts values (?, ?, ?, ?)", (token, *self._seal(token, value)))
        self._shred()

    def erase(self, tokens: Iterable[str]) -> int:
        """Delete values and their keys, and overwrite what is left of them in the file. How many were held.

        Raises: ConsentError while another process reads the journal that still names them: erase again.
        """
        with self._writing():
            count = sum(
                self._connection.execute("delete from contacts where contact_ref = ?", (token,)).rowcount
                for token in dict.fromkeys(tokens)
            )
        self._shred()
        return count

    def rewrap_keys(self) -> int:
        """Put every value's key under the current key-encryption key. How many were under another. May be repeated."""
        count = 0
        while True:
            with self._writing():
                stale: list[tuple[str, bytes, bytes, bytes]] = self._connection.execute(
                    "select contact_ref, kek_id, wrapped, sealed from contacts where kek_id <> ? limit ?",
                    (self._current, _AT_ONCE),
                ).fetchall()
                self._connection.executemany(
                    "update contacts set kek_id = ?, wrapped = ? where contact_ref = ?",
                    [(self._current, self._wrap(token, self._key(token, (*row,))), token) for token, *row in stale],
                )
            count += len(stale)
            if not stale:
                self._shred()
                return count

    @property
    def size(self) -> int:
        """How many values are held."""
        with self._lock:
            return int(self._connection.execute("select count(*) from contacts").fetchone()[0])

    def _prepare(self, former: Callable[[], bytes] | None) -> None:
        """The table, and what an older one held. The old table goes in the same transaction that fills the new one."""
        with self._writing():
            columns = [row[1] for row in self._connection.execute("pragma table_info(contacts)")]
            if columns != ["contact_ref", "sealed"]:
                self._connection.execute(_TABLE)
                return
            if former is None:
                raise ConsentError("vault: expected keys of values, found one key for all. Give that key, too.")
            key = former()
            rows = self._connection.execute("select contact_ref, sealed from contacts").fetchall()
            self._connection.execute("drop table contacts")
            self._connection.execute(_TABLE)
            self._connection.executemany(
                "insert into contacts values (?, ?, ?, ?)",
                [(token, *self._seal(token, _opened(key, token, sealed).decode())) for token, sealed in rows],
            )
        self._shred()

    def _seal(self, token: str, value: str) -> _Row:
        key = secrets.token_bytes(32)
        return self._current, self._wrap(token, key), _sealed(AESGCM(key), token, value.encode())

    def _wrap(self, token: str, key: bytes) -> bytes:
        return _sealed(self._keks[self._current], token, key)

    def _key(self, token: str, row: Sequence[bytes]) -> bytes:
        kek = self._keks.get(row[0])
        if kek is None:
            raise _does_not_open()
        return _opened(kek, token, row[1])

    def _held(self, tokens: Sequence[str]) -> dict[str, _Row]:
        found: dict[str, _Row] = {}
        for start in range(0, len(tokens), _AT_ONCE):
            part = tokens[start : start + _AT_ONCE]
            marks = ",".join("?" * len(part))
            query = f"select contact_ref, kek_id, wrapped, sealed from contacts where contact_ref in ({marks})"  # noqa: S608
            found.update(
                (token, (kek, wrapped, sealed)) for token, kek, wrapped, sealed in self._connection.execute(query, part)
            )
        return found

    def _writing(self) -> AbstractContextManager[None]:
        return one_writer(self._connection, self._lock)

    def _shred(self) -> None:
        """`secure_delete` has written zeros over what was deleted; here the journal that still holds it goes."""
        with self._lock:
            if self._connection.execute("pragma wal_checkpoint(truncate)").fetchone()[0]:
                raise ConsentError("vault: expected to overwrite its journal, found it being read. Try again.")


def _sealed(cipher: AESGCM, token: str, value: bytes) -> bytes:
    nonce = secrets.token_bytes(NONCE_BYTES)
    return nonce + cipher.encrypt(nonce, value, token.encode())


def _opened(key: bytes | AESGCM, token: str, sealed: bytes) -> bytes:
    cipher = AESGCM(key) if isinstance(key, bytes) else key
    try:
        return cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], token.encode())
    except InvalidTag:
        raise _does_not_open() from None


def _does_not_open() -> ConsentError:
    return ConsentError(
        "vault: expected values sealed under these keys, found one that does not open. Restore the vault and its keys together."
    )


def open_vault(home: Home) -> Vault:
    """The home's vault, under the home's key-encryption keys."""
    return Vault(home.vault, home.keks(), lambda: home.key("vault"))
