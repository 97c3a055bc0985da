"""E-mail addresses and telephone numbers, judged by the libraries made for them.

What most addresses and North American numbers look like is recognised by pattern; everything else, once per
distinct value, by the library. A property test holds the two equal.
"""

import re
import unicodedata

import polars as pl

from models.identity.normalise.spelling import placeholders, vocabulary

_LABEL = "[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
PLAIN_EMAIL = rf"^[a-z0-9_+-]+(?:\.[a-z0-9_+-]+)*@(?:{_LABEL}\.)+[a-z]{{2,24}}$"
# Reserved names (RFC 6761) and punycode are left to the library.
_SPECIAL = r"--|[@.](?:arpa|invalid|local|localhost|onion|test|example|internal|alt)$"
NORTH_AMERICAN = r"^(?:\+?1[ .-]?)?(?:\([2-9][0-9]{2}\)|[2-9][0-9]{2})[ .-]?[2-9][0-9]{2}[ .-]?[0-9]{4}$"
# Digits, behind a label or before an extension; or seven letters and more, as on a dial, behind an area code.
_DIALLED = re.compile(
    r"(?:[a-z]{1,9}[.:]{0,2} ?)?(\+?[0-9 ().+/*-]{4,}?(?:(?:;?ext|x|#|extension|durchwahl|app)[.:=]* ?[0-9]{1,7})?"
    r"|(?:\+?1[ .-]?)?\(?[2-9][0-9]{2}\)?[ .-]?[a-z-]{7,12})", re.IGNORECASE,
)  # fmt: skip
_NORTH_AMERICA = ["US", "CA", "PR", "VI", "GU", "AS", "MP"]
_ONE_DIGIT = "(?:" + "|".join(f"{digit}{{7}}" for digit in range(10)) + ")$"


def plain_email(text: pl.Expr) -> pl.Expr:
    """An address of the usual form in lower case, as the library would give it; null where the library must say."""
    lower = text.str.to_lowercase()
    is_plain = (
        lower.str.contains(PLAIN_EMAIL) & ~lower.str.contains(_SPECIAL) & (lower.str.len_bytes() <= 254)
        & (lower.str.find("@", literal=True) <= 64)
    )  # fmt: skip
    return pl.when(is_plain).then(lower)


def email_addresses(frame: pl.DataFrame) -> pl.DataFrame:
    """`email`, `email_local` and `email_domain` of a column `email`, one row per row."""
    known = vocabulary()
    frame = frame.select(pl.col("email").str.strip_chars().alias("raw"))
    frame = frame.with_columns(plain_email(pl.col("raw")).alias("plain"))
    rest = frame.filter(pl.col("plain").is_null() & pl.col("raw").is_not_null())["raw"].unique().to_list()
    by_library = pl.DataFrame(
        {"raw": rest, "slow": [library_email(value) for value in rest]}, schema={"raw": pl.String, "slow": pl.String}
    )
    frame = frame.join(by_library, on="raw", how="left", maintain_order="left").select(
        pl.coalesce("plain", "slow").alias("email")
    )
    local, host = (pl.col("email").str.extract(pattern) for pattern in ("^(.*)@", "@([^@]*)$"))
    tagless = local.str.replace(r"^([^+]+)\+.*$", "$1")
    frame = frame.with_columns(email_local=tagless, email_domain=host.replace(known["emails"]["same_domain"]))
    dotless = pl.col("email_domain").is_in(known["emails"]["dotless"])
    frame = frame.with_columns(
        pl.when(dotless)
        .then(pl.col("email_local").str.replace_all(".", "", literal=True))
        .otherwise("email_local")
        .alias("email_local")
    )
    nobody = (
        pl.col("email_local").str.replace(r"[0-9]+$", "").is_in(placeholders("email_locals"))
        | local.is_in(placeholders("email_locals"))
        | pl.col("email_domain").is_in(known["placeholders"]["email_domains"])
    )
    return frame.select(
        pl.when(nobody.not_()).then(name).alias(name) for name in ("email", "email_local", "email_domain")
    )


def library_email(value: str) -> str | None:
    """An address as email-validator reads it, without asking the DNS: lower case, domain in ASCII (IDNA 2008)."""
    from email_validator import EmailNotValidError, validate_email

    text = value.lower().strip().removeprefix("mailto:")
    if text.endswith(">") and "<" in text:
        text = text[text.rindex("<") + 1 : -1].strip()
    try:
        read = validate_email(text, check_deliverability=False)
    except (EmailNotValidError, UnicodeError, ValueError):
        return None
    if not read.ascii_domain:
        return None
    return f"{read.local_part}@{read.ascii_domain}".lower()


def plain_phone(text: pl.Expr, locale: pl.Expr) -> pl.Expr:
    """A North American number as the library would give it; null where the library must say."""
    digits = text.str.replace_all("[^0-9]", "").str.replace("^1?([0-9]{10})$", "+1$1")
    there = locale.is_in(_NORTH_AMERICA) | text.str.starts_with("+")
    return pl.when(text.str.contains(NORTH_AMERICAN) & there).then(digits)


def phone_numbers(frame: pl.DataFrame) -> pl.DataFrame:
    """`phone` in E.164 of columns `phone` and `locale`, one row per row."""
    known = vocabulary()["placeholders"]["phones"]
    frame = frame.select("phone", "locale", plain_phone(pl.col("phone"), pl.col("locale")).alias("plain"))
    rest = frame.filter(pl.col("plain").is_null() & pl.col("phone").is_not_null()).select("phone", "locale").unique()
    slow = pl.Series("slow", [library_phone(*row) for row in rest.iter_rows()], pl.String)
    frame = frame.join(
        rest.with_columns(slow), on=["phone", "locale"], how="left", nulls_equal=True, maintain_order="left"
    )
    said = pl.col("phone").str.replace_all("[^0-9]", "").str.replace("^1([0-9]{10})$", "$1")
    number = pl.coalesce("plain", "slow")
    nobody = said.is_in(known) | number.str.contains(_ONE_DIGIT) | number.str.replace(r"^\+1?", "").is_in(known)
    return frame.select(pl.when(nobody.not_()).then(number).alias("phone"))


def library_phone(value: str, locale: str | None) -> str | None:
    """A number as phonenumbers reads it there, in E.164, extension dropped; null where its length is not possible.

    Possible, not valid: whether a number is assigned changes from week to week, and a number given up last year still
    tells two people apart. A number without its area code is no number.
    """
    from phonenumbers import NumberParseException, PhoneNumberFormat, ValidationResult, format_number, parse
    from phonenumbers import is_possible_number_with_reason as reason

    dialled = _DIALLED.fullmatch(unicodedata.normalize("NFKC", value).strip())
    if not dialled:
        return None
    try:
        number = parse(dialled[1], locale)
        if number.italian_leading_zero:  # a trunk zero that this country's own way of writing did not give away
            number = parse(format_number(number, PhoneNumberFormat.E164))
    except NumberParseException:
        return None
    if reason(number) != ValidationResult.IS_POSSIBLE:
        return None
    return format_number(number, PhoneNumberFormat.E164)
