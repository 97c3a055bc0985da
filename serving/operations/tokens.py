"""Callers with a token of an identity provider (OAuth 2 / OpenID Connect) instead of a key of ours, as `keys/oidc.json` in the home says.

How a token is verified stands in `serving/issuers.py` (RFC 9068, RFC 8725). Keys are fetched beside the event loop; what was verified is remembered
until it expires, the keys or the file change.
"""

import threading
import time
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from serving import issuers
from serving.errors import ServingError
from serving.issuers import AGAIN_SECONDS, FRESH_SECONDS, Algorithm, Text, UnbelievedError
from serving.keys import ALL_PURPOSES, SCOPES, Caller
from serving.problems import ProblemError
from troth.clock import Clock
from troth.home import Home

if TYPE_CHECKING:
    from jwt import PyJWK

FILE_NAME = "oidc.json"
PURPOSE = "purpose:"
MOST_REMEMBERED = 1_000
_LOOK_SECONDS = 1.0


class Provider(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`keys/oidc.json`: who is believed, for whom tokens must be, how they must be signed, and where the keys are."""

    issuer: Text
    audience: Text
    algorithms: Annotated[tuple[Algorithm, ...], msgspec.Meta(min_length=1)] = ("RS256",)
    jwks: dict[str, Any] | None = None
    jwks_uri: Text | None = None
    leeway_seconds: Annotated[float, msgspec.Meta(ge=0, le=120)] = 30.0


@dataclass(frozen=True)
class _Known:
    caller: Caller
    ends_at: float


class Tokens:
    """The tokens of a home's provider. Threads share it; nothing here waits for the network but a thread of its own."""

    def __init__(self, home: Home, wall: Clock) -> None:
        self._path, self._wall = home.root / "keys" / FILE_NAME, wall
        self._lock = threading.Lock()
        self._data: bytes | None = None
        self._provider: Provider | None = None
        self._keys: dict[str | None, PyJWK] = {}
        self._looked = self._fetched = self._tried = float("-inf")
        self._fetching: threading.Thread | None = None
        self._known: dict[bytes, _Known] = {}

    def caller(self, token: str) -> Caller | None:
        """Who a token is of; None where no provider is named or this is no token. Raises: ProblemError 401 or 503; ServingError."""
        provider = self._current()
        if provider is None or token.count(".") != 2:
            return None
        now, mark = self._wall.now(), sha256(token.encode()).digest()
        known = self._known.get(mark)
        if known is None:
            under = self._keys
            known = self._verified(provider, token, now)
            with self._lock:
                if under is not self._keys:
                    return known.caller  # not remembered: the keys changed meanwhile
                if len(self._known) >= MOST_REMEMBERED:
                    self._known.clear()
                self._known[mark] = known
        if now.timestamp() >= known.ends_at:
            raise _refused("one that has not expired")
        return known.caller

    def prepare(self) -> None:
        """Fetch the provider's keys before anybody waits for them."""
        provider = self._current()
        if provider is not None and provider.jwks_uri is not None:
            self._fetch(provider)

    def _current(self) -> Provider | None:
        """The provider as its file says, as of a second ago."""
        if time.monotonic() - self._looked < _LOOK_SECONDS:
            return self._provider
        with self._lock:
            data = self._path.read_bytes() if self._path.is_file() else None
            if data != self._data:
                self._provider = None if data is None else _provider(self._path, data)
                self._data, self._keys, self._known = data, {}, {}
                self._fetched = self._tried = float("-inf")
                if self._provider is not None and self._provider.jwks is not None:
                    self._keys = issuers.keys_of(self._provider.jwks)
            self._looked = time.monotonic()
            return self._provider

    def _verified(self, provider: Provider, token: str, now: datetime) -> _Known:
        try:
            claims, ends_at = issuers.verified(
                token, partial(self._key, provider), issuer=provider.issuer, audience=provider.audience,
                algorithms=provider.algorithms, now=now.timestamp(), leeway_seconds=provider.leeway_seconds,
            )  # fmt: skip
        except UnbelievedError as error:
            raise _refused(error.expected) from None
        return _Known(_caller(claims, now), ends_at)

    def _key(self, provider: Provider, kid: object) -> "PyJWK":
        """The key a token names."""
        fetched = self._fetched  # before the keys are looked at: those that come meanwhile were not asked
        is_old = time.monotonic() - fetched > FRESH_SECONDS
        found = issuers.named(self._keys, kid)
        if provider.jwks_uri is not None and (is_old or found is None):
            self._fetch_beside(provider)
        if found is not None:
            return found
        if provider.jwks_uri is not None and fetched == float("-inf"):
            raise ProblemError(
                503, "unavailable", "token: expected the provider's keys, found them not fetched yet. Try again.", headers={"Retry-After": "1"}
            )  # fmt: skip
        raise _refused("one under a known key")

    def _fetch_beside(self, provider: Provider) -> None:
        with self._lock:
            is_running = self._fetching is not None and self._fetching.is_alive()
            if is_running or time.monotonic() - self._tried < AGAIN_SECONDS:
                return
            self._tried = time.monotonic()
            self._fetching = threading.Thread(target=self._fetch, args=(provider,), name="jwks", daemon=True)
        self._fetching.start()

    def _fetch(self, provider: Provider) -> None:
        """Fetch the set; one that cannot be had or read leaves what was there."""
        found = issuers.fetched_keys(provider.jwks_uri or "")
        with self._lock:
            if provider is self._provider and found:
                self._keys, self._known, self._fetched = found, {}, time.monotonic()


def _provider(path: Path, data: bytes) -> Provider:
    try:
        found = msgspec.json.decode(data, type=Provider)
    except msgspec.MsgspecError:
        raise _wrong(path, "issuer, audience and jwks or jwks_uri as serving/README.md describes") from None
    if (found.jwks is None) == (found.jwks_uri is None):
        raise _wrong(path, "either jwks or jwks_uri")
    if found.jwks_uri is not None and not issuers.is_private_way(found.jwks_uri):
        raise _wrong(path, "jwks_uri over https")
    return found


def _caller(claims: dict[str, Any], now: datetime) -> Caller:
    """Programs are called by their client id; people by a hash, for the name is written down."""
    name = claims.get("client_id") or claims.get("azp")
    if not isinstance(name, str):
        subject = f"{claims['iss']}\0{claims.get('sub', '')}"
        name = f"sub-{sha256(subject.encode()).hexdigest()[:16]}"
    given = claims.get("scope", "")
    words = given.split() if isinstance(given, str) else [each for each in given if isinstance(each, str)] if isinstance(given, list) else []  # fmt: skip
    purposes = tuple(code for code in ALL_PURPOSES if PURPOSE + code in words)
    scopes = tuple(scope for scope in SCOPES if scope in words)
    return Caller(name=f"token:{name[:200]}", key_hash="", purposes=purposes, made_at=now, scopes=scopes)


def _wrong(path: Path, expected: str) -> ServingError:
    return ServingError(
        f"{path.name}: expected {expected}, found otherwise. Correct it, or delete it to take keys alone."
    )


def _refused(expected: str) -> ProblemError:
    """RFC 6750, 3.1. Says what was expected of a token, and nothing that stands in it."""
    challenge = f'Bearer error="invalid_token", error_description="expected {expected}"'
    return ProblemError(
        401, "invalid_token", f"token: expected {expected}, found another. Get a new one.", headers={"WWW-Authenticate": challenge}
    )  # fmt: skip
