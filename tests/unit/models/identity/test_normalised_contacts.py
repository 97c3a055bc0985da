"""E-mails and phones as compared. What is recognised by pattern is what the libraries would say."""

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.identity.normalise import contacts, normalised


def read(name: str, value: str | None, country: str | None = None) -> dict[str, str | None]:
    frame = pl.DataFrame(
        {"record_id": [1], name: [value], "country_code": [country]},
        schema_overrides={name: pl.String, "country_code": pl.String},
    )
    return normalised(frame).row(0, named=True)


@pytest.mark.parametrize(
    ("said", "email", "local", "domain"),
    [
        (" John@X.com ", "john@x.com", "john", "x.com"),
        ("a.b+shop@gmail.com", "a.b+shop@gmail.com", "ab", "gmail.com"),
        ("a.b@googlemail.com", "a.b@googlemail.com", "ab", "gmail.com"),
        ("a.b+shop@example.org", "a.b+shop@example.org", "a.b", "example.org"),
        ("Bob Smith <Bob@Example.com>", "bob@example.com", "bob", "example.com"),
        ("mailto:bob@example.com", "bob@example.com", "bob", "example.com"),
        ("josé@exämple.com", "josé@xn--exmple-cua.com", "josé", "xn--exmple-cua.com"),
        ("b17@relay.bazaar.example", "b17@relay.bazaar.example", "b17", "relay.bazaar.example"),
    ],
)  # fmt: skip
def test_an_address_is_compared_by_what_its_provider_tells_apart(
    said: str, email: str, local: str, domain: str
) -> None:
    row = read("email", said)
    assert (row["email"], row["email_local"], row["email_domain"]) == (email, local, domain)


@pytest.mark.parametrize(
    "said",
    [
        "n/a",
        "x@y",
        "a..b@c.com",
        "bob@",
        "noreply@shop.com",
        "no-reply2@shop.com",
        "test1@shop.com",
        "info@none.com",
        "bob@shop.test",
        "@",
    ],
)
def test_what_is_no_address_or_nobodys_is_null(said: str) -> None:
    row = read("email", said)
    assert (row["email"], row["email_local"], row["email_domain"]) == (None, None, None)


LABEL = st.from_regex(r"[a-z0-9-]{1,12}", fullmatch=True)
ADDRESS = st.builds(
    lambda local, labels, top: f"{local}@{'.'.join([*labels, top])}",
    st.from_regex(r"[a-zA-Z0-9._+-]{1,70}", fullmatch=True), st.lists(LABEL, min_size=1, max_size=5),
    st.sampled_from(["com", "DE", "museum", "test", "local", "xn--p1ai", "c", "c0m", "arpa", "example", "onion"]),
)  # fmt: skip


@settings(max_examples=20, deadline=None)
@given(st.lists(ADDRESS, min_size=20, max_size=40))
def test_an_address_recognised_by_pattern_is_what_the_library_says(addresses: list[str]) -> None:
    plain = pl.DataFrame({"email": addresses}).select(contacts.plain_email(pl.col("email"))).to_series()
    for address, ours in zip(addresses, plain, strict=True):
        assert ours in {contacts.library_email(address), None}, address


@pytest.mark.parametrize(
    ("said", "country", "phone"),
    [
        ("(293) 555-0142", "US", "+12935550142"),
        ("1-293-555-0142", "CA", "+12935550142"),
        ("+1 293 555 0142", "GB", "+12935550142"),
        ("293.555.0142 ext. 5", None, "+12935550142"),
        ("Tel: 293 555 0142", None, "+12935550142"),
        ("020 7946 0958", "GB", "+442079460958"),
        ("+44 (0)20 7946 0958", None, "+442079460958"),
        ("0044 20 7946 0958", "FR", "+442079460958"),
        ("030/123456", "DE", "+4930123456"),
        ("06 1234 5678", "IT", "+390612345678"),
        ("1-800-FLOWERS", None, "+18003569377"),
    ],
)
def test_a_phone_is_read_as_dialled_in_its_country(said: str, country: str | None, phone: str) -> None:
    assert read("phone", said, country)["phone"] == phone


@pytest.mark.parametrize(
    "said",
    [
        "555-0142",
        "0000000000",
        "123456789",
        "(555) 555-5555",
        "999-999-9999",
        "123-456-7890",
        "12",
        "call me",
        "No 12 High Street",
        "+999123456789",
    ],
)
def test_what_cannot_be_dialled_or_is_filled_in_for_form_is_null(said: str) -> None:
    assert read("phone", said)["phone"] is None


def test_a_number_without_a_country_that_has_numbers_is_null() -> None:
    assert read("phone", "2935550142", "ZZ")["phone"] is None
    assert read("phone", "+12935550142", "ZZ")["phone"] == "+12935550142"


def test_a_reserved_area_code_is_possible_although_never_valid() -> None:
    from phonenumbers import is_valid_number, parse

    assert not is_valid_number(parse("+12935550142"))
    assert read("phone", "+12935550142")["phone"] == "+12935550142"


FORMS = ["ddd-ddd-dddd", "(ddd) ddd-dddd", "+1dddddddddd", "1 ddd ddd dddd", "+1 (ddd) ddd-dddd", "ddd.ddd.dddd", "+d ddd ddd dddd",
         "dddddddddd", "+1(ddd)ddddddd", "+ddddddddddd", "(ddd ddd-dddd"]  # fmt: skip
DIALLED = st.builds(
    lambda form, digits: "".join(digits.pop() if sign == "d" else sign for sign in form),
    st.sampled_from(FORMS), st.lists(st.sampled_from("01234567892222"), min_size=11, max_size=11),
)  # fmt: skip


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(DIALLED, st.sampled_from(["US", "CA", "GB", "DE", None])), min_size=20, max_size=40))
def test_a_phone_recognised_by_pattern_is_what_the_library_says(said: list[tuple[str, str | None]]) -> None:
    frame = pl.DataFrame(said, schema={"phone": pl.String, "locale": pl.String}, orient="row")
    plain = frame.select(contacts.plain_phone(pl.col("phone"), pl.col("locale"))).to_series()
    for row, ours in zip(said, plain, strict=True):
        assert ours in {contacts.library_phone(*row), None}, row


def test_the_patterns_recognise_what_most_people_write() -> None:
    frame = pl.DataFrame({"email": ["Ana.Lee+x@Mail.Example.com"], "phone": ["(293) 555-0142"], "locale": ["US"]})
    plain = frame.select(contacts.plain_email(pl.col("email")), contacts.plain_phone(pl.col("phone"), pl.col("locale")))
    assert plain.row(0) == ("ana.lee+x@mail.example.com", "+12935550142")
