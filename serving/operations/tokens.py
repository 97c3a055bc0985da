"""Callers with a token of an identity provider (OAuth 2 / OpenID Connect) instead of a key of ours, as `keys/oidc.json` in the home says.

Signed tokens alone (RFC 9068, RFC 8725): a named issuer and audience, algorithms from a list, keys of a JWK set. Keys are fetched beside the event
loop; what was verified is remembered until it expires, the keys or the file change.
"""

import threading
import time
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

import msgspec

from serving.errors import ServingError
from serving.keys import ALL_PURPOSES, SCOPES, Caller
from serving.problems import ProblemError
from troth.clock import Clock
from troth.home import Home

if TYPE_CHECKING:
    from jwt import PyJWK

FILE_NAME = "oidc.json"
PURPOSE = "purpose:"
# What signs with a key that nobody but the provider has; `none` and shared secrets (HS...) are not in it.
KEY_TYPES = ("RSA", "EC", "OKP")
LEAST_RSA_BITS, MOST_TOKEN, MOST_SET_BYTES, MOST_REMEMBERED = 2_048, 8_192, 256 * 1024, 1_000
_LOOK_SECONDS, _FETCH_SECONDS = 1.0, 5.0
_FRESH_SECONDS, _AGAIN_SECONDS = 600.0, 10.0  # of a fetched set; between two attempts
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=2_000)]


class Provider(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`keys/oidc.json`: who is believed, for whom tokens must be, how they must be signed, and where the keys are."""

    issuer: Text
    audience: Text
    algorithms: Annotated[tuple[Literal["RS256", "ES256", "EdDSA"], ...], msgspec.Meta(min_length=1)] = ("RS256",)
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
                    self._keys = _keys(self._provider.jwks)
            self._looked = time.monotonic()
            return self._provider

    def _verified(self, provider: Provider, token: str, now: datetime) -> _Known:
        import jwt

        if len(token) > MOST_TOKEN:
            raise _refused(f"one of at most {MOST_TOKEN} characters")
        try:
            header = jwt.get_unverified_header(token)
        except jwt.PyJWTError:
            raise _refused("a signed JSON Web Token") from None
        algorithm = header.get("alg")
        if algorithm not in provider.algorithms or "crit" in header:
            raise _refused(f"one signed by {' or '.join(provider.algorithms)}")
        key = self._key(provider, header.get("kid"))
        if key.algorithm_name != algorithm:  # the key decides how it is used, not the token
            raise _refused("one signed as its key is meant for")
        try:
            claims = jwt.decode(
                token, key.key, algorithms=[algorithm], audience=provider.audience, issuer=provider.issuer,
                options={"require": ["exp", "iss", "aud"], "verify_exp": False, "verify_nbf": False, "verify_iat": False},
            )  # fmt: skip
        except (jwt.PyJWTError, ValueError, TypeError):
            raise _refused("one of the issuer, for the audience, under a known key") from None
        return _Known(_caller(claims, now), _ends_at(claims, now.timestamp(), provider.leeway_seconds))

    def _key(self, provider: Provider, kid: object) -> "PyJWK":
        """The key a token names; where it names none, the only one there is."""
        is_old = time.monotonic() - self._fetched > _FRESH_SECONDS
        found = self._keys.get(kid if isinstance(kid, str) else None)
        if found is None and kid is None and len(self._keys) == 1:
            (found,) = self._keys.values()
        if provider.jwks_uri is not None and (is_old or found is None):
            self._fetch_beside(provider)
        if found is not None:
            return found
        if provider.jwks_uri is not None and self._fetched == float("-inf"):
            raise ProblemError(
                503, "unavailable", "token: expected the provider's keys, found them not fetched yet. Try again.", headers={"Retry-After": "1"}
            )  # fmt: skip
        raise _refused("one under a known key")

    def _fetch_beside(self, provider: Provider) -> None:
        with self._lock:
            is_running = self._fetching is not None and self._fetching.is_alive()
            if is_running or time.monotonic() - self._tried < _AGAIN_SECONDS:
                return
            self._tried = time.monotonic()
            self._fetching = threading.Thread(target=self._fetch, args=(provider,), name="jwks", daemon=True)
        self._fetching.start()

    def _fetch(self, provider: Provider) -> None:
        """Fetch the set; one that cannot be had or read leaves what was there."""
        try:
            request = Request(provider.jwks_uri or "", headers={"Accept": "application/json"})  # noqa: S310 - checked when read
            with build_opener(_StayHere, ProxyHandler({})).open(request, timeout=_FETCH_SECONDS) as answer:
                data = answer.read(MOST_SET_BYTES + 1)
            found = _keys(msgspec.json.decode(data, type=dict[str, Any])) if len(data) <= MOST_SET_BYTES else {}
        except (OSError, msgspec.MsgspecError, ServingError, ValueError):
            return
        with self._lock:
            if provider is self._provider and found:
                self._keys, self._known, self._fetched = found, {}, time.monotonic()


class _StayHere(HTTPRedirectHandler):
    """Keys come from where the operator said, and from nowhere that place points to."""

    def redirect_request(self, *_: object) -> None:
        return None


def _provider(path: Path, data: bytes) -> Provider:
    try:
        found = msgspec.json.decode(data, type=Provider)
    except msgspec.MsgspecError:
        raise _wrong(path, "issuer, audience and jwks or jwks_uri as serving/README.md describes") from None
    if (found.jwks is None) == (found.jwks_uri is None):
        raise _wrong(path, "either jwks or jwks_uri")
    if found.jwks_uri is not None:
        parts = urlsplit(found.jwks_uri)
        if parts.scheme != "https" and not (
            parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1", "localhost")
        ):
            raise _wrong(path, "jwks_uri over https")
    return found


def _keys(told: dict[str, Any]) -> "dict[str | None, PyJWK]":
    """Keys of a JWK set (RFC 7517) that sign, by their id; what cannot be used is left out. Raises: ServingError where none can."""
    import jwt

    found: dict[str | None, PyJWK] = {}
    listed = told.get("keys")
    for each in listed if isinstance(listed, list) else []:
        if not isinstance(each, dict) or each.get("kty") not in KEY_TYPES or each.get("use", "sig") != "sig":
            continue
        try:
            key = jwt.PyJWK.from_dict(each)
        except (jwt.PyJWTError, ValueError, TypeError, KeyError):
            continue
        if key.key_type != "RSA" or key.key.key_size >= LEAST_RSA_BITS:
            found[key.key_id] = key
    if not found:
        raise ServingError(
            "jwks: expected a key that signs, found none. Correct keys/oidc.json, or the provider's set."
        )
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


def _ends_at(claims: dict[str, Any], now: float, leeway: float) -> float:
    """Until when it may be believed. Raises: ProblemError where its time is over, or has not come."""
    times = {name: claims[name] for name in ("exp", "nbf", "iat") if name in claims}
    if any(
        isinstance(each, bool) or not isinstance(each, int | float) or not isfinite(each) for each in times.values()
    ):
        raise _refused("times in seconds since 1970")
    if max(times.get("nbf", now), times.get("iat", now)) > now + leeway:
        raise _refused("one whose time has come")
    if now >= times["exp"] + leeway:
        raise _refused("one that has not expired")
    return float(times["exp"]) + leeway


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
