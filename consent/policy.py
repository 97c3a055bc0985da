"""What is asked, on which legal basis, under which notice and for how long: the policy file as values and as frames."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from consent.errors import ConsentError

POLICY_FILE = Path(__file__).with_name("policy.yml")
EVERY = "*"
LEGAL_BASES = ("consent", "contract")
MECHANISMS = ("opt_in",)


@dataclass(frozen=True)
class Purpose:
    """What data is used for. `channels` is what a person is asked for: channels one by one, or `*`, the whole."""

    purpose_code: str
    description: str
    legal_basis: str
    channels: tuple[str, ...]
    expires_after_days: int | None

    @property
    def rests_on_consent(self) -> bool:
        return self.legal_basis == "consent"


@dataclass(frozen=True)
class Notice:
    """A text shown when asking; a grant under a version below the minimum is stale."""

    notice_id: str
    current_version: int
    minimum_version: int


@dataclass(frozen=True)
class Jurisdiction:
    """Where a law applies; `expires_after_days` replaces the purpose's own where it names the purpose."""

    jurisdiction_code: str
    mechanism: str
    expires_after_days: Mapping[str, int]


@dataclass(frozen=True)
class Policy:
    """The whole policy file."""

    purposes: Mapping[str, Purpose]
    channels: Mapping[str, str]
    notices: Mapping[str, Notice]
    jurisdictions: Mapping[str, Jurisdiction]

    def days(self, purpose_code: str, jurisdiction_code: str) -> int | None:
        """Days a grant of a purpose lasts under a jurisdiction; None: it does not end by itself."""
        place = self.jurisdictions.get(jurisdiction_code, self.jurisdictions[EVERY])
        return place.expires_after_days.get(purpose_code, self.purposes[purpose_code].expires_after_days)

    def is_current(self, notice_id: str | None, notice_version: int | None) -> bool:
        """Whether a grant under this notice and version still counts."""
        notice = self.notices.get(notice_id or "")
        return notice is not None and notice_version is not None and notice_version >= notice.minimum_version


def read_policy(path: Path = POLICY_FILE) -> Policy:
    """The policy of a file. Raises: ConsentError naming the entry that is wrong."""
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as fault:
        raise ConsentError(f"{path.name}: expected a YAML file, found {type(fault).__name__}. Correct it.") from fault
    top = _mapping("policy", found, ("purposes", "channels", "notices", "jurisdictions"))
    channels = {code: _text(f"channels.{code}", value) for code, value in _mapping("channels", top["channels"]).items()}
    purposes = {code: _purpose(code, value, channels) for code, value in _mapping("purposes", top["purposes"]).items()}
    notices = {code: _notice(code, value) for code, value in _mapping("notices", top["notices"]).items()}
    places = {
        code: _jurisdiction(code, value, purposes)
        for code, value in _mapping("jurisdictions", top["jurisdictions"]).items()
    }
    if EVERY not in places:
        raise _wrong("jurisdictions", "an entry for `*`, every place not named", "none")
    return Policy(purposes, channels, notices, places)


def policy_frame(policy: Policy) -> pl.DataFrame:
    """The raw table `consent_policy`. One row per purpose, asked channel and jurisdiction."""
    rows = [
        (purpose.purpose_code, channel, purpose.legal_basis, place.jurisdiction_code, place.mechanism,
         policy.days(purpose.purpose_code, place.jurisdiction_code))
        for purpose in policy.purposes.values()
        for channel in purpose.channels
        for place in policy.jurisdictions.values()
    ]  # fmt: skip
    schema = {
        name: pl.String() for name in ("purpose_code", "channel_code", "legal_basis", "jurisdiction_code", "mechanism")
    }
    return pl.DataFrame(rows, schema={**schema, "expires_after_days": pl.Int64()}, orient="row")


def notices_frame(policy: Policy) -> pl.DataFrame:
    """The raw table `consent_notices`. One row per notice."""
    rows = [(notice.notice_id, notice.minimum_version) for notice in policy.notices.values()]
    return pl.DataFrame(rows, schema={"notice_id": pl.String(), "minimum_version": pl.Int64()}, orient="row")


def _purpose(code: str, value: object, channels: Mapping[str, str]) -> Purpose:
    at = f"purposes.{code}"
    found = _mapping(at, value, ("description", "legal_basis", "channels", "expires_after_days"))
    basis = _one_of(f"{at}.legal_basis", found["legal_basis"], LEGAL_BASES)
    asked = found["channels"]
    if not isinstance(asked, list) or not asked or len(set(map(str, asked))) != len(asked):
        raise _wrong(f"{at}.channels", 'a list of different channels, or ["*"]', "something else")
    if asked != [EVERY]:
        for channel in asked:
            _one_of(f"{at}.channels", channel, tuple(channels))
    days = found["expires_after_days"]
    return Purpose(
        purpose_code=code,
        description=_text(f"{at}.description", found["description"]),
        legal_basis=basis,
        channels=tuple(asked),
        expires_after_days=None if days is None else _whole(f"{at}.expires_after_days", days),
    )


def _notice(code: str, value: object) -> Notice:
    at = f"notices.{code}"
    found = _mapping(at, value, ("current_version", "minimum_version"))
    current, minimum = (_whole(f"{at}.{name}", found[name]) for name in ("current_version", "minimum_version"))
    if minimum > current:
        raise _wrong(f"{at}.minimum_version", f"at most the current version {current}", str(minimum))
    return Notice(code, current, minimum)


def _jurisdiction(code: str, value: object, purposes: Mapping[str, Purpose]) -> Jurisdiction:
    at = f"jurisdictions.{code}"
    found = _mapping(at, value, ("mechanism",), ("expires_after_days",))
    days = _mapping(f"{at}.expires_after_days", found.get("expires_after_days", {}))
    for purpose, count in days.items():
        _one_of(f"{at}.expires_after_days", purpose, tuple(purposes))
        _whole(f"{at}.expires_after_days.{purpose}", count)
    return Jurisdiction(code, _one_of(f"{at}.mechanism", found["mechanism"], MECHANISMS), days)


def _mapping(at: str, value: object, required: tuple[str, ...] = (), optional: tuple[str, ...] = ()) -> dict[str, Any]:
    """A mapping with text keys: exactly the required and optional ones, or any where none are required."""
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise _wrong(at, "named entries", type(value).__name__)
    missing = [key for key in required if key not in value]
    if missing:
        raise _wrong(at, f"an entry {missing[0]}", "none")
    unknown = [key for key in value if required and key not in (*required, *optional)]
    if unknown:
        raise _wrong(at, f"only {', '.join((*required, *optional))}", unknown[0])
    return value


def _one_of(at: str, value: object, allowed: tuple[str, ...]) -> str:
    if not isinstance(value, str) or value not in allowed:
        raise _wrong(at, f"one of {', '.join(allowed)}", str(value))
    return value


def _whole(at: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise _wrong(at, "a whole number from 1", str(value))
    return value


def _text(at: str, value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _wrong(at, "a sentence", "none")
    return value


def _wrong(at: str, expected: str, found: str) -> ConsentError:
    return ConsentError(f"consent policy, {at}: expected {expected}, found {found}. Correct the policy file.")
