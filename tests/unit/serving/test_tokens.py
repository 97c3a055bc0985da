"""Tokens of an identity provider beside keys of ours: who is let in, and what is forged, stale, borrowed or confused is not."""

import base64
import hmac
import json
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from serving.errors import ServingError
from serving.operations.post import Post
from serving.operations.tokens import FILE_NAME, Tokens
from serving.problems import ProblemError
from tests.unit.feature_repo.published_home import ADA
from tests.unit.serving.open_shop import AT, Caller
from tests.unit.serving.test_app import problem
from tests.unit.serving.test_features import ask
from tests.unit.serving.test_operations import Shop
from troth.clock import FixedClock
from troth.home import Home

RSA, OTHER_RSA = (rsa.generate_private_key(65_537, 2_048) for _ in range(2))
SHORT = rsa.generate_private_key(65_537, 1_024)  # noqa: S505 - that it is too short is what is tested
EC, ED = ec.generate_private_key(ec.SECP256R1()), ed25519.Ed25519PrivateKey.generate()
ISSUER, AUDIENCE = "https://id.example/", "troth"


def jwk(maker: Any, key: Any, kid: str, **changes: Any) -> dict[str, Any]:
    return maker.to_jwk(key.public_key(), as_dict=True) | {"kid": kid, "use": "sig"} | changes


SET = {"keys": [jwk(RSAAlgorithm, RSA, "r"), jwk(ECAlgorithm, EC, "e"), jwk(OKPAlgorithm, ED, "d")]}
PROVIDER = {"issuer": ISSUER, "audience": AUDIENCE, "algorithms": ["RS256", "ES256", "EdDSA"], "jwks": SET}
SIGNERS: dict[str, tuple[Any, str]] = {"RS256": (RSA, "r"), "ES256": (EC, "e"), "EdDSA": (ED, "d")}


def name(home: Home, **changes: Any) -> None:
    """Write who is believed; None leaves a field out."""
    told = {field: value for field, value in (PROVIDER | changes).items() if value is not None}
    path = home.root / "keys" / FILE_NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(told))


def claims(**changes: Any) -> dict[str, Any]:
    """A good token's content, a minute old; None leaves a claim out."""
    now = int(AT.timestamp())
    told = {
        "iss": ISSUER, "aud": AUDIENCE, "sub": "anna@example.org", "client_id": "shop", "iat": now - 60, "exp": now + 240,
        "scope": "openid metrics purpose:personalization purpose:astrology",
    }  # fmt: skip
    return {field: value for field, value in (told | changes).items() if value is not None}


def signed(algorithm: str = "RS256", headers: dict[str, Any] | None = None, **changes: Any) -> str:
    key, kid = SIGNERS[algorithm]
    return jwt.encode(claims(**changes), key, algorithm, {"kid": kid} | (headers or {}))


def part(value: Any) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def confused(secret: bytes) -> str:
    """An HS256 token whose shared secret is what everybody may know: the public key."""
    text = f"{part({'alg': 'HS256', 'kid': 'r', 'typ': 'JWT'})}.{part(claims())}"
    return f"{text}.{part(hmac.digest(secret, text.encode(), 'sha256'))}"


def public(form: PublicFormat = PublicFormat.SubjectPublicKeyInfo, encoding: Encoding = Encoding.PEM) -> bytes:
    return RSA.public_key().public_bytes(encoding, form)


def tokens(root: Path, **changes: Any) -> Tokens:
    name(Home(root), **changes)
    return Tokens(Home(root), FixedClock(AT))


def refusal(told: Tokens, token: str) -> tuple[int, str]:
    with pytest.raises(ProblemError) as raised:
        told.caller(token)
    return raised.value.details.status, raised.value.details.type.removeprefix("urn:troth:problem:")


@pytest.mark.parametrize("algorithm", SIGNERS)
def test_a_good_token_lets_in_for_its_purposes_and_scopes_and_no_more(algorithm: str, tmp_path: Path) -> None:
    caller = tokens(tmp_path).caller(signed(algorithm))
    assert caller is not None
    assert (caller.name, caller.purposes, caller.scopes) == ("token:shop", ("personalization",), ("metrics",))


def test_a_person_is_called_by_a_hash(tmp_path: Path) -> None:
    caller = tokens(tmp_path).caller(signed(client_id=None))
    assert caller is not None
    assert caller.name.startswith("token:sub-")
    assert "anna" not in caller.name


FORGED = {
    "another key": jwt.encode(claims(), OTHER_RSA, "RS256", {"kid": "r"}),
    "an unknown key": jwt.encode(claims(), OTHER_RSA, "RS256", {"kid": "x"}),
    "no key named among several": jwt.encode(claims(), RSA, "RS256"),
    "nobody": f"{part({'alg': 'none'})}.{part(claims())}.",
    "nobody, spelled otherwise": f"{part({'alg': 'NoNe', 'kid': 'r'})}.{part(claims())}.",
    "a public key as a secret": confused(public()),
    "a public key in another form": confused(public(PublicFormat.PKCS1)),
    "a public key in bytes": confused(public(encoding=Encoding.DER)),
    "a shared secret": jwt.encode(claims(), "s" * 64, "HS256", {"kid": "r"}),
    "a key for another algorithm": signed("ES256", {"kid": "r"}),
    "an algorithm not allowed": jwt.encode(claims(), RSA, "RS512", {"kid": "r"}),
    "a padding not allowed": jwt.encode(claims(), RSA, "PS256", {"kid": "r"}),
    "another issuer": signed(iss="https://id.example"),
    "no issuer": signed(iss=None),
    "another audience": signed(aud="till"),
    "others' audience": signed(aud=["till", "hall"]),
    "no audience": signed(aud=None),
    "no end": signed(exp=None),
    "an end in the past": signed(exp=int(AT.timestamp()) - 31),
    "an end that is no time": signed(exp=float("inf")),
    "a beginning in the future": signed(nbf=int(AT.timestamp()) + 31),
    "made in the future": signed(iat=int(AT.timestamp()) + 31),
    "a header that must be understood": signed(headers={"crit": ["exp"]}),
    "no token at all": "a.b.c",
    "too long a token": signed(padding="p" * 8_192),
}


@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED.keys())
def test_what_is_not_what_it_should_be_lets_nobody_in(forged: str, tmp_path: Path) -> None:
    assert refusal(tokens(tmp_path), forged) == (401, "invalid_token")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_token_survives_the_change_of_a_character(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    good = signed("EdDSA")
    place = data.draw(st.integers(0, len(good) - 2))  # the last character of a signature has bits that do not count
    letter = data.draw(st.sampled_from("ABCDEFGHabcdefgh01234567_-."))
    changed = good[:place] + letter + good[place + 1 :]
    told = tokens(tmp_path_factory.mktemp("home"))
    try:
        caller = told.caller(changed)
    except ProblemError:
        caller = None
    assert caller is None or changed == good


@pytest.mark.parametrize(
    "changes", [{"exp": int(AT.timestamp()) - 29}, {"nbf": int(AT.timestamp()) + 29}, {"aud": ["till", "troth"]}]
)
def test_clocks_may_differ_a_little_and_a_token_may_be_for_others_too(changes: dict[str, Any], tmp_path: Path) -> None:
    assert tokens(tmp_path).caller(signed(**changes)) is not None


def test_a_token_that_was_believed_is_not_any_more_when_its_time_is_over(tmp_path: Path) -> None:
    name(Home(tmp_path))
    clock = FixedClock(AT)
    told, token = Tokens(Home(tmp_path), clock), signed()
    assert told.caller(token) is told.caller(token)
    clock.at = AT + timedelta(seconds=270)
    assert refusal(told, token) == (401, "invalid_token")


def test_without_a_provider_tokens_are_nobodys(tmp_path: Path) -> None:
    assert Tokens(Home(tmp_path), FixedClock(AT)).caller(signed()) is None
    assert tokens(tmp_path).caller("troth_key") is None


@pytest.mark.parametrize(
    "changes",
    [
        {"algorithms": ["HS256"]}, {"algorithms": ["none"]}, {"algorithms": []}, {"jwks": None}, {"jwks_uri": "https://id.example/keys"},
        {"jwks": None, "jwks_uri": "http://id.example/keys"}, {"jwks": None, "jwks_uri": "file:///etc/passwd"}, {"jwks": {"keys": []}},
        {"issuer": None}, {"audience": ""}, {"leeway_seconds": 3_600}, {"typo": True},
        {"jwks": {"keys": [{"kty": "oct", "k": part(b"s" * 32), "kid": "r"}]}},
        {"jwks": {"keys": [jwk(RSAAlgorithm, SHORT, "r")]}},
        {"jwks": {"keys": [jwk(RSAAlgorithm, RSA, "r", use="enc")]}},
    ],
)  # fmt: skip
def test_a_provider_that_is_not_described_as_it_must_be_lets_nobody_in(changes: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ServingError, match="expected"):
        tokens(tmp_path, **changes).caller(signed())


def test_over_http_a_token_opens_what_it_says_and_is_refused_as_the_standard_has_it(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    name(shop.home)
    with_token = Caller(shop.app, signed())
    assert with_token.get(f"/v1/customers/{ADA}/features?service=recommend_v1").json()["is_allowed"]
    assert problem(with_token.post("/v1/features", json=ask("churn_v1"))) == (403, "purpose_not_allowed")
    assert with_token.get("/metrics").status_code == 200
    assert problem(with_token.get("/v1/webhooks")) == (403, "scope_not_allowed")
    late = Caller(shop.app, signed(exp=1)).get("/v1/availability?sku=SKU-00001")
    assert problem(late) == (401, "invalid_token")
    assert late.headers["www-authenticate"].startswith('Bearer error="invalid_token", error_description="')
    assert problem(Caller(shop.app, "troth_nobody").get("/v1/availability?sku=SKU-00001")) == (401, "no_key")
    assert shop.caller().get("/v1/availability?sku=SKU-00001").status_code == 200
    assert {line["caller"] for line in shop.log()} == {"token:shop"}


class Keys(BaseHTTPRequestHandler):
    """A provider's set of keys, over a real socket."""

    told: dict[str, Any]

    def do_GET(self) -> None:
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/keys")
            self.end_headers()
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(self.told).encode())

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def provider() -> Iterator[tuple[str, type[Keys]]]:
    handler = type("Told", (Keys,), {"told": SET})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", handler
        server.shutdown()
        thread.join()


def test_keys_are_fetched_beside_the_request_that_needs_them_first(
    tmp_path: Path, provider: tuple[str, type[Keys]]
) -> None:
    told = tokens(tmp_path, jwks=None, jwks_uri=f"{provider[0]}/keys")
    assert refusal(told, signed()) == (503, "unavailable")
    until = time.monotonic() + 30
    while True:
        try:
            assert told.caller(signed()) is not None
            break
        except ProblemError:
            assert time.monotonic() < until
            time.sleep(0.01)
    assert refusal(told, FORGED["an unknown key"]) == (401, "invalid_token")


def test_keys_that_come_while_a_token_is_looked_at_do_not_make_it_a_wrong_one(
    tmp_path: Path, provider: tuple[str, type[Keys]], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tokens(tmp_path, jwks=None, jwks_uri=f"{provider[0]}/keys")
    monkeypatch.setattr(told, "_fetch_beside", told._fetch)  # as quick as can be: there before anything else is asked
    assert refusal(told, signed()) == (503, "unavailable")
    assert told.caller(signed()) is not None


def test_keys_can_be_fetched_before_and_an_address_that_points_elsewhere_is_not_followed(
    tmp_path: Path, provider: tuple[str, type[Keys]]
) -> None:
    told = tokens(tmp_path / "a", jwks=None, jwks_uri=f"{provider[0]}/keys")
    told.prepare()
    assert told.caller(signed()) is not None
    moved = tokens(tmp_path / "b", jwks=None, jwks_uri=f"{provider[0]}/moved")
    moved.prepare()
    assert refusal(moved, signed()) == (503, "unavailable")


def test_a_changed_file_counts_soon_and_what_was_believed_under_the_old_one_is_forgotten(tmp_path: Path) -> None:
    told = tokens(tmp_path)
    assert told.caller(signed()) is not None
    name(Home(tmp_path), audience="another")
    until = time.monotonic() + 30
    while True:
        try:
            told.caller(signed())
        except ProblemError:
            break
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_service_has_no_tokens_of_its_own_accord(tmp_path: Path) -> None:
    assert Post(Home(tmp_path)).tokens.caller(signed()) is None
