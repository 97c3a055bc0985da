"""Shops that send us webhooks: their secrets, and under which notice their customers subscribe (`keys/shops.json`, for its owner's eyes).

A shop's secret signs every message; while one is changed, the one before is still good.
"""

import hmac
import os
import re
from base64 import b64encode
from pathlib import Path
from typing import Annotated

import msgspec

from serving.errors import ServingError
from troth.home import Home, alone, write_atomically

_DOMAIN = re.compile(r"[a-z0-9][a-z0-9.-]{2,200}")


class Shop(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One shop. Without a notice a subscription proves nothing, and only what ends one is recorded."""

    secrets: Annotated[list[Annotated[str, msgspec.Meta(min_length=8)]], msgspec.Meta(min_length=1, max_length=2)]
    jurisdiction_code: Annotated[str, msgspec.Meta(pattern=r"^[A-Z]{2}(-[A-Z0-9]{1,3})?$")]
    notice_id: str | None = None
    notice_version: int | None = None
    language_code: str | None = None


class Shops:
    """The shops of a home, as its file says whenever they are asked for."""

    def __init__(self, home: Home) -> None:
        self._path = _path(home)
        self._last: tuple[bytes, dict[str, Shop]] = (b"", {})

    def find(self, domain: str) -> Shop | None:
        """A shop by its domain. Raises: ServingError for a file that others may read, or that is not what was written."""
        try:
            with self._path.open("rb") as file:
                mode, data = os.fstat(file.fileno()).st_mode, file.read()
        except FileNotFoundError:
            return None
        if mode & 0o077:
            raise ServingError(
                f"{self._path.name}: expected a file that its owner alone may read, found another. Run `chmod 600` on it."
            )
        if data != self._last[0]:
            self._last = (data, _decoded(self._path.name, data))
        return self._last[1].get(domain)


def is_signed(shop: Shop, body: bytes, signature: str) -> bool:
    """Whether the shop signed a body: HMAC-SHA-256 in base64 under one of its secrets, compared in constant time."""
    given = signature.encode("utf-8", "replace")
    matches = [
        hmac.compare_digest(b64encode(hmac.digest(secret.encode(), body, "sha256")), given) for secret in shop.secrets
    ]
    return any(matches)


def add_shop(home: Home, domain: str, secret: str, **terms: object) -> Shop:
    """Write a shop down; a new secret of a known one comes first, and the one before stays good. Raises: ServingError."""
    if not _DOMAIN.fullmatch(domain):
        raise ServingError("shop: expected a domain in lower case, found another spelling. Correct it.")
    path = _path(home)
    with alone(path.parent):
        shops = _decoded(path.name, path.read_bytes()) if path.exists() else {}
        before = msgspec.structs.asdict(shops[domain]) if domain in shops else {"secrets": []}
        told = before | {name: value for name, value in terms.items() if value is not None}
        told["secrets"] = list(dict.fromkeys([secret, *before["secrets"][:1]]))
        try:
            shop = msgspec.convert(told, Shop)
        except msgspec.ValidationError:
            raise ServingError(
                "shop: expected a secret of at least 8 characters and a jurisdiction such as US-CA, found otherwise. Correct it."
            ) from None
        write_atomically(path, msgspec.json.format(msgspec.json.encode({**shops, domain: shop}), indent=1))
        os.chmod(path, 0o600)
    return shop


def _decoded(name: str, data: bytes) -> dict[str, Shop]:
    try:
        return msgspec.json.decode(data, type=dict[str, Shop])
    except msgspec.MsgspecError:
        raise ServingError(f"{name}: expected shops with their secrets, found otherwise. Restore it.") from None


def _path(home: Home) -> Path:
    return home.root / "keys" / "shops.json"
