"""API keys: who may call, for which purposes and acts. Only hashes are kept (`keys/api.json`); a key is shown once.

A service looks at the file at each request, so a key that was dropped or made counts from then on. A key is 256 random bits, so one round of SHA-256 is enough to store it: there is nothing to guess.
"""

import hashlib
import hmac
import os
import secrets
from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from math import inf
from pathlib import Path
from typing import Annotated

import msgspec

from feature_repo import catalogue
from serving.errors import ServingError
from troth.home import Home, alone, write_atomically

PREFIX = "troth_"
ALL_PURPOSES = tuple(dict.fromkeys(each.purpose_code for each in catalogue.SERVICES if each.purpose_code))
# What a key may do besides reading: report consent events, mint shoppers' links, manage webhooks, send events, ask for promises,
# hold stock, read what the service counts.
SCOPES = ("capture", "links", "admin", "events", "promise", "hold", "metrics")


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Whoever holds a key: a name for people, the purposes it may ask for, what else it may do (`SCOPES`), how often it may ask.

    `requests_per_second` is null for the limit of everybody.
    """

    name: str
    key_hash: str
    purposes: tuple[str, ...]
    made_at: datetime
    scopes: tuple[str, ...] = ()
    requests_per_second: Annotated[float, msgspec.Meta(gt=0)] | None = None

    def may(self, purpose_code: str | None) -> bool:
        """What is not personal may be asked by every caller."""
        return purpose_code is None or purpose_code in self.purposes


def make_key(
    home: Home, name: str, purposes: Sequence[str], at: datetime, scopes: Sequence[str] = (), requests_per_second: float | None = None
) -> str:  # fmt: skip
    """Make a key for a caller and return it: it cannot be shown again. A caller of the same name loses its old key.

    Raises: ServingError for a purpose that no feature service has, an unknown scope, a key for nothing, or a limit that is none.
    """
    unknown = sorted(set(purposes) - set(ALL_PURPOSES))
    if unknown or not (purposes or scopes):
        raise ServingError(f"API key: expected purposes among {list(ALL_PURPOSES)}, found {unknown}. Correct them.")
    if odd := sorted(set(scopes) - set(SCOPES)):
        raise ServingError(f"API key: expected scopes among {list(SCOPES)}, found {odd}. Correct them.")
    if requests_per_second is not None and not 0 < requests_per_second < inf:
        raise ServingError("API key: expected a limit above nothing, found another. Correct it, or leave it out.")
    key = PREFIX + secrets.token_urlsafe(32)
    caller = Caller(
        name=name, key_hash=_hash(key), purposes=tuple(purposes), made_at=at, scopes=tuple(scopes), requests_per_second=requests_per_second
    )  # fmt: skip
    with changing(home):
        _write(home, [*(each for each in callers(home) if each.name != name), caller])
    return key


def drop_key(home: Home, name: str) -> bool:
    """Forget a caller: its key opens nothing any more. False when there is none of that name."""
    with changing(home):
        known = callers(home)
        others = [each for each in known if each.name != name]
        if len(others) < len(known):
            _write(home, others)
        return len(others) < len(known)


def first_key(home: Home, at: datetime) -> str | None:
    """A key for every purpose and scope when the home has none yet; None when it has."""
    return None if callers(home) else make_key(home, "first", ALL_PURPOSES, at, SCOPES)


def callers(home: Home) -> list[Caller]:
    """All callers as of now. Raises: ServingError when the file is not what was written."""
    return Callers(home).known()


class Callers:
    """The callers of a home, as its file says whenever they are asked for. Threads may share it."""

    def __init__(self, home: Home) -> None:
        self._path = _path(home)
        self._last: tuple[bytes | None, list[Caller]] = (None, [])

    def known(self) -> list[Caller]:
        """All callers as of now. Raises: ServingError when the file cannot be read, or is not what was written.

        The file is read each time (some 10 us) and compared, because its times and number may be those of the version before.
        """
        data, found = self._read(), self._last
        if data != found[0]:
            found = self._last = (data, self._decoded(data))
        return found[1]

    def _read(self) -> bytes | None:
        try:
            return self._path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as fault:
            raise self._wrong(type(fault).__name__) from None

    def _decoded(self, data: bytes | None) -> list[Caller]:
        try:
            return [] if data is None else msgspec.json.decode(data, type=list[Caller])
        except msgspec.MsgspecError:
            raise self._wrong("otherwise") from None

    def _wrong(self, found: str) -> ServingError:
        return ServingError(
            f"{self._path.name}: expected a list of callers, found {found}. Restore it, or delete it and make new keys."
        )


def caller_of(known: Sequence[Caller], key: str) -> Caller | None:
    """The caller that holds a key, compared in constant time."""
    found = None
    key_hash = _hash(key)
    for each in known:
        if hmac.compare_digest(each.key_hash, key_hash):
            found = each
    return found


def changing(home: Home) -> AbstractContextManager[None]:
    """Alone among those who change the keys: else a key dropped meanwhile would be written back."""
    return alone(_path(home).parent)


def _write(home: Home, kept: Sequence[Caller]) -> None:
    path = _path(home)
    write_atomically(path, msgspec.json.format(msgspec.json.encode(kept), indent=1))
    os.chmod(path, 0o600)


def _path(home: Home) -> Path:
    return home.root / "keys" / "api.json"


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
