"""Records are compared as the fields say: level by level, against a plain re-computation, in any order and in parts."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from random import Random
from typing import Any

import duckdb
import jellyfish
import numpy as np
import polars as pl
import pytest

from models.errors import ModelsError
from models.identity.fields import FIELDS
from models.identity.matching import Matcher, levels_of
from models.identity.mixture import HOUSEHOLD, PERSON, STRANGERS
from models.identity.model import Model, decoded, unlearned
from models.identity.preparing import FREQUENT
from tests.unit.models.identity.made_people import FIRST, Row, frame, mistyped, person, records, written

KNOWN = ("john", "joan", "mary", "maria", "anna", "hanna", "karl", "carl", "mark")
MODEL = replace(
    unlearned(), frequencies={"first_name": pl.DataFrame({"value": list(KNOWN), "share": [0.02] * len(KNOWN)})}
)
NAMES = [field.name for field in FIELDS]


def compared(rows: list[tuple[Row, Row]]) -> list[dict[str, str | None]]:
    """By pair, the name of the level of each field, None for missing."""
    flat = [{"record_id": f"r{number}", **row} for number, row in enumerate(row for pair in rows for row in pair)]
    matcher = Matcher(frame(flat), MODEL)
    first = np.arange(0, len(flat), 2)
    return named(matcher.compared_these(first, first + 1).sort("first"))


def named(pairs: pl.DataFrame) -> list[dict[str, str | None]]:
    levels = levels_of(pairs["pattern"], FIELDS)
    return [
        {field.name: None if level < 0 else field.level_names[level] for field, level in zip(FIELDS, row, strict=True)}
        for row in levels
    ]


def both(name: str, one: str | None, other: str | None, **also: str) -> tuple[Row, Row]:
    return {name: one, **also}, {name: other, **also}


HOME = {"house_number": "12", "street_name": "n main st", "postal_code": "12180", "city": "troy"}
NOWHERE = {"house_number": "7", "street_name": "kossuth ut", "postal_code": "90210", "city": "ithaca"}
EXAMPLES: dict[tuple[str, str | None], list[tuple[Row, Row]]] = {
    ("first_name", None): [both("first_name", None, "john"), both("first_name", None, None)],
    ("first_name", "same"): [both("first_name", "john", "john")],
    ("first_name", "short_form"): [({"first_name": "bob", "given_root": "robert"}, {"first_name": "robert"})],
    ("first_name", "names_exchanged"): [
        ({"first_name": "lee", "last_name": "stewart"}, {"first_name": "stewart", "last_name": "lee"}),
        ({"first_name": "lee", "last_name": "stewart"}, {"first_name": "stewrt", "last_name": "lee"}),
    ],
    ("first_name", "alike"): [both("first_name", "stephen", "stehpen"), both("first_name", "john", "johm"), both("first_name", "karl", "arl"), both("first_name", "arl", "karl")],
    ("first_name", "initial"): [both("first_name", "j", "john")],
    ("first_name", "somewhat_alike"): [both("first_name", "martin", "martha")],
    ("first_name", "different"): [both("first_name", "john", "joan"), both("first_name", "emil", "vera")],
    ("last_name", None): [({"first_name": "lee", "last_name": "stewart"}, {"first_name": "stewart", "last_name": "lee"})],
    ("last_name", "same"): [both("last_name", "kovacs", "kovacs")],
    ("last_name", "alike"): [both("last_name", "kovacs", "kovac"), both("last_name", "smithson", "smithsonn")],
    ("last_name", "somewhat_alike"): [both("last_name", "lee", "lea")],
    ("last_name", "different"): [both("last_name", "kovacs", "nagy")],
    ("birth_date", None): [both("birth_date", "1980-05-17", None)],
    ("birth_date", "same"): [both("birth_date", "1980-05-17", "1980-05-17")],
    ("birth_date", "slip"): [
        both("birth_date", "1980-05-17", "1980-05-71"), both("birth_date", "1980-05-11", "1980-11-05"),
        both("birth_date", "1980-05-17", "1980-05-18"),
    ],
    ("birth_date", "two_slips"): [both("birth_date", "1980-05-17", "1980-06-18")],
    ("birth_date", "different"): [both("birth_date", "1980-05-17", "1951-12-30")],
    ("email", None): [
        both("email", None, "ann@example.org"),
        both("email", "k3x9@privaterelay.appleid.com", "ann.lee@example.org"),
    ],
    ("email", "same"): [both("email", "one@example.org", "one@example.org", first_name="john")],
    ("email", "same_shared"): [
        ({"email": "home@example.org", "first_name": "john"}, {"email": "home@example.org", "first_name": "mary"})
    ],
    ("email", "same_name_elsewhere"): [both("email", "ann.lee@example.org", "ann.lee@example.net")],
    ("email", "slip"): [both("email", "ann.lea7@example.org", "anne.lea7@example.org")],
    ("email", "different"): [
        both("email", "ann.leo7@example.org", "ann.leo8@example.org"), both("email", "a@example.org", "zzzz@example.net"),
    ],
    ("phone", None): [both("phone", None, "+15185550100")],
    ("phone", "same"): [both("phone", "+15185550101", "+15185550101")],
    ("phone", "same_shared"): [
        ({"phone": "+15185550102", "first_name": "anna"}, {"phone": "+15185550102", "first_name": "mark"})
    ],
    ("phone", "slip"): [both("phone", "+15185550103", "+15185550130")],
    ("phone", "different"): [both("phone", "+15185550104", "+16075559999")],
    ("payment", None): [both("payment", "pay_1", None)],
    ("payment", "same"): [both("payment", "pay_2", "pay_2")],
    ("payment", "same_shared"): [
        ({"payment": "pay_3", "first_name": "anna"}, {"payment": "pay_3", "first_name": "mark"})
    ],
    ("payment", "different"): [both("payment", "pay_4", "pay_5")],
    ("address", None): [(HOME, {"house_number": "12"}), ({"street_name": "oak ave"}, {"city": "troy"})],
    ("address", "same"): [(HOME, HOME), (HOME, {**HOME, "city": "albany"}), (HOME, {**HOME, "postal_code": None})],
    ("address", "alike"): [
        (HOME, {**NOWHERE, "house_number": "12", "street_name": "n main st"}), (HOME, {**HOME, "house_number": "21"}),
        (HOME, {**NOWHERE, "house_number": "12", "street_name": "n mian st"}),
    ],
    ("address", "same_street"): [(HOME, {**NOWHERE, "street_name": "n main st"})],
    ("address", "same_place"): [(HOME, {**NOWHERE, "postal_code": "12180"}), (HOME, {**NOWHERE, "city": "troy"})],
    ("address", "near_place"): [(HOME, {**NOWHERE, "postal_code": "12810"}), (HOME, {**NOWHERE, "city": "troyy"})],
    ("address", "different"): [(HOME, NOWHERE)],
}  # fmt: skip


@pytest.fixture(scope="module")
def told() -> dict[tuple[str, str | None], list[dict[str, str | None]]]:
    flat = [(wanted, pair) for wanted, pairs in EXAMPLES.items() for pair in pairs]
    found: dict[tuple[str, str | None], list[dict[str, str | None]]] = {}
    for (wanted, _), levels in zip(flat, compared([pair for _, pair in flat]), strict=True):
        found.setdefault(wanted, []).append(levels)
    return found


@pytest.mark.parametrize("wanted", EXAMPLES, ids=lambda wanted: f"{wanted[0]}-{wanted[1] or 'missing'}")
def test_each_level_is_what_an_example_of_it_shows(
    wanted: tuple[str, str | None], told: Mapping[tuple[str, str | None], list[dict[str, str | None]]]
) -> None:
    field, level = wanted
    assert [levels[field] for levels in told[wanted]] == [level] * len(EXAMPLES[wanted])


def test_every_level_has_an_example() -> None:
    wanted = {
        (field.name, level) for field in FIELDS if field.name != "identifier" for level in (None, *field.level_names)
    }
    assert wanted == EXAMPLES.keys()


def slips(one: str, other: str) -> int:
    return int(jellyfish.damerau_levenshtein_distance(one, other))


def likeness(one: str, other: str) -> float:
    return float(jellyfish.jaro_winkler_similarity(one, other))


def name_alike(one: str, other: str) -> bool:
    return (slips(one, other) <= 1 and max(len(one), len(other)) > 3) or likeness(one, other) >= 0.92


def exchanged(one: Row, other: Row) -> bool:
    if None in (one["first_name"], one["last_name"], other["first_name"], other["last_name"]):
        return False
    crossed = (one["last_name"], other["first_name"]), (one["first_name"], other["last_name"])
    return any(a == b and likeness(*c) >= 0.88 for (a, b), c in (crossed, crossed[::-1]))


def first_name(one: Row, other: Row) -> str | None:
    a, b = one["first_name"], other["first_name"]
    if not (a and b):
        return None
    known = a in KNOWN and b in KNOWN
    if a == b:
        return "same"
    if one["given_root"] == other["given_root"]:
        return "short_form"
    if exchanged(one, other):
        return "names_exchanged"
    if name_alike(a, b) and not known:
        return "alike"
    is_initial = min(len(a), len(b)) == 1 and a[0] == b[0]
    return "initial" if is_initial else "somewhat_alike" if likeness(a, b) >= 0.8 and not known else "different"


def last_name(one: Row, other: Row) -> str | None:
    a, b = one["last_name"], other["last_name"]
    if not (a and b) or exchanged(one, other):
        return None
    if a == b:
        return "same"
    if name_alike(a, b):
        return "alike"
    return "somewhat_alike" if likeness(a, b) >= 0.8 else "different"


def birth_date(one: Row, other: Row) -> str | None:
    a, b = one["birth_date"], other["birth_date"]
    if not (a and b):
        return None
    if a == b:
        return "same"
    is_swapped = (a[:4], a[5:7], a[8:10]) == (b[:4], b[8:10], b[5:7])
    if slips(a, b) <= 1 or is_swapped:
        return "slip"
    return "two_slips" if slips(a, b) == 2 else "different"


def email(one: Row, other: Row) -> str | None:
    a, b = one["email"], other["email"]
    if not (a and b):
        return None
    if a == b:
        return "same or shared"
    if one["email_local"] == other["email_local"]:
        return "same_name_elsewhere"
    number, other_number = ("".join(filter(str.isdigit, row["email_local"])) for row in (one, other))
    return "slip" if slips(a, b) <= 2 and number == other_number else "different"


def phone(one: Row, other: Row) -> str | None:
    a, b = one["phone"], other["phone"]
    if not (a and b):
        return None
    return "same or shared" if a == b else "slip" if slips(a, b) <= 1 else "different"


def address(one: Row, other: Row) -> str | None:
    def same(name: str) -> bool:
        return one[name] is not None and one[name] == other[name]

    def alike(name: str, least: float) -> bool:
        return None not in (one[name], other[name]) and likeness(one[name], other[name]) >= least

    if not any(one[name] and other[name] for name in ("street_name", "postal_code", "city")):
        return None
    street, number, is_place = same("street_name"), same("house_number"), same("postal_code") or same("city")
    if number and street and is_place:
        return "same"
    if (number and (street or same("postal_code") or alike("street_name", 0.88))) or (street and same("postal_code")):
        return "alike"
    if street or (alike("street_name", 0.9) and is_place):
        return "same_street"
    if is_place:
        return "same_place"
    codes = one["postal_code"], other["postal_code"]
    is_near = None not in codes and slips(*codes) <= 1
    return "near_place" if is_near or alike("city", 0.9) else "different"


PLAIN: dict[str, Callable[[Row, Row], str | None]] = {
    "first_name": first_name, "last_name": last_name, "birth_date": birth_date, "email": email, "phone": phone,
    "address": address,
}  # fmt: skip


def test_patterns_say_what_a_plain_re_computation_of_the_conditions_says() -> None:
    random, rows = Random(4), []
    for number in range(300):
        one = written(person(number), "", random)
        other = written(person(random.choice((number, number, number ^ 1, number + 2))), "", random)
        if random.random() < 0.1:
            other |= {"first_name": other["last_name"], "last_name": other["first_name"]}
        for name in random.sample(
            ("first_name", "last_name", "email", "postal_code", "city", "street_name", "birth_date"), 2
        ):
            other[name] = random.choice((mistyped(other[name] or "nothing", random), other[name], None))
        if random.random() < 0.05:
            other["first_name"] = other["first_name"][:1] if other["first_name"] else None
        rows.append((one, other))
    found = compared(rows)
    seen: set[tuple[str, str | None]] = set()
    for pair, levels in zip(rows, found, strict=True):
        one, other = frame([{"record_id": "", **row} for row in pair]).to_dicts()
        for name, plain in PLAIN.items():
            said = (
                "same or shared"
                if levels[name] in ("same", "same_shared") and name in ("email", "phone")
                else levels[name]
            )
            assert said == plain(one, other), (name, one, other)
            seen.add((name, said))
    assert len(seen) > 25


PEOPLE = records(160, seed=1)


def by_record(pairs: pl.DataFrame, of: pl.DataFrame) -> dict[tuple[str, str], int]:
    """Patterns by the ids of both records."""
    names = of["record_id"].to_list()
    found = {}
    for first, second, pattern in pairs.iter_rows():
        assert first < second
        one, other = sorted((names[first], names[second]))
        found[one, other] = pattern
    assert len(found) == pairs.height
    return found


@pytest.fixture(scope="module")
def every() -> pl.DataFrame:
    return Matcher(PEOPLE, MODEL).compared()


def test_pairs_do_not_depend_on_the_order_of_records(every: pl.DataFrame) -> None:
    shuffled = PEOPLE.sample(fraction=1, shuffle=True, seed=3)
    assert by_record(Matcher(shuffled, MODEL).compared(), shuffled) == by_record(every, PEOPLE)


def test_records_of_one_person_are_compared_and_each_pair_once(every: pl.DataFrame) -> None:
    whose = PEOPLE["person"].to_list()
    found = by_record(every, PEOPLE)
    twice = PEOPLE.join(PEOPLE, on="person", suffix="_too").filter(pl.col("record_id") < pl.col("record_id_too"))
    reached = sum((one, other) in found for one, other in twice.select("record_id", "record_id_too").iter_rows())
    assert reached >= 0.97 * twice.height
    assert len(found) < 0.2 * len(whose) ** 2


def test_pairs_of_the_changed_and_old_pairs_of_the_others_are_all_pairs(every: pl.DataFrame) -> None:
    changed = pl.Series([number % 7 == 0 for number in range(PEOPLE.height)])
    flag = changed.to_numpy()
    fresh = Matcher(PEOPLE, MODEL).compared(changed)
    assert all(flag[first] or flag[second] for first, second, _ in fresh.iter_rows())
    old = every.filter(pl.Series(~flag[every["first"].to_numpy()] & ~flag[every["second"].to_numpy()]))
    assert by_record(pl.concat([old, fresh]), PEOPLE) == by_record(every, PEOPLE)
    assert Matcher(PEOPLE, MODEL).compared(pl.Series([False] * PEOPLE.height)).is_empty()


def test_a_fingerprint_changes_with_what_is_compared_and_with_nothing_else() -> None:
    key = b"k" * 64
    plain = Matcher(PEOPLE, MODEL).fingerprints(key)
    assert (
        plain.n_unique()
        == PEOPLE.unique([name for name in PEOPLE.columns if name not in ("record_id", "person")]).height
    )
    renamed = PEOPLE.with_columns(record_id="record_id" + pl.lit("x"), region_code=pl.lit("NY"))
    assert Matcher(renamed, MODEL).fingerprints(key).equals(plain)
    moved = PEOPLE.with_columns(city=pl.when(pl.int_range(pl.len()) == 5).then(pl.lit("elsewhere")).otherwise("city"))
    assert (Matcher(moved, MODEL).fingerprints(key) != plain).arg_true().to_list() == [5]
    assert (Matcher(PEOPLE, MODEL).fingerprints(b"another") != plain).all()
    again = decoded(replace(MODEL, keys=tuple(replace(each, coverage=0.5) for each in MODEL.keys)).encoded())
    assert Matcher(PEOPLE, again).fingerprints(key).equals(plain)
    for other in (replace(MODEL, keys=MODEL.keys[:3]), replace(MODEL, fields=MODEL.fields[::-1])):
        assert (Matcher(PEOPLE, other).fingerprints(key) != plain).all()


def test_a_rare_name_that_agrees_says_more_and_odds_and_probability_say_the_same(every: pl.DataFrame) -> None:
    scored = Matcher(PEOPLE, MODEL).scored(every)
    assert scored.select("first", "second", "pattern").equals(every)
    odds = scored["probability"] / (1 - scored["probability"])
    kept = (scored["bits"].abs() < 30).to_numpy()
    assert np.log2(odds.to_numpy()[kept]) == pytest.approx(scored["bits"].to_numpy()[kept], abs=1e-4)
    twins = frame([{"record_id": f"{name}{copy}", "first_name": name, "last_name": "kovacs", "birth_date": "1980-05-17"}
                   for name in ("john", "xerxes") for copy in "ab"])  # fmt: skip
    frequent = replace(
        MODEL, frequencies={"first_name": pl.DataFrame({"value": ["john"], "share": [0.05]})}, records=5_000
    )
    matcher = Matcher(twins, frequent)
    bits = matcher.scored(matcher.compared_these(np.array([0, 2]), np.array([1, 3]))).sort("first")["bits"]
    assert bits[1] > bits[0] + 1


def test_without_a_model_nothing_is_compared() -> None:
    with pytest.raises(ModelsError, match="expected a model, found none"):
        Matcher(PEOPLE).compared()


def test_few_or_unlike_records_are_no_trouble() -> None:
    assert Matcher(frame([]), MODEL).compared().is_empty()
    assert Matcher(frame([{"record_id": "one"}]), MODEL).compared().is_empty()
    assert Matcher(PEOPLE.head(2), MODEL).compared_these(np.zeros(0, int), np.zeros(0, int)).is_empty()


CROWD = records(500, seed=2).with_columns(
    last_name=pl.when(pl.int_range(pl.len()) < FREQUENT - 1).then(pl.lit("nineteen")).otherwise("last_name"),
    first_name=pl.when(pl.int_range(pl.len()) < FREQUENT - 1).then(pl.lit("hapax")).otherwise("first_name"),
)


@pytest.fixture(scope="module")
def learned() -> Model:
    matcher = Matcher(CROWD)
    matcher.learn()
    return matcher.model


def test_a_learned_model_tells_people_from_households_and_strangers(learned: Model) -> None:
    assert [field.name for field in learned.fields] == [name for name in NAMES if name != "identifier"]
    people = CROWD["person"].value_counts()["count"].to_numpy()
    truly = float((people * (people - 1) / 2).sum() / (CROWD.height * (CROWD.height - 1) / 2))
    assert learned.mixture.shares[PERSON] == pytest.approx(truly, rel=0.25)
    names = [field.name for field in learned.fields]
    birth, last = (learned.mixture.levels[names.index(name)] for name in ("birth_date", "last_name"))
    assert birth[PERSON, 0] > 0.8
    assert birth[HOUSEHOLD, 0] < 0.2
    assert last[HOUSEHOLD, 0] > 0.6
    assert last[STRANGERS, 0] < 0.1


def test_an_address_of_which_only_the_place_is_said_is_learned_of_too() -> None:
    matcher = Matcher(CROWD.head(300).drop("street_name", "house_number", "email", "email_local", "phone", "payment"))
    matcher.learn()
    names = [field.name for field in matcher.model.fields]
    assert names == ["first_name", "last_name", "birth_date", "address"]
    assert matcher.model.mixture.present[names.index("address")] == 1
    assert any("postal_code" in each.key.columns for each in matcher.model.keys)


def test_an_encoded_model_is_read_again_to_the_same_bytes(learned: Model) -> None:
    for model in (learned, unlearned(), MODEL):
        again = decoded(model.encoded())
        assert again.encoded() == model.encoded()
        assert again.bits().equals(model.bits())
        assert [each.key for each in again.keys] == [each.key for each in model.keys]


def test_a_model_read_again_scores_the_same(learned: Model) -> None:
    pairs = np.arange(0, 200, 2)
    apart = [
        (matcher := Matcher(CROWD, model)).scored(matcher.compared_these(pairs, pairs + 1)).sort("first")
        for model in (learned, decoded(learned.encoded()))
    ]
    assert apart[0].equals(apart[1])


def test_an_encoded_model_names_nothing_that_few_records_share(learned: Model) -> None:
    """Nineteen of a name are too few, and twenty are not."""
    said = _texts(json.loads(learned.encoded()))
    for column in CROWD.columns:
        counts = dict(CROWD.select(pl.col(column).cast(pl.String)).drop_nulls().to_series().value_counts().iter_rows())
        assert {value: count for value, count in counts.items() if value in said and count < FREQUENT} == {}
    assert said & set(FIRST)
    assert "hapax" not in said


def _texts(said: Any) -> set[str]:
    if isinstance(said, dict):
        return set(said) | {text for value in said.values() for text in _texts(value)}
    if isinstance(said, list):
        return {text for value in said for text in _texts(value)}
    return {said} if isinstance(said, str) else set()


@pytest.mark.parametrize("is_linking", [False, True])
def test_given_pairs_are_compared_as_found_ones_are_and_do_not_stand_for_all(is_linking: bool) -> None:
    people = records(60, seed=6).drop("person").with_row_index("side")
    people = people.with_columns(side=pl.when(pl.col("side") % 2 == 0).then(pl.lit("a")).otherwise(pl.lit("b")))
    matcher = Matcher(people, MODEL, is_linking=is_linking)
    found = matcher.compared().sort("first", "second")
    given = matcher.compared_these(found["first"].to_numpy(), found["second"].to_numpy())
    assert found.height > 10
    assert given.sort("first", "second").equals(found)
    matcher.compared_these(np.array([0]), np.array([1]))
    assert matcher.compared().sort("first", "second").equals(found)


@pytest.mark.parametrize(
    "changed",
    [
        {"fields": {"email": ["same", "different"]}},
        {"fields": {"shoe_size": ["same", "different"]}},
        {"keys": ["email", "shoe_size"]},
        {"classes": ["person", "strangers"]},
        {"format": "troth identity model 2"},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_a_model_of_another_version_is_refused(changed: Mapping[str, Any]) -> None:
    said = json.loads(unlearned().encoded())
    for name, value in changed.items():
        said[name] = {**said[name], **value} if isinstance(value, dict) else value
    with pytest.raises(ModelsError, match="of this version, found those of another"):
        decoded(json.dumps(said).encode())


@pytest.mark.parametrize(
    ("cause", "expected"), [(duckdb.InterruptException, KeyboardInterrupt), (duckdb.ConversionException, ModelsError)]
)
def test_a_fault_in_splink_tells_neither_its_query_nor_a_value_and_an_interruption_stays_one(
    cause: type[Exception], expected: type[BaseException]
) -> None:
    from splink import DuckDBAPI

    said = "Could not convert string 'Ann Lee'"

    class Failing(DuckDBAPI):  # type: ignore[misc]
        def _execute_sql_against_backend(self, final_sql: str) -> object:
            raise cause(said)

    matcher = Matcher(records(20, seed=4).drop("person"), unlearned(), Failing())
    with pytest.raises(expected) as found:
        matcher.compared()
    assert said not in str(found.value)
    assert "select" not in str(found.value).lower()
    assert found.value.__cause__ is None
