"""Postal addresses and dates of birth as compared, each the way its country writes it."""

from datetime import date

import polars as pl
import pytest

from models.identity.normalise import normalised
from models.identity.normalise.spelling import vocabulary


def read(country: str | None = None, **said: object) -> dict[str, object]:
    frame = pl.DataFrame(
        {"record_id": [1], "country_code": [country], **{name: [value] for name, value in said.items()}}
    )
    return normalised(frame.cast({"country_code": pl.String})).row(0, named=True)


@pytest.mark.parametrize(
    ("said", "country", "parts"),
    [
        ("123 N Main St. Apt 4B", "US", ("123", "n main st", "4b")),
        ("123 North Main Street #4-b", "US", ("123", "n main st", "4b")),
        ("100 First Avenue, Ste. 200", "US", ("100", "1st ave", "200")),
        ("10 Oak Road, Building 3, Apt 4", "US", ("10", "oak rd", "3 4")),
        ("123 1/2 Elm Street", "US", ("123 1/2", "elm st", None)),
        ("123 Main St N.W.", "US", ("123", "main st nw", None)),
        ("1 South East Road", "US", ("1", "se rd", None)),
        ("Highway 61", "US", (None, "hwy 61", None)),
        ("P.O. Box 123", "US", ("123", "po box", None)),
        ("Flat 2, 10 Downing Street", "GB", ("10", "downing st", "2")),
        ("No. 5 High Street", "GB", ("5", "high st", None)),
        ("221B Baker St", "GB", ("221b", "baker st", None)),
        ("1/23 King St", "AU", ("23", "king st", "1")),
        ("1/23 King St", "US", ("1/23", "king st", None)),
        ("5-12 Main St NW", "CA", ("12", "main st nw", "5")),
        ("Hauptstraße 5a", "DE", ("5a", "hauptstr", None)),
        ("Hauptstr. 5 A", "DE", ("5a", "hauptstr", None)),
        ("Straße des 17. Juni 135", "DE", ("135", "str des 17 juni", None)),
        ("Lange Straße 5 - 7", "DE", ("5-7", "lange str", None)),
        ("Keizersgracht 123-2", "NL", ("123-2", "keizersgracht", None)),
        ("12bis, rue de la Paix", "FR", ("12bis", "rue de la paix", None)),
        ("C/ Mayor, 5", "ES", ("5", "calle mayor", None)),
        ("same as above", "US", (None, None, None)),
    ],
)
def test_an_address_line_is_taken_apart(said: str, country: str, parts: tuple[str | None, ...]) -> None:
    row = read(country, street_address=said)
    assert (row["house_number"], row["street_name"], row["unit"]) == parts


def test_parts_that_a_source_keeps_apart_are_read_too() -> None:
    row = read("AU", house_number="0123", street_name="Wallaby Place", unit="Flat 3B")
    assert (row["house_number"], row["street_name"], row["unit"]) == ("123", "wallaby pl", "3b")


@pytest.mark.parametrize(
    ("said", "country", "code"),
    [
        ("02139-4307", "US", "02139"), ("2139", "US", "02139"), ("sw1a1aa", "GB", "SW1A 1AA"), ("E1 6AN", "UK", "E1 6AN"),
        ("k1a0b1", "CA", "K1A 0B1"), ("1012ab", "NL", "1012 AB"), ("D-01067", "DE", "01067"), ("1067", "DE", "01067"),
        ("75001", "FR", "75001"), ("2119", "AU", "2119"), ("800", "AU", "0800"), ("CH-8001", "CH", "8001"), ("d02x285", "IE", "D02 X285"),
        ("31-154", "PL", "31-154"), ("1000205", "PT", "1000-205"), ("02l39", "US", "02L39"), ("00000", "US", None), ("n/a", "US", None),
    ],
)  # fmt: skip
def test_a_postal_code_is_written_as_its_country_writes_it(said: str, country: str, code: str | None) -> None:
    assert read(country, postal_code=said)["postal_code"] == code


def test_regions_and_cities_have_one_spelling() -> None:
    assert [read("US", region_code=said)["region_code"] for said in ("California", "ca", "US-CA", "Ca.")] == ["CA"] * 4
    assert read("AU", region_code="New South Wales")["region_code"] == "NSW"
    assert [read("US", city=said)["city"] for said in ("Saint Louis", "ST. LOUIS", "St Louis, MO")] == ["st louis"] * 3
    assert read("US", city="Unknown", region_code="n/a")["city"] is None


def test_a_country_is_two_letters_and_the_default_is_not_written_into_it() -> None:
    assert [read(said)["country_code"] for said in ("us", "UK", "USA", "Germany", None)] == [
        "US",
        "GB",
        "US",
        None,
        None,
    ]
    frame = pl.DataFrame({"record_id": [1], "street_address": ["Hauptstr. 5"]})
    assert normalised(frame, country="DE").select("house_number", "country_code").row(0) == ("5", None)


@pytest.mark.parametrize(
    ("said", "country"),
    [
        ("1990-05-01", "US"), ("19900501", "US"), ("1990/5/1", None), ("5/1/1990", "US"), ("1/5/1990", "GB"), ("01.05.1990", "US"),
        ("May 1st, 1990", "US"), ("01-MAY-1990", "GB"), ("1. Mai 1990", "DE"), ("1 de mayo de 1990", "ES"), ("1er mai 1990", "FR"),
        ("1990-05-01T00:00:00", "US"), ("5/1/1990 12:00:00 AM", "US"), (date(1990, 5, 1), "US"),
    ],
)  # fmt: skip
def test_a_date_is_read_in_the_order_of_its_country(said: object, country: str | None) -> None:
    assert read(country, birth_date=said)["birth_date"] == date(1990, 5, 1)


def test_a_date_that_only_reads_one_way_is_read_that_way_and_one_that_reads_both_ways_in_canada_is_not() -> None:
    assert read("US", birth_date="25/12/1990")["birth_date"] == date(1990, 12, 25)
    assert read("CA", birth_date="25/12/1990")["birth_date"] == date(1990, 12, 25)
    assert read("CA", birth_date="05/06/1990")["birth_date"] is None


@pytest.mark.parametrize(
    "said", ["1990-02-30", "1899-12-31", "2999-01-01", "05/01/90", "13/13/1990", "n/a", "0000-00-00", "soon"]
)
def test_a_day_that_is_none_or_leaves_its_century_open_is_null(said: str) -> None:
    assert read("US", birth_date=said)["birth_date"] is None


def test_default_dates_and_days_to_come_are_null() -> None:
    defaults = vocabulary()["placeholders"]["birth_dates"]
    assert "1900-01-01" in defaults
    assert all(read("US", birth_date=day)["birth_date"] is None for day in defaults)
    frame = pl.DataFrame({"record_id": [1, 2], "birth_date": ["2020-03-01", "2020-03-02"]})
    assert normalised(frame, today=date(2020, 3, 1))["birth_date"].to_list() == [date(2020, 3, 1), None]
