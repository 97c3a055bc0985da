"""An identity provider of the tests, over a real socket: keys, codes, and whatever it is told to get wrong."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

KEY, OTHER_KEY = (rsa.generate_private_key(65_537, 2_048) for _ in range(2))
CLIENT, SECRET = "troth console", "a secret with spaces: & colons"
NOW = 1_772_442_000  # 2026-03-02 09:00 UTC


def public(key: Any, kid: str) -> dict[str, Any]:
    told: dict[str, Any] = RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    return told | {"kid": kid, "use": "sig"}


@dataclass
class ToldProvider:
    """What it says of people and of itself; `changes` are claims that it gets wrong, None leaves one out."""

    issuer: str = ""
    groups: Any = field(default_factory=lambda: ["retail-marketing"])
    changes: dict[str, Any] = field(default_factory=dict)
    published: dict[str, Any] = field(default_factory=dict)
    answer: dict[str, str | None] = field(default_factory=dict)  # what it sends back with the browser, changed
    key: Any = KEY
    kid: str = "one"
    keys: list[dict[str, Any]] = field(default_factory=lambda: [public(KEY, "one")])
    algorithm: str | None = "RS256"
    is_moved: bool = False
    client_key: Any = None
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    asked: list[dict[str, str]] = field(default_factory=list)

    def allow(self, address: str) -> str:
        """Somebody at the provider says yes; where it sends their browser."""
        question = {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
        assert question["response_type"] == "code"
        assert question["code_challenge_method"] == "S256"
        code = f"code-{len(self.codes)}"
        self.codes[code] = question
        told = {"code": code, "state": question["state"], "iss": self.issuer} | self.answer
        return f"{question['redirect_uri']}?{urlencode({name: value for name, value in told.items() if value is not None})}"

    def document(self) -> dict[str, Any]:
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/keys",
            "end_session_endpoint": f"{self.issuer}/bye",
            "authorization_response_iss_parameter_supported": True,
        } | self.published

    def token(self, sent: dict[str, str], authorization: str) -> tuple[int, dict[str, Any]]:
        self.asked.append(sent)
        if not self._is_client(sent, authorization):
            return 401, {"error": "invalid_client"}
        question = self.codes.pop(sent["code"], None)
        proof = base64.urlsafe_b64encode(hashlib.sha256(sent["code_verifier"].encode()).digest()).rstrip(b"=").decode()
        if question is None or proof != question["code_challenge"] or sent["redirect_uri"] != question["redirect_uri"]:
            return 400, {"error": "invalid_grant"}
        return 200, {"token_type": "Bearer", "access_token": "unused", "id_token": self._id_token(question["nonce"])}

    def _id_token(self, nonce: str) -> str:
        told = {
            "iss": self.issuer, "sub": "248289761001", "aud": CLIENT, "nonce": nonce, "iat": NOW, "exp": NOW + 300,
            "name": "Mara Lind", "groups": self.groups,
        } | self.changes  # fmt: skip
        claims = {name: value for name, value in told.items() if value is not None}
        if self.algorithm is None:
            return jwt.encode(claims, None, "none")
        key = "s" * 64 if self.algorithm.startswith("HS") else self.key
        return jwt.encode(claims, key, self.algorithm, {"kid": self.kid})

    def _is_client(self, sent: dict[str, str], authorization: str) -> bool:
        if self.client_key is None:
            known = base64.b64encode(f"{urlencode({'': CLIENT})[1:]}:{urlencode({'': SECRET})[1:]}".encode()).decode()
            return authorization == f"Basic {known}"
        said = jwt.decode(
            sent["client_assertion"], self.client_key, algorithms=["RS256", "ES256", "EdDSA"], audience=self.issuer,
            options={"verify_exp": False, "verify_iat": False},
        )  # fmt: skip
        return said["iss"] == said["sub"] == CLIENT and said["exp"] - said["iat"] <= 300


class _Handler(BaseHTTPRequestHandler):
    told: ToldProvider

    def do_GET(self) -> None:
        if self.told.is_moved:
            self.send_response(302)
            self.send_header("Location", f"http://127.0.0.1:{self.server.server_port}/elsewhere{self.path}")  # type: ignore[attr-defined]
            self.end_headers()
        elif self.path.endswith("/.well-known/openid-configuration"):
            self._say(200, self.told.document())
        elif self.path.endswith("/keys"):
            self._say(200, {"keys": self.told.keys})
        else:
            self._say(404, {})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        sent = {name: values[0] for name, values in parse_qs(body).items()}
        self._say(*self.told.token(sent, self.headers.get("authorization", "")))

    def _say(self, status: int, told: dict[str, Any]) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(told).encode())

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def telling() -> Iterator[ToldProvider]:
    """A provider that listens on this machine."""
    told = ToldProvider()
    handler = type("Told", (_Handler,), {"told": told})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        told.issuer = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield told
        server.shutdown()
        thread.join()
