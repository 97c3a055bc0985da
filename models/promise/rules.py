"""The rules of promising as a retailer writes them: a YAML file, read strictly. What they do is in the modules beside it.

Everything is read as text first, so that 14:00 is a time, NO is Norway, and a key given twice is refused.
"""

import hashlib
import re
from collections.abc import Sequence
from datetime import date, time
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import yaml

from models.errors import ModelsError
from troth.home import Home

Method = Literal["click_and_collect", "ship_from_store", "ship_to_home"]
Way = Literal["click_and_collect", "shipping", "mixed", "later_pickup"]
Kind = Literal["store", "distribution_center"]
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
METHODS: tuple[Method, ...] = ("click_and_collect", "ship_from_store", "ship_to_home")
WAYS: tuple[Way, ...] = ("click_and_collect", "shipping", "mixed", "later_pickup")
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
CLOSED = "closed"
MOST_BYTES = 256_000
DEFAULT = Path(__file__).parent / "rules.yml"
_HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")
_EVERY_YEAR = re.compile(r"(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])")

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Positive = Annotated[float, msgspec.Meta(gt=0)]
Amount = Annotated[float, msgspec.Meta(ge=0)]
Count = Annotated[int, msgspec.Meta(ge=1, le=100_000)]
Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_]{0,62}$")]


class RulesError(ModelsError):
    """A rule file that cannot be read, or contradicts itself."""


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of the file: every key known."""


class Worth(_Part, frozen=True):
    hour_cents: Amount
    carbon_kg_cents: Amount
    failure_cents: Amount


class EvidenceRules(_Part, frozen=True):
    fresh_minutes: Amount
    lost_per_hour: Share
    refuse_after_hours: Positive


class Found(_Part, frozen=True):
    first: Share
    further: Share


class Split(_Part, frozen=True):
    parcels: Annotated[int, msgspec.Meta(ge=1, le=4)]
    low_value_cents: Amount
    within_cents: Amount
    nodes: Annotated[int, msgspec.Meta(ge=1, le=25)]


class Pickup(_Part, frozen=True):
    within_km: Positive
    stores: Annotated[int, msgspec.Meta(ge=1, le=25)]
    within_hours: Positive
    days: Annotated[int, msgspec.Meta(ge=1, le=30)]
    reaction_minutes: Amount
    slot_minutes: Annotated[int, msgspec.Meta(ge=5, le=480)]
    lines_per_slot: Count
    cents: Amount
    ready_minutes: dict[Share, Positive]
    carbon_grams_per_km: Amount


class Dispatch(_Part, frozen=True):
    within_km: Positive
    cut_off: str
    days: Annotated[list[Day], msgspec.Meta(min_length=1)]
    lines_per_day: Count
    cents: Amount
    on_time: Share


class Zone(_Part, frozen=True):
    up_to_km: Positive
    kg_cents: Amount
    days: Annotated[dict[Annotated[int, msgspec.Meta(ge=0, le=30)], Share], msgspec.Meta(min_length=1)]


class Carrier(_Part, frozen=True):
    name: Name
    days: Annotated[list[Day], msgspec.Meta(min_length=1)]
    delivers_by: str
    promise_share: Share
    parcel_cents: Amount
    carbon_grams_per_parcel: Amount
    carbon_grams_per_tonne_km: Amount
    transit: Annotated[list[Zone], msgspec.Meta(min_length=1)]


class Hours(_Part, frozen=True):
    weekdays: dict[Day, str] = {}
    holidays: dict[str, str] = {}
    locations: dict[str, dict[str, str]] = {}


class When(_Part, frozen=True):
    """All that is given must hold; of a list, one."""

    skus: list[str] | None = None
    categories: list[str] | None = None
    heavier_than_grams: Amount | None = None
    worth_more_than_cents: Amount | None = None
    locations: list[str] | None = None
    location_types: list[Kind] | None = None
    from_regions: list[str] | None = None
    to_regions: list[str] | None = None
    to_countries: list[str] | None = None
    channels: list[str] | None = None


class Rule(_Part, frozen=True):
    """`refuse`: ways closed; `carriers`: closed for shipping; where `when` holds."""

    name: Name
    when: When
    refuse: list[Method] = []
    carriers: list[str] = []


class Rules(_Part, frozen=True, kw_only=True):
    """The whole file. `hash` names its content."""

    version: Literal[1]
    prefer: Annotated[list[list[Way]], msgspec.Meta(min_length=1)]
    worth: Worth
    least_kept: Share
    channels: dict[Name, list[Method]] = {}
    evidence: EvidenceRules
    found: dict[Kind, Found]
    split: Split
    pickup: Pickup
    dispatch: dict[Kind, Dispatch]
    carriers: Annotated[list[Carrier], msgspec.Meta(min_length=1, max_length=12)]
    hours: Hours
    rules: list[Rule] = []

    @property
    def hash(self) -> str:
        """SHA-256 of the content in hex: layout and comments of the file do not matter."""
        content = msgspec.to_builtins(self, str_keys=True)
        return hashlib.sha256(msgspec.json.encode(content, order="deterministic")).hexdigest()


def path_of(home: Home) -> Path:
    """The retailer's own rules where the home has them, else those that come with the platform."""
    own = home.root / "promise" / "rules.yml"
    return own if own.exists() else DEFAULT


def load(path: Path = DEFAULT) -> Rules:
    """The rules of a file. Raises: RulesError saying where, what was expected and what was found."""
    if path.stat().st_size > MOST_BYTES:
        raise RulesError(f"{path.name}: expected at most {MOST_BYTES} bytes, found more. Shorten the file.")
    return parse(path.read_text(encoding="utf-8"))


def parse(text: str) -> Rules:
    """Rules from YAML text. Raises: RulesError saying where, what was expected and what was found."""
    try:
        content = yaml.load(text, Loader=_TextLoader)  # noqa: S506 - a BaseLoader: text, lists and mappings alone
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}" if mark else "the file"
        problem = getattr(error, "problem", None) or "too deeply nested"
        raise RulesError(f"rules, {place}: expected YAML, found a fault ({problem}). Correct that line.") from None
    try:
        rules = msgspec.convert(content, Rules, strict=False)
    except msgspec.ValidationError as error:
        said, _, place = str(error).partition(" - at ")
        place = place.strip("`").removeprefix("$.").removeprefix("$") or "the file"
        expected, _, found = said.removeprefix("Expected ").partition(", got ")
        if said.startswith("Object"):
            expected, found = "the keys rules.yml shows", said.removeprefix("Object ")
        elif said.startswith("Invalid enum value"):
            expected, found = "one of the words rules.yml shows", said.removeprefix("Invalid enum value ")
        raise RulesError(
            f"rules, {place}: expected {expected.replace('`', '')}, found {(found or 'another').replace('`', '')}. Correct it."
        ) from None
    _check(rules)
    return rules


def hours_of(text: str, place: str = "hours") -> tuple[time, time] | None:
    """Opening and closing time; None where it is closed; closing at or before opening is after midnight. Raises: RulesError."""
    if text == CLOSED:
        return None
    found = _HOURS.fullmatch(text)
    if found is None:
        raise RulesError(f"rules, {place}: expected HH:MM-HH:MM or {CLOSED}, found {text[:30]!r}. Correct it.")
    opens, closes = time(int(found[1]), int(found[2])), time(int(found[3]), int(found[4]))
    return opens, closes


def clock_of(text: str, place: str) -> time:
    """A time of the wall clock. Raises: RulesError."""
    found = _HOURS.fullmatch(f"{text}-00:00")
    if found is None:
        raise RulesError(f"rules, {place}: expected HH:MM, found {text[:30]!r}. Correct it.")
    return time(int(found[1]), int(found[2]))


def _check(rules: Rules) -> None:
    """What the types cannot say."""
    ways = [way for group in rules.prefer for way in group]
    _must(len(set(ways)) == len(ways), "prefer", "each way once", "one twice")
    for kind in ("store", "distribution_center"):
        _must(kind in rules.found, f"found.{kind}", "first and further", "none")
        _must(kind in rules.dispatch, f"dispatch.{kind}", "how it sends", "none")
    for kind, dispatch in rules.dispatch.items():
        clock_of(dispatch.cut_off, f"dispatch.{kind}.cut_off")
    shares, minutes = list(rules.pickup.ready_minutes), list(rules.pickup.ready_minutes.values())
    grows = _grows(shares) and _grows(minutes)
    _must(grows and bool(shares), "pickup.ready_minutes", "shares and minutes that grow", "others")
    names = [carrier.name for carrier in rules.carriers]
    _must(len(set(names)) == len(names), "carriers", "each name once", "one twice")
    for at, carrier in enumerate(rules.carriers):
        place = f"carriers[{at}]"
        clock_of(carrier.delivers_by, f"{place}.delivers_by")
        _must(_grows([zone.up_to_km for zone in carrier.transit]), f"{place}.transit", "distances that grow", "others")
        for number, zone in enumerate(carrier.transit):
            total = sum(zone.days.values())
            _must(
                abs(total - 1) < 1e-6,
                f"{place}.transit[{number}].days",
                "shares that add up to 1",
                f"{round(total, 6)}",
            )
    for day, text in rules.hours.weekdays.items():
        hours_of(text, f"hours.weekdays.{day}")
    for name, text in rules.hours.holidays.items():
        _must(_is_date(name), f"hours.holidays.{name}", "MM-DD or YYYY-MM-DD", "another")
        hours_of(text, f"hours.holidays.{name}")
    for code, own in rules.hours.locations.items():
        for name, text in own.items():
            place = f"hours.locations.{code}.{name}"
            _must(name in DAYS or _is_date(name), place, "a day, MM-DD or YYYY-MM-DD", "another")
            hours_of(text, place)
    seen: set[str] = set()
    for at, rule in enumerate(rules.rules):
        place = f"rules[{at}]"
        _must(rule.name not in seen, f"{place}.name", "each name once", rule.name)
        seen.add(rule.name)
        _must(bool(rule.refuse or rule.carriers), place, "refuse or carriers", "neither")
        strangers = sorted(set(rule.carriers) - set(names))
        _must(not strangers, f"{place}.carriers", f"some of {names}", str(strangers))


def _must(holds: bool, place: str, expected: str, found: str) -> None:
    if not holds:
        raise RulesError(f"rules, {place}: expected {expected}, found {found}. Correct it.")


def _grows(values: Sequence[float]) -> bool:
    return all(a < b for a, b in pairwise(values))


def _is_date(text: str) -> bool:
    if _EVERY_YEAR.fullmatch(text):
        return True
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


class _TextLoader(yaml.BaseLoader):
    """Text, lists and mappings, and no key twice: of two `carriers:` one would be lost in silence."""


def _mapping(loader: _TextLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [key.value for key, _ in node.value]
    twice = next((key for number, key in enumerate(keys) if key in keys[:number]), None)
    if twice is not None:
        raise yaml.constructor.ConstructorError(None, None, f"the key {twice} twice", node.start_mark)
    return loader.construct_mapping(node, deep=True)


_TextLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
