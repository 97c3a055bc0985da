"""Opaque ids for identifiers of people, and content hashes for files.

A token is a keyed hash: without the key it can be neither reversed nor guessed from a list of e-mails,
and the same identifier gives the same token in every source. The key lives in the home (`keys/token.key`).
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

IDENTIFIER_TYPES = ("email", "phone", "card", "account", "device", "payment")
_NOT_DIGITS = re.compile(r"\D+")
_MOST_REMEMBERED = 500_000  # tokens a tokeniser keeps at hand, about 100 MB


def normalised(identifier_type: str, value: str) -> str:
    """The spelling under which two writings of one identifier are equal.

    E-mails are trimmed and lower-cased; phones and cards keep their digits (a leading North American 1 of an
    eleven-digit phone is dropped); everything else is trimmed.
    """
    text = value.strip()
    if identifier_type == "email":
        return text.lower()
    if identifier_type in ("phone", "card"):
        digits = _NOT_DIGITS.sub("", text)
        if identifier_type == "phone" and len(digits) == 11 and digits[0] == "1":
            return digits[1:]
        return digits
    return text


@lru_cache(maxsize=4)
def tokeniser(key: bytes) -> Callable[[str, str | None], str | None]:
    """A function (identifier type, value) -> 28-character token such as `email_k3x...`, or None for nothing.

    HMAC-SHA-256 (RFC 2104) over `type NUL normalised value`, first 110 bits in lower-case base32.
    """
    seen: dict[tuple[str, str], str | None] = {}

    def token(identifier_type: str, value: str | None) -> str | None:
        if value is None:
            return None
        at = (identifier_type, value)
        if at not in seen:
            if len(seen) >= _MOST_REMEMBERED:
                seen.clear()
            text = normalised(identifier_type, value)
            if text:
                mac = hmac.digest(key, f"{identifier_type}\0{text}".encode(), "sha256")
                tail = base64.b32encode(mac[:14]).decode().lower()[:22]
                seen[at] = f"{identifier_type}_{tail}"
            else:
                seen[at] = None
        return seen[at]

    return token


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
