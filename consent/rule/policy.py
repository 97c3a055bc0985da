"""What is asked, on which legal basis, under which notice and for how long: the policy file as values and as frames."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from consent.errors import ConsentError

POLICY_FILE = Path(__file__).parents[1] / "policy.yml"
EVERY = "*"
LEGAL_BASES = ("consent", "contract", "legitimate_interest")
MECHANISMS = ("opt_in", "opt_out", "notice_only")
POLICY_SCHEMA: dict[str, pl.DataType] = {
    **dict.fromkeys(("purpose_code", "channel_code", "legal_basis", "jurisdiction_code", "mechanism"), pl.String()),
    **dict.fromkeys(("expires_after_days", "confirm_within_days"), pl.Int64()),
    "is_refused_by_gpc": pl.Boolean(),
}
NOTICES_SCHEMA = {"notice_id": pl.String(), "minimum_version": pl.Int64(), "silence_version": pl.Int64()}


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

    @property
    def rests_on_contract(self) -> bool:
        return self.legal_basis == "contract"


@dataclass(frozen=True)
class Notice:
    """A text shown when asking; a grant under a version below the minimum is stale.

    `silence_version`: from which version on the text says where silence is a yes; under older ones, or where none says so, it is not.
    """

    notice_id: str
    current_version: int
    minimum_version: int
    silence_version: int | None = None


@dataclass(frozen=True)
class Jurisdiction:
    """Where a law applies. `mechanisms` and `expires_after_days` replace the place's and the purpose's own, by purpose.

    `confirm_within_days`: by purpose and channel, where a grant counts only once a second event has confirmed it.
    """

    jurisdiction_code: str
    mechanism: str
    expires_after_days: Mapping[str, int]
    mechanisms: Mapping[str, str] = field(default_factory=dict)
    confirm_within_days: Mapping[tuple[str, str], int] = field(default_factory=dict)


@dataclass(frozen=True)
class Policy:
    """The whole policy file."""

    purposes: Mapping[str, Purpose]
    channels: Mapping[str, str]
    notices: Mapping[str, Notice]
    jurisdictions: Mapping[str, Jurisdiction]
    gpc_purposes: frozenset[str] = frozenset({"third_party_sharing"})

    def place(self, jurisdiction_code: str) -> Jurisdiction:
        """The jurisdiction, or `*` where the policy does not name it."""
        return self.jurisdictions.get(jurisdiction_code, self.jurisdictions[EVERY])

    def days(self, purpose_code: str, jurisdiction_code: str) -> int | None:
        """Days a yes to a purpose lasts under a jurisdiction; None: it does not end by itself."""
        place = self.place(jurisdiction_code)
        return place.expires_after_days.get(purpose_code, self.purposes[purpose_code].expires_after_days)

    def mechanism(self, purpose_code: str, jurisdiction_code: str) -> str:
        """opt_in, opt_out or notice_only: what silence means for a purpose under a jurisdiction."""
        place = self.place(jurisdiction_code)
        return place.mechanisms.get(purpose_code, place.mechanism)

    def confirm_days(self, purpose_code: str, channel_code: str, jurisdiction_code: str) -> int | None:
        """Days in which a grant must be confirmed; None: it need not. `*` for channels asked one by one: the fewest of all."""
        place = self.place(jurisdiction_code)
        if channel_code == EVERY and EVERY not in self.purposes[purpose_code].channels:
            fewest = [days for (purpose, _), days in place.confirm_within_days.items() if purpose == purpose_code]
            return min(fewest, default=None)
        return place.confirm_within_days.get((purpose_code, channel_code))

    def is_current(self, notice_id: str | None, notice_version: int | None, *, of_silence: bool = False) -> bool:
        """Whether a grant, or silence, under this notice and version still counts."""
        notice = self.notices.get(notice_id or "")
        if notice is None or notice_version is None:
            return False
        least = notice.silence_version if of_silence else notice.minimum_version
        return least is not None and notice_version >= least


def read_policy(path: Path = POLICY_FILE) -> Policy:
    """The policy of a file, read again once the file is another. Raises: ConsentError naming the entry that is wrong."""
    try:
        told = path.stat()
        return _read(path, told.st_mtime_ns, told.st_size, told.st_ino)
    except (OSError, ValueError, yaml.YAMLError) as fault:
        raise ConsentError(f"{path.name}: expected a YAML file, found {type(fault).__name__}. Correct it.") from fault


@lru_cache(maxsize=8)  # reading one costs 15 to 40 ms
def _read(path: Path, *_changed: int) -> Policy:
    found = yaml.safe_load(path.read_text(encoding="utf-8"))
    top = _mapping("policy", found, ("purposes", "channels", "notices", "jurisdictions", "gpc_purposes"))
    channels = {code: _text(f"channels.{code}", value) for code, value in _mapping("channels", top["channels"]).items()}
    purposes = {code: _purpose(code, value, channels) for code, value in _mapping("purposes", top["purposes"]).items()}
    notices = {code: _notice(code, value) for code, value in _mapping("notices", top["notices"]).items()}
    places = {
        code: _jurisdiction(code, value, purposes)
        for code, value in _mapping("jurisdictions", top["jurisdictions"]).items()
    }
    if EVERY not in places:
        raise _wrong("jurisdictions", "an entry for `*`, every place not named", "none")
    return Policy(purposes, channels, notices, places, _gpc_purposes(top["gpc_purposes"], purposes))


def policy_frame(policy: Policy) -> pl.DataFrame:
    """The raw table `consent_policy`. One row per purpose, asked channel and jurisdiction."""
    rows = [
        (code, channel, purpose.legal_basis, place, policy.mechanism(code, place), policy.days(code, place),
         policy.confirm_days(code, channel, place), code in policy.gpc_purposes)
        for code, purpose in policy.purposes.items()
        for channel in purpose.channels
        for place in policy.jurisdictions
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=POLICY_SCHEMA, orient="row")


def notices_frame(policy: Policy) -> pl.DataFrame:
    """The raw table `consent_notices`. One row per notice."""
    rows = [(each.notice_id, each.minimum_version, each.silence_version) for each in policy.notices.values()]
    return pl.DataFrame(rows, schema=NOTICES_SCHEMA, orient="row")


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
    names = ("current_version", "minimum_version", "silence_version")
    found = _mapping(at, value, names)
    current, minimum, silence = (None if found[name] is None else _whole(f"{at}.{name}", found[name]) for name in names)
    if current is None or minimum is None:
        raise _wrong(at, "a current_version and a minimum_version", "none")
    if minimum > current:
        raise _wrong(f"{at}.minimum_version", f"at most the current version {current}", str(minimum))
    if silence is not None and not minimum <= silence <= current:
        raise _wrong(f"{at}.silence_version", f"a version from {minimum} to {current}, or null", str(silence))
    return Notice(code, current, minimum, silence)


def _gpc_purposes(found: object, purposes: Mapping[str, Purpose]) -> frozenset[str]:
    if not isinstance(found, list) or not found:
        raise _wrong("gpc_purposes", "a list of purposes that Global Privacy Control refuses", "something else")
    for code in found:
        if purposes[_one_of("gpc_purposes", code, tuple(purposes))].rests_on_contract:
            raise _wrong("gpc_purposes", "purposes that a person can refuse", f"{code}, which rests on a contract")
    return frozenset(found)


def _jurisdiction(code: str, value: object, purposes: Mapping[str, Purpose]) -> Jurisdiction:
    at = f"jurisdictions.{code}"
    found = _mapping(at, value, ("mechanism",), ("mechanisms", "expires_after_days", "double_opt_in"))
    days = _mapping(f"{at}.expires_after_days", found.get("expires_after_days", {}))
    for purpose, count in days.items():
        _one_of(f"{at}.expires_after_days", purpose, tuple(purposes))
        _whole(f"{at}.expires_after_days.{purpose}", count)
    mechanism = _one_of(f"{at}.mechanism", found["mechanism"], MECHANISMS)
    mechanisms = _mapping(f"{at}.mechanisms", found.get("mechanisms", {}))
    for purpose, named in mechanisms.items():
        _one_of(f"{at}.mechanisms", purpose, tuple(purposes))
        _one_of(f"{at}.mechanisms.{purpose}", named, MECHANISMS)
        if purposes[purpose].rests_on_contract:
            raise _wrong(f"{at}.mechanisms.{purpose}", "no mechanism for what rests on a contract", named)
    for asked in purposes.values():
        meant = mechanisms.get(asked.purpose_code, mechanism)
        if meant == "notice_only" and asked.rests_on_consent:
            raise _wrong(f"{at}, {asked.purpose_code}", "opt_in or opt_out for what rests on consent", "notice_only")
    return Jurisdiction(
        jurisdiction_code=code,
        mechanism=mechanism,
        expires_after_days=days,
        mechanisms=mechanisms,
        confirm_within_days=_double_opt_in(f"{at}.double_opt_in", found, purposes, mechanism, mechanisms),
    )


def _double_opt_in(
    at: str, place: Mapping[str, Any], purposes: Mapping[str, Purpose], mechanism: str, mechanisms: Mapping[str, str]
) -> dict[tuple[str, str], int]:
    """Days to confirm by purpose and channel."""
    days: dict[tuple[str, str], int] = {}
    for purpose, channels in _mapping(at, place.get("double_opt_in", {})).items():
        asked = purposes[_one_of(at, purpose, tuple(purposes))]
        if asked.rests_on_contract or mechanisms.get(purpose, mechanism) != "opt_in":
            raise _wrong(f"{at}.{purpose}", "a purpose whose mechanism here is opt_in", "one that needs no yes")
        for channel, terms in _mapping(f"{at}.{purpose}", channels).items():
            _one_of(f"{at}.{purpose}", channel, asked.channels)
            where = f"{at}.{purpose}.{channel}"
            days[purpose, channel] = _whole(
                where, _mapping(where, terms, ("confirm_within_days",))["confirm_within_days"]
            )
    return days


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
