"""Signed links for shoppers, and the tokens of the forms behind them.

A link is sealed with AES-SIV (RFC 5297) under a key of the home: nothing in it can be read, and nothing can be changed.
A forged, an expired and a misplaced link are refused alike.
"""

import hashlib
import hmac
import re
import secrets
import struct
from base64 import b32decode, b32encode, urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from serving.errors import ServingError
from troth.ids import IDENTIFIER_TYPES

KINDS = ("preferences", "unsubscribe", "confirm")
# Days a link of a kind is good for: unless told otherwise, and at most. An unsubscribe link outlives the message it is in.
VALID_DAYS = {"preferences": (30, 90), "unsubscribe": (400, 1100), "confirm": (7, 30)}
SUBJECT = r"(?:" + "|".join(IDENTIFIER_TYPES) + r")_[a-z2-7]{22}"  # 110 bits, as troth.ids makes them
_HEAD = struct.Struct(">BB14sII8s")  # kind, identifier type, subject, issued, valid for (seconds), nonce
_ABOUT = b"troth-link-v1"
_MOST_CHARACTERS = 200


class LinkError(ServingError):
    """A link that opens nothing. It does not say why."""

    def __init__(self) -> None:
        super().__init__("link: expected one that works here, found another. Ask for a new one.")


@dataclass(frozen=True)
class Link:
    """What an opened link says. `purpose_code` and `channel_code` are `*` where the link is for all."""

    text: str
    kind: str
    subject_id: str
    purpose_code: str
    channel_code: str
    issued_at: datetime
    expires_at: datetime
    nonce: str


class Links:
    """Makes and opens links under one 32-byte secret."""

    def __init__(self, secret: bytes) -> None:
        self._cipher = AESSIV(hashlib.sha512(b"troth-links-seal-v1\0" + secret).digest())
        self._form_key = hashlib.sha256(b"troth-links-form-v1\0" + secret).digest()

    def make(
        self,
        kind: str,
        subject_id: str,
        at: datetime,
        days: int | None = None,
        purpose_code: str = "*",
        channel_code: str = "*",
    ) -> Link:
        """A new link for one subject. Raises: ServingError for an unknown kind, subject or a time too long."""
        if kind not in KINDS or not re.fullmatch(SUBJECT, subject_id):
            raise ServingError(f"link: expected a kind among {list(KINDS)} and a subject's token, found another.")
        usual, most = VALID_DAYS[kind]
        days = usual if days is None else days
        if not 1 <= days <= most:
            raise ServingError(f"link: expected 1 to {most} days for {kind}, found {days}. Correct it.")
        identifier_type, _, token = subject_id.partition("_")
        head = _HEAD.pack(
            KINDS.index(kind),
            IDENTIFIER_TYPES.index(identifier_type),
            b32decode(token.upper() + "AA")[:14],
            int(at.timestamp()),
            days * 86_400,
            secrets.token_bytes(8),
        )
        sealed = self._cipher.encrypt(head + f"{purpose_code}:{channel_code}".encode(), [_ABOUT])
        return self.open(urlsafe_b64encode(sealed).decode().rstrip("="), (kind,), at)

    def open(self, text: str, kinds: tuple[str, ...], at: datetime) -> Link:
        """The link, if it is ours, of one of these kinds and in its time. Raises: LinkError, the same in every case."""
        try:
            if len(text) > _MOST_CHARACTERS:
                raise LinkError
            sealed = urlsafe_b64decode(text + "=" * (-len(text) % 4))
            if not hmac.compare_digest(urlsafe_b64encode(sealed).rstrip(b"="), text.encode()):
                raise LinkError  # another spelling of the same bytes
            said = self._cipher.decrypt(sealed, [_ABOUT])
        except (ValueError, InvalidTag):
            raise LinkError from None
        kind, identifier_type, subject, issued, valid, nonce = _HEAD.unpack(said[: _HEAD.size])
        purpose_code, _, channel_code = said[_HEAD.size :].decode().partition(":")
        issued_at = datetime.fromtimestamp(issued, UTC)
        link = Link(
            text=text,
            kind=KINDS[kind],
            subject_id=f"{IDENTIFIER_TYPES[identifier_type]}_{b32encode(subject).decode().lower()[:22]}",
            purpose_code=purpose_code,
            channel_code=channel_code,
            issued_at=issued_at,
            expires_at=issued_at + timedelta(seconds=valid),
            nonce=nonce.hex(),
        )
        if link.kind not in kinds or at >= link.expires_at:
            raise LinkError
        return link

    def form_token(self, link: Link, notice_version: int, language_code: str) -> str:
        """What a form carries back: that we made it for this link, and which text it stood under."""
        shown = f"{notice_version}.{language_code}"
        return f"{shown}.{self._mac(link, shown)}"

    def shown_on(self, link: Link, form_token: str) -> tuple[int, str] | None:
        """Notice version and language of the form a token came with; None when we did not make it for this link."""
        shown, _, mac = form_token.rpartition(".")
        if not hmac.compare_digest(mac.encode(), self._mac(link, shown).encode()):
            return None
        version, _, language_code = shown.partition(".")
        return int(version), language_code

    def _mac(self, link: Link, shown: str) -> str:
        mac = hmac.digest(self._form_key, f"{link.text}\0{shown}".encode(), "sha256")
        return urlsafe_b64encode(mac[:18]).decode()
