"""Accounts of the home itself (`keys/accounts.json`), for those who have no identity provider. Passwords are kept as Argon2id hashes.

Parameters by OWASP's Password Storage Cheat Sheet (19 MiB, two passes, one lane); length and the absence of other rules by
NIST SP 800-63B-4, section 3.1.1: at least 15 characters where a password is all there is.
"""

import os
import re
import secrets
from collections.abc import Sequence
from datetime import datetime
from functools import cache
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from serving.console.roles import ROLES
from serving.errors import ServingError
from serving.keys import changing
from troth.home import Home, write_atomically

LEAST_PASSWORD, MOST_PASSWORD = 15, 256
_NAME = re.compile(r"[a-z][a-z0-9._-]{1,62}")
_MEMORY_KIB, _PASSES, _LANES, _BYTES = 19_456, 2, 1, 32


class Account(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Somebody who may sign in. `mark` changes with the password and the roles: sessions of another mark have ended."""

    name: str
    roles: tuple[str, ...]
    password_hash: str
    made_at: datetime
    mark: str


def add(home: Home, name: str, roles: Sequence[str], at: datetime, password: str | None = None) -> str:
    """Make an account, or give one a new password and other roles; returns the password, a random one where none is given.

    Raises: ServingError for a name or a role that is none, or a password too short or too long.
    """
    if not _NAME.fullmatch(name):
        raise ServingError(
            f"account: expected small letters, digits, dots, dashes and underscores, found {name[:64]!r}. Choose another name."
        )
    if odd := sorted(set(roles) - set(ROLES)) or ([] if roles else ["none"]):
        raise ServingError(f"account {name}: expected roles among {list(ROLES)}, found {odd}. Correct them.")
    chosen = secrets.token_urlsafe(18) if password is None else password
    if not LEAST_PASSWORD <= len(chosen) <= MOST_PASSWORD or name in chosen.lower():
        raise ServingError(
            f"password: expected {LEAST_PASSWORD} to {MOST_PASSWORD} characters without the account's name, found another. "
            "Choose some words that nobody would guess."
        )
    account = Account(
        name=name,
        roles=tuple(dict.fromkeys(roles)),
        password_hash=hashed(chosen),
        made_at=at,
        mark=secrets.token_hex(8),
    )
    with changing(home):
        _write(home, [*(each for each in accounts(home) if each.name != name), account])
    return chosen


def remove(home: Home, name: str) -> bool:
    """Forget an account: its sessions end with the next page. False when there is none of that name."""
    with changing(home):
        known = accounts(home)
        others = [each for each in known if each.name != name]
        if len(others) < len(known):
            _write(home, others)
        return len(others) < len(known)


def accounts(home: Home) -> list[Account]:
    """All accounts as of now. Raises: ServingError when the file is not what was written."""
    path = _path(home)
    if not path.exists():
        return []
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[Account])
    except (OSError, msgspec.MsgspecError):
        raise ServingError(
            f"{path.name}: expected a list of accounts, found otherwise. Restore it, or delete it and make new ones."
        ) from None


def account(home: Home, name: str) -> Account | None:
    return next((each for each in accounts(home) if each.name == name), None)


def signed_in(home: Home, name: str, password: str) -> Account | None:
    """The account these open, or None; for a name that is unknown a hash is reckoned too, so that the time tells nothing."""
    found = account(home, name)
    is_right = _is_right(password[: MOST_PASSWORD + 1], found.password_hash if found else _nobodys())
    return found if found is not None and is_right else None


def hashed(password: str) -> str:
    """In PHC string format."""
    return Argon2id(
        salt=secrets.token_bytes(16), length=_BYTES, iterations=_PASSES, lanes=_LANES, memory_cost=_MEMORY_KIB
    ).derive_phc_encoded(password.encode())


def _is_right(password: str, kept: str) -> bool:
    try:
        Argon2id.verify_phc_encoded(password.encode(), kept)
    except (InvalidKey, ValueError):
        return False
    return True


@cache
def _nobodys() -> str:
    return hashed(secrets.token_hex(16))


def _write(home: Home, kept: Sequence[Account]) -> None:
    path = _path(home)
    write_atomically(path, msgspec.json.format(msgspec.json.encode(kept), indent=1))
    os.chmod(path, 0o600)


def _path(home: Home) -> Path:
    return home.root / "keys" / "accounts.json"
