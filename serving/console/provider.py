"""Signing in with an identity provider, as `keys/sign_in.json` in the home says: OpenID Connect, the authorization code flow, and nothing else.

By RFC 9700: PKCE (S256), state and nonce bound to the browser by a sealed cookie, `iss` compared where it is sent (RFC 9207), a code exchanged once, no
redirect followed. Tokens of the provider are looked at and forgotten. What is sent to whom stands here; pages and sessions in `sign_in.py`.
"""

import hashlib
import hmac
import secrets
import struct
import threading
import time
from base64 import b64encode, urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote_plus, urlencode, urlsplit

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from serving import issuers
from serving.console.roles import ROLES
from serving.console.sessions import Sessions
from serving.errors import ServingError
from serving.issuers import AGAIN_SECONDS, FRESH_SECONDS, Algorithm, Text, UnbelievedError
from serving.problems import ProblemError
from troth.home import Home

if TYPE_CHECKING:
    from jwt import PyJWK

FILE_NAME = "sign_in.json"
BACK = "/console/sign-in/back"
ON_THE_WAY = timedelta(minutes=10)
MARK = "provider:"  # how the mark of a session begins that rests on the provider; accounts of the home have other ones
MOST_NAME, MOST_CODE, MOST_THEN, MOST_COOKIE = 100, 4_096, 1_500, 3_500
_KEYS = f"keys/{FILE_NAME}"
_WAY = struct.Struct(">32sQ")  # secret, begun (Unix seconds); the page to go to follows
_ABOUT = b"troth-sign-in-v1"
_ONCE = ("code", "state", "iss", "error")
FileName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,99}$")]


class SignIn(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`keys/sign_in.json`: who is believed, who we are to them, who gets in. README.md of serving/ says what each field is for."""

    issuer: Text
    client_id: Text
    address: Text
    roles: Annotated[dict[Text, tuple[str, ...]], msgspec.Meta(min_length=1)]
    client_secret_file: FileName | None = None
    private_key_file: FileName | None = None
    private_key_id: Text | None = None
    assertion_audience: Text | None = None
    title: Annotated[str, msgspec.Meta(min_length=1, max_length=60)] = "your organisation's account"
    scopes: tuple[Text, ...] = ("openid", "profile")
    groups_claim: Text = "groups"
    person_claim: Text = "sub"
    shown_claim: Text = "name"
    hours: Annotated[float, msgspec.Meta(gt=0, le=12)] = 8.0
    algorithms: Annotated[tuple[Algorithm, ...], msgspec.Meta(min_length=1)] = ("RS256",)
    leeway_seconds: Annotated[float, msgspec.Meta(ge=0, le=120)] = 30.0
    authorization_endpoint: Text | None = None
    token_endpoint: Text | None = None
    end_session_endpoint: Text | None = None
    jwks_uri: Text | None = None


class Published(msgspec.Struct, frozen=True):
    """What a provider says of itself (OpenID Connect Discovery 1.0, RFC 8414); more than this is not read."""

    issuer: Text
    authorization_endpoint: Text
    token_endpoint: Text
    jwks_uri: Text
    end_session_endpoint: Text | None = None
    authorization_response_iss_parameter_supported: bool = False


@dataclass(frozen=True)
class Arrived:
    """Somebody the provider vouches for, and who has a role. `name` is one person's for good, `shown` is for people."""

    name: str
    shown: str
    roles: tuple[str, ...]
    mark: str
    lasts: timedelta
    then: str


@dataclass(frozen=True)
class _Way:
    """A sign-in on its way: what the browser keeps sealed, and what follows from it."""

    secret: bytes
    begun_at: float
    then: str

    def part(self, label: bytes) -> str:
        return _text(hmac.digest(self.secret, label, "sha256"))

    @property
    def state(self) -> str:
        return self.part(b"state")

    @property
    def nonce(self) -> str:
        return self.part(b"nonce")

    @property
    def verifier(self) -> str:
        return self.part(b"verifier")


class Provider:
    """The provider of a home. Threads share it; it may wait for the network, so nobody calls it on the event loop."""

    def __init__(self, home: Home, sessions: Sessions) -> None:
        self._home, self._sessions = home, sessions
        self._lock = threading.Lock()
        self._published: tuple[str, float, Published] | None = None
        self._keys: tuple[str, float, dict[str | None, PyJWK]] | None = None

    def begin(self, then: str, at: datetime) -> tuple[str, str]:
        """Where to send a browser, and the cookie it keeps meanwhile. Raises: ServingError, ProblemError 404."""
        asked, _ = _known(self._home)
        way = _Way(secrets.token_bytes(32), at.timestamp(), then if len(then.encode()) <= MOST_THEN else "")
        challenge = _text(hashlib.sha256(way.verifier.encode()).digest())
        question = {
            "response_type": "code",
            "client_id": asked.client_id,
            "redirect_uri": asked.address + BACK,
            "scope": " ".join(asked.scopes),
            "state": way.state,
            "nonce": way.nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        return _with(self._places(asked).authorization_endpoint, question), self._sealed(way)

    def finish(self, cookie: str, told: Sequence[tuple[str, str]], at: datetime) -> Arrived:
        """Who comes back with what the provider `told` in the address. Raises: ProblemError, ServingError."""
        asked, mark = _known(self._home)
        way = self._opened(cookie, at)
        answer = {name: value for name, value in told if name in _ONCE}
        is_once = len(answer) == sum(name in _ONCE for name, _ in told)
        if way is None or not is_once or not hmac.compare_digest(answer.get("state", "").encode(), way.state.encode()):
            raise _stale()
        places = self._places(asked)
        if answer.get("iss", asked.issuer) != asked.issuer or (
            places.authorization_response_iss_parameter_supported and "iss" not in answer
        ):
            raise _not_believed("an answer of the provider that was asked")
        if "error" in answer:
            raise ProblemError(
                403, "not_signed_in", "sign-in: expected the provider's yes, found a refusal. Try again, or ask whoever keeps it."
            )  # fmt: skip
        code = answer.get("code", "")
        if not 0 < len(code) <= MOST_CODE:
            raise _stale()
        claims = self._claims(asked, places, self._exchanged(asked, places, code, way, at), way, at)
        if not self._sessions.spend(way.state, at):
            raise _stale()
        return _arrived(asked, mark, claims, way.then)

    def farewell(self) -> str | None:
        """Where the provider's own session is ended (OpenID Connect RP-Initiated Logout 1.0), where it can be. The ID token was not kept, so it may ask."""
        asked = settings(self._home)
        if asked is None:
            return None
        try:
            place = self._places(asked[0]).end_session_endpoint
        except ServingError:
            return None
        back = {"client_id": asked[0].client_id, "post_logout_redirect_uri": f"{asked[0].address}/console/sign-in"}
        return None if place is None else _with(place, back)

    def published(self) -> Published | None:
        """What is known of the provider; None where none is named. Raises: ServingError when it cannot be had."""
        asked = settings(self._home)
        return None if asked is None else self._places(asked[0])

    def _exchanged(self, asked: SignIn, places: Published, code: str, way: _Way, at: datetime) -> str:
        """The ID token that a code stands for. Raises: ProblemError 403 for a code that is none, ServingError for a silent provider."""
        sent = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": asked.address + BACK,
            "code_verifier": way.verifier,
        }
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        if asked.client_secret_file is not None:
            secret = self._file(asked.client_secret_file).strip().decode()
            pair = f"{quote_plus(asked.client_id)}:{quote_plus(secret)}"  # RFC 6749, 2.3.1
            headers["Authorization"] = f"Basic {b64encode(pair.encode()).decode()}"
        else:
            sent |= {
                "client_id": asked.client_id,
                "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
                "client_assertion": self._assertion(asked, at),
            }
        try:
            data = issuers.fetched(places.token_endpoint, urlencode(sent).encode(), headers)
            found = msgspec.json.decode(data, type=dict[str, Any]).get("id_token")
        except OSError as error:
            if str(error) == "status 400":  # RFC 6749, 5.2: the code is not good, or not any more
                raise _stale() from None
            raise _silent("token endpoint") from None
        except msgspec.MsgspecError:
            raise _silent("token endpoint") from None
        if not isinstance(found, str):
            raise _not_believed("an ID token")
        return found

    def _assertion(self, asked: SignIn, at: datetime) -> str:
        """RFC 7523: who we are, signed, for five minutes; for the issuer alone, so that no other server can use it."""
        import jwt
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        now = int(at.timestamp())
        said = {
            "iss": asked.client_id, "sub": asked.client_id, "aud": asked.assertion_audience or asked.issuer,
            "jti": secrets.token_urlsafe(16), "iat": now, "exp": now + 300,
        }  # fmt: skip
        try:
            key = load_pem_private_key(self._file(asked.private_key_file or ""), None)
            headers = {"kid": asked.private_key_id} if asked.private_key_id else None
            return jwt.encode(said, key, _algorithm(key), headers)  # type: ignore[arg-type]
        except (ValueError, TypeError, jwt.PyJWTError):
            raise _wrong("private_key_file with an RSA, P-256 or Ed25519 key in PEM") from None

    def _claims(self, asked: SignIn, places: Published, token: str, way: _Way, at: datetime) -> dict[str, Any]:
        """OpenID Connect Core, 3.1.3.7. Raises: ProblemError 403."""
        try:
            claims, _ = issuers.verified(
                token, lambda kid: self._key(places, kid), issuer=asked.issuer, audience=asked.client_id,
                algorithms=asked.algorithms, now=at.timestamp(), leeway_seconds=asked.leeway_seconds,
            )  # fmt: skip
        except UnbelievedError as error:
            raise _not_believed(error.expected) from None
        nonce = claims.get("nonce")
        if not isinstance(nonce, str) or not hmac.compare_digest(nonce.encode(), way.nonce.encode()):
            raise _not_believed("one that was asked for here")
        if claims["aud"] not in (asked.client_id, [asked.client_id]) or claims.get("azp", asked.client_id) != asked.client_id:  # fmt: skip
            raise _not_believed("one for us alone")
        if not isinstance(claims.get("sub"), str) or "iat" not in claims:
            raise _not_believed("one that says whose it is, and since when")
        return claims

    def _key(self, places: Published, kid: object) -> "PyJWK":
        """A key of the provider, fetched when it is unknown or the set is old."""
        with self._lock:
            known = self._keys if self._keys is not None and self._keys[0] == places.jwks_uri else None
            age = float("inf") if known is None else time.monotonic() - known[1]
            found = None if known is None else issuers.named(known[2], kid)
            if age > FRESH_SECONDS or (found is None and age > AGAIN_SECONDS):
                fetched = issuers.fetched_keys(places.jwks_uri)
                if fetched is None and known is None:
                    raise _silent("set of keys")
                if fetched is not None:
                    self._keys = (places.jwks_uri, time.monotonic(), fetched)
                    found = issuers.named(fetched, kid)
        if found is None:
            raise UnbelievedError("one under a known key")
        return found

    def _places(self, asked: SignIn) -> Published:
        """Where the provider is asked what: as the file says, else as it publishes itself. Raises: ServingError."""
        if asked.authorization_endpoint and asked.token_endpoint and asked.jwks_uri:
            return Published(
                asked.issuer, asked.authorization_endpoint, asked.token_endpoint, asked.jwks_uri, asked.end_session_endpoint
            )  # fmt: skip
        with self._lock:
            known = self._published
            if known is not None and known[0] == asked.issuer and time.monotonic() - known[1] < FRESH_SECONDS:
                return known[2]
            try:
                data = issuers.fetched(f"{asked.issuer.rstrip('/')}/.well-known/openid-configuration")
                found = msgspec.json.decode(data, type=Published)
            except (OSError, msgspec.MsgspecError):
                raise _silent("openid-configuration") from None
            if found.issuer != asked.issuer:
                raise _silent("openid-configuration of this very issuer")
            if not all(map(issuers.is_private_way, _addresses(found))):
                raise _silent("endpoints over https")
            self._published = (asked.issuer, time.monotonic(), found)
            return found

    def _sealed(self, way: _Way) -> str:
        said = _WAY.pack(way.secret, int(way.begun_at)) + way.then.encode()
        return _text(self._cipher().encrypt(said, [_ABOUT]))

    def _opened(self, cookie: str, at: datetime) -> _Way | None:
        """A way that was begun here and not too long ago."""
        if not cookie or len(cookie) > MOST_COOKIE:
            return None
        try:
            sealed = urlsafe_b64decode(cookie + "=" * (-len(cookie) % 4))
            said = self._cipher().decrypt(sealed, [_ABOUT])
        except (ValueError, InvalidTag):
            return None
        secret, begun = _WAY.unpack(said[: _WAY.size])
        is_new = 0 <= at.timestamp() - begun <= ON_THE_WAY.total_seconds()
        return _Way(secret, begun, said[_WAY.size :].decode()) if is_new else None

    def _cipher(self) -> AESSIV:
        return AESSIV(hashlib.sha512(_ABOUT + self._home.key("console")).digest())

    def _file(self, name: str) -> bytes:
        try:
            return (self._home.root / "keys" / name).read_bytes()
        except OSError:
            raise _wrong(f"a file keys/{name}") from None


def settings(home: Home) -> tuple[SignIn, str] | None:
    """How people sign in with a provider as of now, and the mark of their sessions, which every change of the file changes. Raises: ServingError."""
    try:
        data = (home.root / "keys" / FILE_NAME).read_bytes()
    except FileNotFoundError:
        return None
    except OSError:
        raise _wrong("a file that can be read") from None
    return _checked(data), MARK + hashlib.sha256(data).hexdigest()[:32]


def _checked(data: bytes) -> SignIn:
    try:
        found = msgspec.json.decode(data, type=SignIn)
    except msgspec.MsgspecError:
        raise _wrong("what serving/README.md describes") from None
    places = (found.authorization_endpoint, found.token_endpoint, found.jwks_uri)
    given = [found.issuer, found.address, *filter(None, (*places, found.end_session_endpoint))]
    if not all(map(issuers.is_private_way, given)):
        raise _wrong("addresses over https")
    if urlsplit(found.address).path or "?" in found.address or "#" in found.address:
        raise _wrong("address without a path, such as https://troth.example")
    if any(places) and not all(places):
        raise _wrong("authorization_endpoint, token_endpoint and jwks_uri, or none of them")
    if (found.client_secret_file is None) == (found.private_key_file is None):
        raise _wrong("either client_secret_file or private_key_file")
    if "openid" not in found.scopes:
        raise _wrong("openid among scopes")
    if odd := sorted({role for roles in found.roles.values() for role in roles} - set(ROLES)):
        raise _wrong(f"roles among {list(ROLES)}, not {odd}")
    return found


def _known(home: Home) -> tuple[SignIn, str]:
    found = settings(home)
    if found is None:
        raise ProblemError(
            404, "no_such_page", "page: expected one of the console, found another address. Start at /console."
        )
    return found


def _arrived(asked: SignIn, mark: str, claims: Mapping[str, Any], then: str) -> Arrived:
    """Raises: ProblemError 403 for who has no role here, or no name."""
    said = _claim(claims, asked.groups_claim)
    groups = [said] if isinstance(said, str) else said if isinstance(said, list) else []
    mine = {role for group in groups if isinstance(group, str) for role in asked.roles.get(group, ())}
    if not mine:
        raise ProblemError(
            403, "no_role", "sign-in: expected somebody with a role here, found none. Ask whoever gives roles."
        )
    person = _claim(claims, asked.person_claim)
    if not isinstance(person, str) or not 0 < len(person) <= MOST_NAME or not person.isprintable():
        raise _not_believed(f"one with {asked.person_claim}")
    if asked.person_claim == "email" and claims.get("email_verified") is not True:
        raise _not_believed("one whose address was verified")
    shown = _claim(claims, asked.shown_claim)
    is_fit = isinstance(shown, str) and 0 < len(shown) <= MOST_NAME and shown.isprintable()
    roles = tuple(role for role in ROLES if role in mine)
    # A colon is in no account's name: nobody from outside is taken for one of the home.
    return Arrived(f"sso:{person}", str(shown) if is_fit else person, roles, mark, timedelta(hours=asked.hours), then)


def _claim(claims: Mapping[str, Any], path: str) -> object:
    """A claim by its name, else step by step along the dots of one (`realm_access.roles`)."""
    if path in claims:
        return claims[path]
    found: object = claims
    for step in path.split("."):
        found = found.get(step) if isinstance(found, dict) else None
    return found


def _addresses(found: Published) -> list[str]:
    places = (found.authorization_endpoint, found.token_endpoint, found.jwks_uri, found.end_session_endpoint)
    return [each for each in places if each is not None]


def _algorithm(key: object) -> Algorithm:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    return (
        "ES256"
        if isinstance(key, ec.EllipticCurvePrivateKey)
        else "EdDSA"
        if isinstance(key, ed25519.Ed25519PrivateKey)
        else "RS256"
    )


def _with(address: str, question: Mapping[str, str]) -> str:
    return f"{address}{'&' if '?' in address else '?'}{urlencode(question)}"


def _text(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _stale() -> ProblemError:
    return ProblemError(
        400, "stale_sign_in", "sign-in: expected the answer to one begun here a moment ago, found another. Sign in again."
    )  # fmt: skip


def _not_believed(expected: str) -> ProblemError:
    return ProblemError(403, "not_believed", f"sign-in: expected {expected}, found another. Sign in again.")


def _silent(what: str) -> ServingError:
    return ServingError(
        f"identity provider: expected its {what}, found none that can be read. Look at {_KEYS}, or try again."
    )


def _wrong(expected: str) -> ServingError:
    return ServingError(f"{_KEYS}: expected {expected}, found otherwise. Correct it, or delete it to go without.")
