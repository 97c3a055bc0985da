"""Names of people as compared: titles and generations apart, whole names taken apart, short forms known."""

import polars as pl
import pytest

from models.identity.normalise import normalised
from models.identity.normalise.names import given_roots
from models.identity.normalise.spelling import vocabulary


def read(country: str | None = None, **said: str) -> tuple[str | None, ...]:
    frame = pl.DataFrame(
        {"record_id": [1], "country_code": [country], **{name: [value] for name, value in said.items()}}
    )
    return normalised(frame.cast({"country_code": pl.String})).select("first_name", "middle_name", "last_name", "name_suffix").row(0)  # fmt: skip


@pytest.mark.parametrize(
    ("whole", "parts"),
    [
        ("John Smith", ("john", None, "smith", None)),
        ("Smith, John", ("john", None, "smith", None)),
        ("Dr. Juan Q. Xavier de la Vega III", ("juan", "q xavier", "de la vega", "iii")),
        ("van der Berg, Anna Maria", ("anna", "maria", "van der berg", None)),
        ("Ludwig van Beethoven", ("ludwig", None, "van beethoven", None)),
        ("Prof. Mary O’Neil-Jones", ("mary", None, "oneil jones", None)),
        ("Smith Jr., Bob", ("bob", None, "smith", "jr")),
        ("Smith, Bob, Junior", ("bob", None, "smith", "jr")),
        ("John Smith, Jr.", ("john", None, "smith", "jr")),
        ("Jane Doe, MD", ("jane", None, "doe", None)),
        ('Robert "Bob" Smith', ("robert", None, "smith", None)),
        ("JOSÉ GARCÍA", ("jose", None, "garcia", None)),
        ("Van Morrison", ("van", None, "morrison", None)),
        ("Madonna", ("madonna", None, None, None)),
        ("Frau Müller", (None, None, "muller", None)),
        ("山田 太郎", ("太郎", None, "山田", None)),
    ],
)
def test_a_whole_name_is_taken_apart(whole: str, parts: tuple[str | None, ...]) -> None:
    assert read(full_name=whole) == parts


def test_hungarians_say_their_family_name_first() -> None:
    assert read("HU", full_name="Nagy János")[0::2] == ("janos", "nagy")


@pytest.mark.parametrize("couple", ["Mr & Mrs Smith", "John and Mary Smith", "John & Mary Smith", "Smith, John + Mary"])
def test_a_name_of_two_people_gives_neither_their_first_name(couple: str) -> None:
    assert read(full_name=couple) == (None, None, "smith", None)


def test_parts_said_apart_win_over_the_whole_name() -> None:
    assert read(first_name="Bob", last_name="Smith", full_name="Smith-Jones, Robert") == ("bob", None, "smith", None)
    assert read(first_name="Bob", full_name="Robert Smith") == ("bob", None, "smith", None)


def test_a_second_given_name_is_a_middle_name_however_it_is_joined() -> None:
    assert read(first_name="Mary-Jane", last_name="Lee") == read(first_name="Mary Jane", last_name="LEE")
    assert read(first_name="Mary", middle_name="Jane", last_name="Lee") == ("mary", "jane", "lee", None)


@pytest.mark.parametrize(
    "nothing",
    ["n/a", "Unknown", "xxx", "ASDF", "TEST", "none", "<null>", "First Name", "-", "Mr.", "12345", "(unknown)"],
)
def test_a_default_is_no_name(nothing: str) -> None:
    assert read(first_name=nothing, last_name="Smith") == (None, None, "smith", None)
    assert read(full_name=nothing) == (None, None, None, None)


def test_a_surname_that_looks_like_a_default_is_kept_beside_a_given_name() -> None:
    assert read(first_name="Christopher", last_name="Null") == ("christopher", None, "null", None)
    assert read(first_name="Min-ji", last_name="Na")[2] == "na"
    assert read(first_name="Guest", last_name="Guest") == (None, None, None, None)


def test_short_forms_know_their_long_one_and_ambiguous_ones_stand_for_themselves() -> None:
    roots = given_roots()
    short = [
        "bob",
        "rob",
        "bobby",
        "bill",
        "liz",
        "mike",
        "kate",
        "cathy",
        "catherine",
        "peggy",
        "tom",
        "steve",
        "stephen",
    ]
    assert [roots[name] for name in short] == [
        "robert", "robert", "robert", "william", "elizabeth", "michael", "katherine", "katherine", "katherine", "margaret",
        "thomas", "steven", "steven",
    ]  # fmt: skip
    assert not roots.keys() & {"robert", "chris", "pat", "sam", "alex", "john", "mary", "erin"}


def test_a_long_form_is_its_own_long_form() -> None:
    roots = given_roots()
    assert not roots.keys() & set(roots.values())


def test_every_spelling_that_is_exchanged_for_another_is_exchanged_for_good() -> None:
    streets = vocabulary()["streets"]
    spellings = streets["types"] | streets["directions"] | streets["ordinals"]
    assert {spelling: spellings[spelling] for spelling in spellings.values() if spelling in spellings} == {}
