"""What holds of every record, however it is spelled: normalising neither invents, nor depends on others, nor fails."""

import unicodedata
from datetime import date

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import ModelsError
from models.identity.normalise import INPUTS, OUTPUTS, normalised
from models.identity.normalise.spelling import LONGEST
from troth import ids

COUNTRIES = st.sampled_from([None, "US", "GB", "CA", "DE", "FR", "NL", "AU", "ES", "HU", "zz", "u k"])
PEOPLE = st.sampled_from(
    ["Bob", "Dr. Ana María", "Smith, John Jr.", "O’Neil-Jones", "van der Berg", "José", "Mr & Mrs Łuczak", "Guest", "Na", "Mr.",
     "Jr", "de la", "山田 太郎", "J.R.R. Tolkien III", "test", "ST. JOHN", "Σοφός", "İnci", "Straße", "Smith (Bob)", "and", "A & B"]
)  # fmt: skip
CONTACTS = st.sampled_from(
    ["a.b+c@gmail.com", "X@Example.COM", "noreply@a.com", "Bob <b@c.de>", "ö@exämple.com", "(293) 555-0142", "+44 20 7946 0958", "0",
     "1-800-FLOWERS", "5/1/1990", "1990-05-01", "1. Mai 1990", "1900-01-01", "31/12/1980", "01/02/03"]
)  # fmt: skip
PLACES = st.sampled_from(
    ["12 North St. Apt 4-B", "Hauptstraße 5 a", "PO Box 7", "1/23 King St", "Unit 3, 5-7 First Avenue NW", "C/ Mayor, 5", "12bis rue X",
     "No 0012 High St", "# 4", "Flat 3B", "St. Louis, MO", "Mount Saint X", "02139-4307", "1067", "sw1a 1aa", "US-CA", "New York", "n/a", "1/2/3"]
)  # fmt: skip
TEXT = st.one_of(PEOPLE, CONTACTS, PLACES, st.text(st.characters(exclude_categories=["Cs"]), max_size=24), st.none())
RECORD = st.fixed_dictionaries({name: TEXT for name in INPUTS if name != "country_code"} | {"country_code": COUNTRIES})
RECORDS = st.lists(RECORD, min_size=1, max_size=12)
QUICK = settings(max_examples=8, deadline=None)  # a dozen records of fifteen fields in each


def frame(records: list[dict[str, str | None]]) -> pl.DataFrame:
    return pl.DataFrame(records, schema=dict.fromkeys(INPUTS, pl.String)).with_row_index("record_id")


@QUICK
@given(RECORDS)
def test_normalising_what_is_normalised_changes_nothing(records: list[dict[str, str | None]]) -> None:
    once = normalised(frame(records))
    assert normalised(once).to_dicts() == once.to_dicts()


@QUICK
@given(RECORDS, st.randoms(use_true_random=False))
def test_a_record_reads_the_same_in_any_order_and_any_company(
    records: list[dict[str, str | None]], random: object
) -> None:
    given_frame = frame(records)
    together = normalised(given_frame)
    twice = pl.concat([given_frame.reverse(), given_frame.with_columns(pl.col("record_id") + len(records))])
    assert normalised(twice).filter(pl.col("record_id") < len(records)).sort("record_id").equals(together)
    assert normalised(given_frame.tail(1)).equals(together.tail(1))


@QUICK
@given(RECORDS)
def test_case_white_space_and_accents_change_nothing_that_is_a_name_or_a_place(
    records: list[dict[str, str | None]],
) -> None:
    latin = [
        {name: value if value is None or value.isascii() else unicodedata.normalize("NFKD", value).encode("ascii", "ignore").decode() for name, value in record.items()}
        for record in records
    ]  # fmt: skip
    changed = [
        {name: value if value is None else f"\t{_accented(value) if name in _FOLDED else value.swapcase()} \u00a0" for name, value in record.items()}
        for record in latin
    ]  # fmt: skip
    assert normalised(frame(changed)).equals(normalised(frame(latin)))


_FOLDED = {"first_name", "middle_name", "last_name", "full_name", "city", "street_name", "street_address"}


def _accented(value: str) -> str:
    return "".join(letter + "\u0301" if letter in "aeiouAEIOU" else letter.swapcase() for letter in value)


@QUICK
@given(st.sampled_from(INPUTS), TEXT)
def test_nothing_is_said_of_fields_that_nobody_filled_in(name: str, value: str | None) -> None:
    sources = {
        "first_name": {"first_name", "middle_name", "name_suffix", "given_root"}, "last_name": {"last_name", "name_suffix"},
        "full_name": {"first_name", "middle_name", "last_name", "name_suffix", "given_root"},
        "email": {"email", "email_local", "email_domain"}, "street_address": {"house_number", "street_name", "unit"},
    }  # fmt: skip
    row = normalised(pl.DataFrame({"record_id": [1], name: [value]}, schema_overrides={name: pl.String})).row(
        0, named=True
    )
    said = {column for column in OUTPUTS if row[column] is not None}
    assert said <= (sources.get(name, {name}) if value is not None else set())


@QUICK
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=6))
def test_any_text_at_all_is_read_without_an_error(texts: list[str]) -> None:
    out = normalised(frame([dict.fromkeys(INPUTS, text) for text in texts]))
    assert out.height == len(texts)
    assert out.columns == ["record_id", *OUTPUTS]
    longest = out.select(pl.col(pl.String).str.len_chars().max()).max_horizontal()[0]
    assert longest is None or longest <= 4 * LONGEST


def test_a_value_too_long_for_a_person_to_have_written_is_null() -> None:
    row = normalised(frame([dict.fromkeys(INPUTS, "7 high street " * 1_000)])).row(0, named=True)
    assert {name for name, value in row.items() if value is not None} == {"record_id"}


def test_missing_columns_count_as_null_and_other_columns_are_left_out() -> None:
    out = normalised(pl.DataFrame({"record_id": ["b", "a"], "loyalty_tier": ["gold", "none"]}))
    assert out.to_dicts() == [{"record_id": "b"} | dict.fromkeys(OUTPUTS), {"record_id": "a"} | dict.fromkeys(OUTPUTS)]
    assert normalised(pl.DataFrame({"record_id": []}, schema={"record_id": pl.String})).height == 0


def test_numbers_and_dates_are_read_as_what_they_would_be_printed_as() -> None:
    out = normalised(
        pl.DataFrame({"record_id": [1], "phone": [2935550142.0], "postal_code": [2139], "birth_date": [date(1990, 5, 1)], "house_number": [12.0]})
    )  # fmt: skip
    assert out.select("phone", "postal_code", "birth_date", "house_number").row(0) == (
        "+12935550142",
        "02139",
        date(1990, 5, 1),
        "12",
    )


@pytest.mark.parametrize(
    ("records", "words"),
    [
        (pl.DataFrame({"email": ["ana@example.com"]}), "expected a column record_id"),
        (pl.DataFrame({"record_id": [1, 1, None], "email": ["ana@example.com"] * 3}), "found 1 repeated and 1 missing"),
    ],
)
def test_records_without_a_name_of_their_own_are_refused_and_none_is_quoted(records: pl.DataFrame, words: str) -> None:
    with pytest.raises(ModelsError, match=words) as refusal:
        normalised(records)
    assert "ana@" not in str(refusal.value)


def test_a_country_that_is_none_is_refused() -> None:
    with pytest.raises(ModelsError, match="two capital letters"):
        normalised(pl.DataFrame({"record_id": [1]}), country="usa")


# Tokens (troth.ids) have a simpler idea of equal. Where both say something, theirs may be told from ours in one way only.

SPELLED_PHONES = st.builds(
    lambda area, line, form: form.format(a=area, x=line[:3], n=line[3:]),
    st.from_regex("[2-9][0-9]{2}", fullmatch=True), st.from_regex("[2-9][0-9]{6}", fullmatch=True),
    st.sampled_from(["+1{a}{x}{n}", "({a}) {x}-{n}", "{a}.{x}.{n}", "1 {a} {x} {n}", "+1 ({a}) {x}-{n}", "{a}{x}{n}", " 1-{a}-{x}-{n}"]),
)  # fmt: skip


@QUICK
@given(st.lists(SPELLED_PHONES, min_size=2, max_size=12))
def test_north_american_phones_equal_as_tokens_are_equal_here(phones: list[str]) -> None:
    ours = normalised(frame([{"phone": phone} for phone in phones]))["phone"].to_list()
    _agree([ids.normalised("phone", phone) for phone in phones], ours)


@QUICK
@given(st.lists(st.tuples(st.sampled_from(["ana@example.com", "a.b+c@Gmail.com", "x_y@mail.example.org", "josé@example.com", "A@ÖL.com"]), st.booleans(), st.sampled_from(["", " ", "\t\n"])), min_size=2, max_size=12))  # fmt: skip
def test_emails_equal_as_tokens_are_equal_here(spelled: list[tuple[str, bool, str]]) -> None:
    emails = [space + (email.upper() if loud else email) + space for email, loud, space in spelled]
    ours = normalised(frame([{"email": email} for email in emails]))["email"].to_list()
    _agree([ids.normalised("email", email) for email in emails], ours)


def _agree(theirs: list[str], ours: list[str | None]) -> None:
    read: dict[str, set[str]] = {}
    for token, value in zip(theirs, ours, strict=True):
        if value is not None:
            read.setdefault(token, set()).add(value)
    assert all(len(values) == 1 for values in read.values()), read


def test_where_tokens_and_normalising_differ() -> None:
    def ours(kind: str, value: str) -> str | None:
        return normalised(pl.DataFrame({"record_id": [1], kind: [value]}))[kind][0]

    # A token keeps what is no contact point at all; here it is null.
    assert ids.normalised("email", "n/a") == "n/a"
    assert ours("email", "n/a") is None
    assert ids.normalised("phone", "000-000-0000") == "0000000000"
    assert ours("phone", "000-000-0000") is None
    # A token does not know countries: the same number with and without its country is two, unless it is 1.
    assert ids.normalised("phone", "+442079460958") != ids.normalised("phone", "+44 (0)20 7946 0958")
    assert ours("phone", "+442079460958") == ours("phone", "+44 (0)20 7946 0958")
    # And a + is only punctuation to it: a German number and a North American one of the same digits are one. Not here.
    assert ids.normalised("phone", "+4930123456") == ids.normalised("phone", "4930123456")
    assert ours("phone", "+4930123456") != ours("phone", "4930123456")
    # Extensions are digits to a token, an extension here; domains are compared in ASCII here.
    assert ids.normalised("phone", "293-555-0142 ext 5") != ids.normalised("phone", "293-555-0142")
    assert ours("phone", "293-555-0142 ext 5") == ours("phone", "293-555-0142")
    assert ids.normalised("email", "a@öl.com") != ids.normalised("email", "a@xn--l-0ga.com")
    assert ours("email", "ana@öl.com") == ours("email", "ana@xn--l-0ga.com")
