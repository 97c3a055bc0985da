"""Where segments may be sent, declared by the retailer in `destinations.yml` of the home. Secrets are in `keys/`, never here.

destinations:
  newsletter:
    kind: s3                                  (folder, s3 or webhook)
    where: troth-exports/newsletter           (a folder below exports/ or anywhere else; bucket/prefix; an address)
    format: parquet                           (csv or parquet; a webhook gets JSON)
    purposes: [marketing]
    channels: [email]
    fields: [customer_id, contact]            (optional; a third party gets no customer_id)
    recipient: {legal_name: Letterbird GmbH, role: processor, country: DE}   (own, processor or third_party)
    needs_approval: true                      (optional; for a third party it is always asked)
    keep_days: 90                             (optional: how long the recipient may use it, and how long it is called back; 365)
    answer_hours: 72                          (optional: how soon a recall has to be acknowledged; 72)
    region: eu-central-1                      (s3 alone)
    credentials: letterbird                   (s3 alone: keys/letterbird.s3, {"access_key": ..., "secret_key": ...})
    endpoint: https://s3.example.com          (s3 of another maker, optional)
    is_local: true                            (optional: a service on this very machine, without TLS)
schedules:
  lapsed_on_mondays: {segment: lapsed_regulars, destination: newsletter, channel: email, cron: "0 6 * * 1", asked_by: kim}
"""

import hashlib
import json
import re
import stat
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hmac import digest
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from consent.rule.policy import Policy, read_policy
from models.segments.conditions import Reader, SegmentError, shown
from models.segments.decision import CONTACT_POINTS
from models.segments.definition import read_strictly, text_of, whole_of
from serving.activation.errors import ActivationError
from serving.errors import ServingError
from serving.hub.addresses import check_url
from troth.home import Home

FILE = "destinations.yml"
KINDS = {"folder": ("csv", "parquet"), "s3": ("csv", "parquet"), "webhook": ("json",)}
ROLES = ("own", "processor", "third_party")
FIELDS = ("customer_id", "contact")
SHARING = "third_party_sharing"
LOOPBACK = ("127.0.0.1", "::1", "localhost")
_WHAT = "destinations"
_NEEDED = ("kind", "where", "purposes", "channels", "recipient")
_OF_ALL = (*_NEEDED, "format", "fields", "needs_approval", "keep_days", "answer_hours", "is_local")
_OF_S3 = ("region", "credentials", "endpoint")
_OF_SCHEDULES = ("segment", "destination", "channel", "cron", "asked_by")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,59}")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9!_.*'()=-]+)*")
_CRON = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
_CRON_PART = re.compile(r"(\*|[0-9]{1,2}(?:-[0-9]{1,2})?)(?:/([0-9]{1,2}))?")


@dataclass(frozen=True)
class Recipient:
    """Whom data goes to: legal name, what they are to us (own, processor, third_party), and in which country (ISO 3166-1)."""

    legal_name: str
    role: str
    country: str


@dataclass(frozen=True)
class Destination:
    """Where a segment may be sent, for which purposes and over which channels, in which form, to whom. Holds no secret."""

    name: str
    kind: str
    where: str
    format: str
    purposes: tuple[str, ...]
    channels: tuple[str, ...]
    fields: tuple[str, ...]
    recipient: Recipient
    needs_approval: bool
    keep_days: int = 365
    answer_hours: int = 72
    is_local: bool = False
    region: str | None = None
    credentials: str | None = None
    endpoint: str | None = None

    @property
    def is_third_party(self) -> bool:
        """Whether whoever receives it uses it for themselves: then everybody is asked for `third_party_sharing` as well."""
        return self.recipient.role == "third_party"

    @property
    def hash(self) -> str:
        """SHA-256 in hex of everything it says: what was approved for one is approved for no other."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def folder(self, home: Home) -> Path:
        """Where a folder is: what does not begin with / is below the home."""
        return home.root / self.where


@dataclass(frozen=True)
class Schedule:
    """A segment that is asked for again and again: every time it is decided anew, and approved anew where that is needed."""

    name: str
    segment: str
    destination: str
    channel: str
    cron: str
    asked_by: str


def read_destinations(home: Home) -> list[Destination]:
    """What the home declares, by name; none where there is no file. Raises: ActivationError naming line and place."""
    return _read(home)[0]


def read_schedules(home: Home) -> list[Schedule]:
    """What is sent again and again, by name. Raises: ActivationError naming line and place."""
    return _read(home)[1]


def destination_of(home: Home, name: str) -> Destination:
    """Raises: ActivationError listing the names there are."""
    found = {each.name: each for each in read_destinations(home)}
    if name not in found:
        raise ActivationError(
            f"destination: expected one of {', '.join(found) or 'none'}, found {name[:60]!r}. "
            f"Choose one, or declare it in {FILE} of the home."
        )
    return found[name]


def check_fits(destination: Destination, purpose_code: str, channel_code: str) -> None:
    """Raises: ActivationError where a segment of this purpose, over this channel, may not be sent there."""
    for what, said, among in (
        ("purpose", purpose_code, destination.purposes),
        ("channel", channel_code, destination.channels),
    ):
        if said not in among:
            raise ActivationError(
                f"destination {destination.name}, {what}: expected one of {', '.join(among)}, found {said[:60]}. "
                f"{destination.recipient.legal_name} receives nothing else; choose another destination."
            )


def parse(text: str, home: Home) -> tuple[list[Destination], list[Schedule]]:
    """Destinations and schedules from YAML text. Raises: ActivationError naming line and place."""
    try:
        content, lines = read_strictly(_WHAT, text, ("destinations", "schedules"), ("schedules",))
        reader, policy = Reader(_WHAT, lines), read_policy()
        destinations = [
            _destination(reader, policy, name, said) for name, said in _entries(reader, content, "destinations")
        ]
        schedules = [
            _schedule(reader, destinations, name, said) for name, said in _entries(reader, content, "schedules")
        ]
        for each in destinations:
            _check_folder(reader, home, each)
    except SegmentError as fault:
        raise ActivationError(str(fault)) from None
    return sorted(destinations, key=lambda each: each.name), sorted(schedules, key=lambda each: each.name)


def webhook_secret(home: Home, destination: Destination) -> str:
    """What messages to it are signed with: derived from a key of the home and its name, kept nowhere."""
    return (
        "whsec_" + b64encode(digest(home.key("activation"), f"webhook\0{destination.name}".encode(), "sha256")).decode()
    )


def s3_credentials(home: Home, destination: Destination) -> dict[str, str]:
    """What is in `keys/<credentials>.s3`. Raises: ActivationError, never quoting it, where others may read it or it says something else."""
    path = home.root / "keys" / f"{destination.credentials}.s3"
    what = f"destination {destination.name}, credentials"
    advice = 'Write {"access_key": "...", "secret_key": "..."} there, and chmod 600.'
    if not path.is_file():
        raise ActivationError(f"{what}: expected keys/{path.name}, found none. {advice}")
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise ActivationError(f"{what}: expected a file for its owner only, found one that others may read. {advice}")
    try:
        found = json.loads(path.read_bytes())
    except ValueError:
        found = None
    allowed = {"access_key", "secret_key", "session_token"}
    is_whole = isinstance(found, dict) and {"access_key", "secret_key"} <= set(found) <= allowed
    if not is_whole or not all(isinstance(each, str) and each for each in found.values()):
        raise ActivationError(f"{what}: expected access_key and secret_key in JSON, found something else. {advice}")
    return dict(found)


def _read(home: Home) -> tuple[list[Destination], list[Schedule]]:
    path = home.root / FILE
    if not path.exists():
        return [], []
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as fault:
        raise ActivationError(f"{FILE}: expected UTF-8 text, found {type(fault).__name__}. Save it as UTF-8.") from None
    return parse(text, home)


def _entries(reader: Reader, content: Mapping[str, Any], key: str) -> list[tuple[str, dict[str, Any]]]:
    entries = content.get(key) or {}
    if not isinstance(entries, dict):
        raise reader.error(key, "names with what they say", shown(entries), "Write them as `name:` lines.")
    for name, said in entries.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise reader.error(f"{key}.{name}", "small letters, digits and underscores", repr(name)[:60], "Rename it.")
        if not isinstance(said, dict):
            raise reader.error(f"{key}.{name}", "a mapping", shown(said), "Write `kind:` and the rest below it.")
    return list(entries.items())


def _destination(reader: Reader, policy: Policy, name: str, said: dict[str, Any]) -> Destination:
    at = f"destinations.{name}"
    kind = _one(reader, at, said, "kind", tuple(KINDS))
    known = (*_OF_ALL, *(_OF_S3 if kind == "s3" else ()))
    needed = (*_NEEDED, *(("region", "credentials") if kind == "s3" else ()))
    unknown, missing = [key for key in said if key not in known], [key for key in needed if key not in said]
    if unknown or missing:
        found = ", ".join([*(f"unknown {key!s:.40}" for key in unknown), *(f"no {key}" for key in missing)])
        place = f"{at}.{unknown[0]}" if unknown else at
        raise reader.error(place, ", ".join(known), found, "Add or remove them.")
    recipient = _recipient(reader, f"{at}.recipient", said["recipient"])
    channels = _some(reader, at, said, "channels", tuple(each for each in policy.channels if each in CONTACT_POINTS))
    is_local = _flag(reader, at, said, "is_local")
    made = Destination(
        name=name,
        kind=kind,
        where=_where(reader, at, kind, text_of(reader, {f"{at}.where": said["where"]}, f"{at}.where"), is_local),
        format=_one(reader, at, {"format": KINDS[kind][0], **said}, "format", KINDS[kind]),
        purposes=_some(reader, at, said, "purposes", tuple(policy.purposes)),
        channels=channels,
        fields=_fields(reader, at, said, recipient, channels),
        recipient=recipient,
        needs_approval=_flag(reader, at, said, "needs_approval") or recipient.role == "third_party",
        keep_days=whole_of(reader, said, "keep_days", 1, 3_650, f"{at}.") if "keep_days" in said else 365,
        answer_hours=whole_of(reader, said, "answer_hours", 1, 720, f"{at}.") if "answer_hours" in said else 72,
        is_local=is_local,
        **_of_s3(reader, at, said, is_local),
    )
    if made.is_third_party and said.get("needs_approval") is False:
        raise reader.error(
            f"{at}.needs_approval", "true for a third party", "false", "Leave it out: a second person always looks."
        )
    return made


def _where(reader: Reader, at: str, kind: str, said: str, is_local: bool) -> str:
    place = f"{at}.where"
    if kind == "webhook":
        try:
            check_url(said, allow_loopback=is_local)
        except ServingError:
            raise reader.error(place, "https to a public address", "another", "Correct it.") from None
    elif kind == "s3" and (not _BUCKET.fullmatch(said) or ".." in said):
        raise reader.error(
            place, "bucket/prefix", repr(said[:60]), "Write it without s3:// and without a slash at its end."
        )
    elif kind == "folder" and ".." in PurePosixPath(said).parts:
        raise reader.error(place, "a folder without ..", repr(said[:60]), "Write where it is.")
    return said


def _check_folder(reader: Reader, home: Home, destination: Destination) -> None:
    """Of the home, exports/ alone may be written to: the rest has other owners."""
    if destination.kind != "folder":
        return
    folder, root = destination.folder(home).resolve(), home.root.resolve()
    ours = root / "exports"
    if folder.is_relative_to(root) and (not folder.is_relative_to(ours) or folder in (ours, ours / "access")):
        raise reader.error(
            f"destinations.{destination.name}.where",
            "a folder below exports/, or one outside the home",
            repr(destination.where[:60]),
            "Name another.",
        )


def _recipient(reader: Reader, at: str, said: Any) -> Recipient:
    if not isinstance(said, dict) or set(said) != {"legal_name", "role", "country"}:
        raise reader.error(at, "legal_name, role, country", shown(said), "Write exactly these.")
    country = said["country"]
    if not isinstance(country, str) or not re.fullmatch(r"[A-Z]{2}", country):
        raise reader.error(f"{at}.country", "two capitals, such as DE", shown(country), 'Write it in quotes: "NO".')
    return Recipient(
        legal_name=text_of(reader, {f"{at}.legal_name": said["legal_name"]}, f"{at}.legal_name"),
        role=_one(reader, at, said, "role", ROLES),
        country=country,
    )


def _fields(
    reader: Reader, at: str, said: dict[str, Any], recipient: Recipient, channels: tuple[str, ...]
) -> tuple[str, ...]:
    is_third = recipient.role == "third_party"
    fields = _some(reader, at, {"fields": [FIELDS[1]] if is_third else list(FIELDS), **said}, "fields", FIELDS)
    if is_third and "customer_id" in fields:
        raise reader.error(
            f"{at}.fields", "contact alone", "customer_id", "A third party gets no id of ours: leave it out."
        )
    by_id = [each for each in channels if CONTACT_POINTS[each] is None]
    if by_id and "customer_id" not in fields:
        raise reader.error(
            f"{at}.fields",
            f"customer_id, by which {by_id[0]} reaches people",
            ", ".join(fields),
            "Add it, or drop the channel.",
        )
    return tuple(each for each in FIELDS if each in fields)


def _of_s3(reader: Reader, at: str, said: dict[str, Any], is_local: bool) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for key in _OF_S3:
        if key in said:
            found[key] = text_of(reader, {f"{at}.{key}": said[key]}, f"{at}.{key}")
    if (name := found.get("credentials")) is not None and not _NAME.fullmatch(name):
        raise reader.error(
            f"{at}.credentials", "the name of a file in keys/", repr(name[:60]), "Small letters, digits, underscores."
        )
    if (endpoint := found.get("endpoint")) is not None:
        parts = urlsplit(endpoint)
        is_here = is_local and parts.scheme == "http" and parts.hostname in LOOPBACK
        is_plain = not parts.username and not parts.query and parts.path in ("", "/")
        if not (is_here or parts.scheme == "https") or not parts.hostname or not is_plain:
            raise reader.error(f"{at}.endpoint", "https://host", repr(endpoint[:60]), "Correct it.")
    return found


def _schedule(reader: Reader, destinations: list[Destination], name: str, said: dict[str, Any]) -> Schedule:
    at = f"schedules.{name}"
    if set(said) != set(_OF_SCHEDULES):
        raise reader.error(at, ", ".join(_OF_SCHEDULES), ", ".join(map(str, said))[:100], "Write exactly these.")
    known = {each.name: each for each in destinations}
    to = known[_one(reader, at, said, "destination", tuple(known))]
    texts = {key: text_of(reader, {f"{at}.{key}": said[key]}, f"{at}.{key}") for key in ("segment", "cron", "asked_by")}
    if not _is_cron(texts["cron"]):
        raise reader.error(f"{at}.cron", 'five fields such as "0 6 * * 1"', repr(texts["cron"][:40]), "Correct it.")
    return Schedule(
        name,
        texts["segment"],
        to.name,
        _one(reader, at, said, "channel", to.channels),
        texts["cron"],
        texts["asked_by"],
    )


def _is_cron(text: str) -> bool:
    """Minute, hour, day of the month, month, day of the week: numbers, ranges, lists and steps."""
    fields = text.split()
    return len(fields) == len(_CRON) and all(
        _is_cron_part(part, *bounds) for field, bounds in zip(fields, _CRON, strict=True) for part in field.split(",")
    )


def _is_cron_part(part: str, least: int, most: int) -> bool:
    found = _CRON_PART.fullmatch(part)
    if not found:
        return False
    numbers = [] if found[1] == "*" else [int(each) for each in found[1].split("-")]
    in_bounds = all(least <= each <= most for each in numbers) and numbers == sorted(numbers)
    return in_bounds and (found[2] is None or (0 < int(found[2]) <= most and len(numbers) != 1))


def _one(reader: Reader, at: str, said: Mapping[str, Any], key: str, among: tuple[str, ...]) -> str:
    value = said.get(key)
    if value not in among:
        raise reader.error(f"{at}.{key}", f"one of {', '.join(among) or 'none'}", shown(value), "Choose one of them.")
    return str(value)


def _some(reader: Reader, at: str, said: Mapping[str, Any], key: str, among: tuple[str, ...]) -> tuple[str, ...]:
    listed = said[key]
    is_list = isinstance(listed, list) and listed and all(isinstance(each, str) and each in among for each in listed)
    if not is_list or len(set(listed)) < len(listed):
        found = ", ".join(map(str, listed))[:100] if isinstance(listed, list) else shown(listed)
        raise reader.error(
            f"{at}.{key}", f"a list of {', '.join(among)}", found or "none", "Choose some of them, each once."
        )
    return tuple(listed)


def _flag(reader: Reader, at: str, said: Mapping[str, Any], key: str) -> bool:
    value = said.get(key, False)
    if not isinstance(value, bool):
        raise reader.error(f"{at}.{key}", "true or false", shown(value), "Choose one of them.")
    return value
