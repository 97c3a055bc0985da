"""Postal addresses: house number, street and unit taken apart, and the codes of region, place and country."""

from typing import Any

import polars as pl

from models.identity.normalise.spelling import any_of, by_unique, folded, placeholders, usable, vocabulary, words

INPUTS = ["street_address", "house_number", "street_name", "unit", "city", "region_code", "postal_code", "locale"]
_NUMBER = r"[0-9]+(?: ?[a-z]\b)?(?:[-/][0-9]*[a-z]?)?"
_UNIT = r"[a-z]?[0-9]+(?:[- ]?[a-z]\b)?(?:-[0-9]+)?|[a-z]"


def country_codes(text: pl.Expr) -> pl.Expr:
    """ISO 3166 alpha-2 in upper case, the usual slips corrected; anything else is null."""
    code = text.str.to_uppercase().replace(vocabulary()["countries"])
    return pl.when(code.str.contains("^[A-Z]{2}$")).then(code)


def parsed(frame: pl.DataFrame) -> pl.DataFrame:
    """Addresses as compared, one row per row, of the columns `INPUTS`."""
    streets = frame.select(INPUTS[:4] + ["locale"])
    return by_unique(streets, streets.columns, _streets).hstack(
        by_unique(frame, ["city"], lambda part: part.select(_cities()))
    ).hstack(
        by_unique(frame, ["region_code", "locale"], lambda part: part.select(_regions()))
    ).hstack(by_unique(frame, ["postal_code", "locale"], lambda part: part.select(_postal_codes())))  # fmt: skip


def _respelled(text: pl.Expr, spellings: dict[str, str]) -> pl.Expr:
    """Words exchanged for their one spelling. Two blanks between words: each has its own on both sides."""
    apart = pl.concat_str([pl.lit(" "), text.str.replace_all(" ", "  ", literal=True), pl.lit(" ")])
    changed = apart.str.replace_many([f" {word} " for word in spellings], [f" {word} " for word in spellings.values()])
    return changed.str.replace_all(" +", " ").str.strip_chars(" ")


def _streets(frame: pl.DataFrame) -> pl.DataFrame:
    known = vocabulary()["streets"]
    line = usable(folded(pl.col("street_address")), "not_in_names", "addresses")
    name = usable(folded(pl.col("street_name")), "not_in_names", "addresses")
    frame = frame.with_columns(line=_lined(line), name=words(name), in_country=pl.col("locale").fill_null(""))
    frame = _without_units(frame, known)
    frame = _without_number(frame, known)
    street = _spelled(pl.coalesce("line", "name"), known)
    house = _house(pl.coalesce("number", usable(folded(pl.col("house_number")))))
    unit = pl.coalesce(
        "parted", words(usable(folded(pl.col("unit"))).str.replace(rf"^ ?(?:{any_of(known['units'])}\b|#) ?", ""))
    )
    return frame.select(
        house.alias("house_number"),
        pl.when(street.str.contains(r"[\p{L}0-9]")).then(street).alias("street_name"),
        unit.str.replace_all(r"[-\s]+", " ").alias("unit"),
    )


def _house(text: pl.Expr) -> pl.Expr:
    """A house number: letters close up to it, ranges and fractions stay, leading zeros go."""
    number = (
        text.str.replace_all(r"[^\p{L}\p{M}\p{N}/-]+", " ")
        .str.replace_all(r" *([/-])[/ -]*", "$1")
        .str.strip_chars(" /-")
    )
    number = number.str.replace_all(r"([0-9]) (\p{L})", "$1$2").str.replace("^0+([0-9])", "$1")
    return pl.when(number != "").then(number)


def _lined(text: pl.Expr) -> pl.Expr:
    """Folded address text with nothing but words, numbers, and the comma, hyphen, slash and # that mean something."""
    return (
        text.str.replace_all(r"\b([nsew])\.\s?([nsew])\b\.?", "$1$2")
        .str.replace_all("'", "")
        .str.replace_all(r"\s*;\s*", ",")
        .str.replace_all(r"[^\p{L}\p{M}\p{N}#,/-]+", " ")
        .str.replace_all(r"\s*([-/,])[-/,\s]*", "$1")
        .str.strip_chars(" ,-/")
    )


def _without_units(frame: pl.DataFrame, known: dict[str, Any]) -> pl.DataFrame:
    """The unit moves from `line` to `parted`: at the front before a number, at the end or before a comma."""
    words_for = any_of(known["units"])
    front = pl.col("line").str.extract_groups(rf"^(?:{words_for} ?#? ?|# ?)({_UNIT})[ ,/]+([0-9].*)$")
    frame = frame.with_columns(
        line=pl.coalesce(front.struct.field("2"), "line"), front=front.struct.field("1"),
    )  # fmt: skip
    behind = rf"[ ,](?:{words_for} ?(?:no ?)?#? ?|# ?)({_UNIT}) ?(,|$)"
    for name in ("first", "second"):  # a building, then an apartment
        frame = frame.with_columns(
            pl.col("line").str.extract(behind).alias(name), pl.col("line").str.replace(behind, "$2").alias("line")
        )
    slash = pl.col("line").str.extract_groups(r"^([0-9]+[a-z]?)/([0-9]+[a-z]?(?:-[0-9]+)? .*)$")
    hyphen = pl.col("line").str.extract_groups(r"^([0-9]+[a-z]?)-([0-9]+[a-z]? .*)$")
    as_slash, as_hyphen = (
        pl.col("in_country").is_in(known["slash_unit"]),
        pl.col("in_country").is_in(known["hyphen_unit"]),
    )
    before = pl.when(as_slash).then(slash.struct.field("1")).when(as_hyphen).then(hyphen.struct.field("1"))
    after = pl.when(as_slash).then(slash.struct.field("2")).when(as_hyphen).then(hyphen.struct.field("2"))
    parted = pl.concat_str([before, "front", "first", "second"], separator=" ", ignore_nulls=True).str.replace_all(
        "-", ""
    )
    return frame.with_columns(line=pl.coalesce(after, "line"), parted=pl.when(parted != "").then(parted))


def _without_number(frame: pl.DataFrame, known: dict[str, Any]) -> pl.DataFrame:
    """The house number moves from `line` to `number`; boxes are a street called `po box`."""
    flat = pl.col("line").str.replace_all("[,#]", " ").str.replace_all(" +", " ").str.strip_chars(" ")
    frame = frame.with_columns(line=flat)
    box = pl.col("line").str.extract(rf"^{any_of(known['boxes'])} ?([a-z0-9]+)\b.*$")
    front = pl.col("line").str.extract_groups(
        r"^(?:no )?([0-9]+[a-z]?(?:[-/][0-9]+[a-z]?)?(?: ?(?:bis|ter|quater)| 1/2)?) (.+)$"
    )
    behind = pl.col("line").str.extract_groups(rf"^(.*[^0-9 ]) ({_NUMBER})$")
    is_last = pl.col("in_country").is_in(known["number_last"])
    front_number, front_street = front.struct.field("1"), front.struct.field("2")
    number = pl.when(is_last).then(pl.coalesce(behind.struct.field("2"), front_number)).otherwise(front_number)
    street = (
        pl.when(is_last & behind.struct.field("1").is_not_null()).then(behind.struct.field("1")).otherwise(front_street)
    )
    return frame.with_columns(
        number=pl.coalesce(box, number),
        line=words(pl.when(box.is_not_null()).then(pl.lit("po box")).otherwise(pl.coalesce(street, "line"))),
    )


def _spelled(text: pl.Expr, known: dict[str, Any]) -> pl.Expr:
    everywhere = known["types"] | known["directions"] | known["ordinals"]
    respelled = _respelled(text, everywhere)
    for country, more in known["by_country"].items():
        respelled = (
            pl.when(pl.col("in_country") == country).then(_respelled(text, everywhere | more)).otherwise(respelled)
        )
    return respelled.str.replace_all(r"(?:strasse|straat)\b", "str").str.replace_all(r"\b([ns]) ([ew])\b", "$1$2")


def _cities() -> pl.Expr:
    named = usable(folded(pl.col("city")), "not_in_names", "names", "addresses").str.replace(r",\s*[a-z]{2}\.?$", "")
    city = _respelled(words(named), vocabulary()["cities"])
    return pl.when(city.str.contains(r"\p{L}")).then(city).alias("city")


def _regions() -> pl.Expr:
    text = words(usable(folded(pl.col("region_code")), "not_in_names"))
    code: pl.Expr = text
    for country, names in vocabulary()["regions"].items():
        there = pl.col("locale") == country
        bare = text.str.replace(rf"^{country.lower()} ([a-z]{{2,3}})$", "$1")
        code = pl.when(there).then(bare.replace({name: short.lower() for name, short in names.items()})).otherwise(code)
    return code.str.to_uppercase().alias("region_code")


def _postal_codes() -> pl.Expr:
    said = pl.col("postal_code").str.to_uppercase().str.replace(r"^[A-Z]{1,3}-([0-9]{4})", "$1")
    text = said.str.replace_all(r"[^A-Z0-9]", "")
    code: pl.Expr = text
    for form in vocabulary()["postal_codes"]:
        there = pl.col("locale").is_in(form["countries"])
        full = text
        if "digits" in form:  # a spreadsheet drops the leading zero
            full = (
                pl.when(text.str.contains(f"^[0-9]{{{int(form['digits']) - 1}}}$"))
                .then(pl.lit("0") + text)
                .otherwise(text)
            )
        code = pl.when(there).then(full.str.replace(form["pattern"], form["written"])).otherwise(code)
    nothing = text.is_in(vocabulary()["placeholders"]["postal_codes"]) | text.str.to_lowercase().is_in(
        placeholders("not_in_names")
    )
    is_code = text.str.contains("[0-9]") & (text.str.len_bytes() <= 10)
    return pl.when(is_code & ~nothing).then(code).alias("postal_code")
