"""Signed tokens of others, and what they publish about themselves: key sets, verification, and how it is fetched. Knows nobody's file of settings.

Signed tokens alone (RFC 8725): a named issuer and audience, algorithms from a list, keys of a JWK set (RFC 7517).
"""

import time
from collections.abc import Callable, Mapping, Sequence
from http.client import HTTPException
from math import isfinite
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

import msgspec

from serving.errors import ServingError

if TYPE_CHECKING:
    from jwt import PyJWK

# What signs with a key that nobody but the provider has; `none` and shared secrets (HS...) are not in it.
Algorithm = Literal["RS256", "ES256", "EdDSA"]
KEY_TYPES = ("RSA", "EC", "OKP")
LOOPBACK = ("127.0.0.1", "::1", "localhost")
LEAST_RSA_BITS, MOST_TOKEN, MOST_BYTES = 2_048, 8_192, 256 * 1024
FETCH_SECONDS = 5.0
FRESH_SECONDS, AGAIN_SECONDS = 600.0, 10.0  # of a fetched set; between two attempts
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=2_000)]


class UnbelievedError(ServingError):
    """A token that is not believed. `expected` says of what kind it should be, and nothing that stands in it."""

    def __init__(self, expected: str) -> None:
        super().__init__(f"token: expected {expected}, found another. Get a new one.")
        self.expected = expected


def is_private_way(address: str) -> bool:
    """Whether nobody on the way can change what is fetched: https, or this machine."""
    try:
        parts = urlsplit(address)
        return bool(parts.hostname) and (
            parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)
        )
    except ValueError:
        return False


def fetched(address: str, data: bytes | None = None, headers: Mapping[str, str] | None = None) -> bytes:
    """What an address of `is_private_way` answers, within 5 s and 256 KiB; nowhere that it points to, and past no proxy. Raises: OSError."""
    request = Request(address, data, {"Accept": "application/json", **(headers or {})})  # noqa: S310 - checked when read
    until = time.monotonic() + FETCH_SECONDS
    found = bytearray()
    try:
        with build_opener(_StayHere, ProxyHandler({})).open(request, timeout=FETCH_SECONDS) as answer:
            while piece := answer.read1(65_536):
                found += piece
                if len(found) > MOST_BYTES or time.monotonic() > until:
                    raise OSError("too much, or too slowly")
    except HTTPError as error:
        error.close()
        raise OSError(f"status {error.code}") from None
    except (HTTPException, ValueError) as error:
        raise OSError(type(error).__name__) from None
    return bytes(found)


class _StayHere(HTTPRedirectHandler):
    """What is fetched comes from where the operator said, and from nowhere that place points to."""

    def redirect_request(self, *_: object) -> None:
        return None


def fetched_keys(address: str) -> "dict[str | None, PyJWK] | None":
    """The keys of a set; None where it cannot be had or read."""
    try:
        return keys_of(msgspec.json.decode(fetched(address), type=dict[str, Any]))
    except (OSError, msgspec.MsgspecError, ServingError, ValueError):
        return None


def keys_of(told: dict[str, Any]) -> "dict[str | None, PyJWK]":
    """Keys of a JWK set that sign, by their id; what cannot be used is left out. Raises: ServingError where none can."""
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
        raise ServingError("jwks: expected a key that signs, found none. Correct the file, or the provider's set.")
    return found


def named(keys: "Mapping[str | None, PyJWK]", kid: object) -> "PyJWK | None":
    """The key a token names; where it names none, the only one there is."""
    found = keys.get(kid if isinstance(kid, str) else None)
    if found is None and kid is None and len(keys) == 1:
        (found,) = keys.values()
    return found


def verified(
    token: str,
    find: "Callable[[object], PyJWK]",
    *,
    issuer: str,
    audience: str,
    algorithms: Sequence[str],
    now: float,
    leeway_seconds: float,
) -> tuple[dict[str, Any], float]:
    """What a token claims, and until when (Unix seconds) it may be believed. `find` gives the key of an id. Raises: UnbelievedError."""
    import jwt

    if len(token) > MOST_TOKEN:
        raise UnbelievedError(f"one of at most {MOST_TOKEN} characters")
    try:
        header = jwt.get_unverified_header(token)
    except jwt.PyJWTError:
        raise UnbelievedError("a signed JSON Web Token") from None
    algorithm = header.get("alg")
    if algorithm not in algorithms or "crit" in header:
        raise UnbelievedError(f"one signed by {' or '.join(algorithms)}")
    key = find(header.get("kid"))
    if key.algorithm_name != algorithm:  # the key decides how it is used, not the token
        raise UnbelievedError("one signed as its key is meant for")
    try:
        claims = jwt.decode(
            token, key.key, algorithms=[algorithm], audience=audience, issuer=issuer,
            options={"require": ["exp", "iss", "aud"], "verify_exp": False, "verify_nbf": False, "verify_iat": False},
        )  # fmt: skip
    except (jwt.PyJWTError, ValueError, TypeError):
        raise UnbelievedError("one of the issuer, for the audience, under a known key") from None
    return claims, _ends_at(claims, now, leeway_seconds)


def _ends_at(claims: dict[str, Any], now: float, leeway: float) -> float:
    """Until when it may be believed. Raises: UnbelievedError where its time is over, or has not come."""
    times = {name: claims[name] for name in ("exp", "nbf", "iat") if name in claims}
    if any(
        isinstance(each, bool) or not isinstance(each, int | float) or not isfinite(each) for each in times.values()
    ):
        raise UnbelievedError("times in seconds since 1970")
    if max(times.get("nbf", now), times.get("iat", now)) > now + leeway:
        raise UnbelievedError("one whose time has come")
    if now >= times["exp"] + leeway:
        raise UnbelievedError("one that has not expired")
    return float(times["exp"]) + leeway
