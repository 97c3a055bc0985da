"""Postal addresses: house number, street and unit taken apart, and the codes of region, place and country."""

from typing import Any

import polars as pl

from models.identity.normalise.spelling import (
    any_of,
    by_unique,
    placeholders,
    usable,
    vocabulary,
    without_placeholders,
    words,
)

INPUTS = ["street_address", "house_number", "street_name", "unit", "city", "region_code", "postal_code", "locale"]
_NUMBER = r"[0-9]+(?: ?[a-z]\b)?(?:[-/][0-9]*[a-z]?)?"
_UNIT = r"[a-z]?[0-9]+(?:[- ]?[a-z]\b)?(?:-[0-9]+)?|[a-z]"


def country_codes(text: pl.Expr) -> pl.Expr:
    """ISO 3166 alpha-2 in upper case, the usual slips corrected; anything else is null."""
    code = text.str.to_uppercase().replace(vocabulary()["countries"])
    return pl.when(code.str.contains("^[A-Z]{2}$")).then(code)


def parsed(frame: pl.DataFrame) -> pl.DataFrame:
    """Addresses as compared, one row per row, of the columns `INPUTS`."""
    streets = frame.select([*INPUTS[:4], "locale"])
    return pl.concat(
        [
            by_unique(streets, streets.columns, _streets),
            by_unique(frame, ["city"], _cities),
            by_unique(frame, ["region_code", "locale"], _regions),
            by_unique(frame, ["postal_code", "locale"], _postal_codes),
        ],
        how="horizontal",
    )


def _respelled(name: str, spellings: dict[str, str]) -> pl.Expr:
    """Words of a column exchanged for their one spelling. Two blanks between: each has its own on both sides."""
    apart = pl.concat_str([pl.lit(" "), pl.col(name).str.replace_all(" ", "  ", literal=True), pl.lit(" ")])
    changed = apart.str.replace_many([f" {word} " for word in spellings], [f" {word} " for word in spellings.values()])
    return changed.str.replace_all(" +", " ").str.strip_chars(" ").alias(name)


def _streets(frame: pl.DataFrame) -> pl.DataFrame:
    known = vocabulary()["streets"]
    kinds = {"street_address": ("addresses",), "street_name": ("addresses",), "house_number": (), "unit": ()}
    for name, kind in kinds.items():
        frame = usable(frame, name, "not_in_names", *kind)
    unit = words(pl.col("unit")).str.replace(rf"^(?:{any_of(known['units'])}(?: |$))+", "").replace("", None)
    frame = frame.select(
        line=_lined(pl.col("street_address")), name=words(pl.col("street_name")), house="house_number", unit=unit,
        country=pl.col("locale"),
    )  # fmt: skip
    frame = _without_number(_without_units(frame, known), known)
    frame = frame.select(
        "country", street=pl.coalesce("line", "name"), unit=pl.coalesce("parted", "unit").str.replace_all("[- ]+", " "),
        house_number=_house(pl.coalesce("number", "house")),
    )  # fmt: skip
    frame = _spelled(frame, known).select("house_number", street_name="street", unit="unit")
    for name in frame.columns:  # a placeholder may come to light only now
        frame = without_placeholders(frame, name, "not_in_names", *kinds[name])
    return frame


def _house(text: pl.Expr) -> pl.Expr:
    """A house number: letters close up to it, ranges and fractions stay, leading zeros go."""
    number = (
        text.str.replace_all(r"[^\p{L}\p{M}\p{N}/-]+", " ")
        .str.replace_all(r" *([/-])[/ -]*", "$1")
        .str.strip_chars(" /-")
    )
    number = number.str.replace_all(r"([0-9]) (\p{L})", "$1$2").str.replace("^0+([0-9])", "$1")
    return number.replace("", None)


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
    line, named = pl.col("line"), any_of(known["units"])
    frame = _moved(frame, "front", line.str.extract_groups(rf"^(?:{named} ?#? ?|# ?)({_UNIT})[ ,/]+([0-9].*)$"))
    behind = rf"[ ,](?:{named} ?(?:no ?)?#? ?|# ?)({_UNIT}) ?(,|$)"
    for name in ("first", "second"):  # a building, then an apartment
        frame = frame.with_columns(line.str.extract(behind).alias(name), line.str.replace(behind, "$2").alias("line"))
    slash = line.str.extract_groups(r"^([0-9]+[a-z]?)/([0-9]+[a-z]?(?:-[0-9]+)? .*)$")
    hyphen = line.str.extract_groups(r"^([0-9]+[a-z]?)-([0-9]+[a-z]? .*)$")
    in_slash, in_hyphen = (pl.col("country").is_in(known[name]) for name in ("slash_unit", "hyphen_unit"))
    frame = _moved(frame, "before", pl.when(in_slash).then(slash).when(in_hyphen).then(hyphen))
    parted = pl.concat_str(["before", "front", "first", "second"], separator=" ", ignore_nulls=True)
    return frame.with_columns(parted=parted.str.replace_all("-", "", literal=True).replace("", None))


def _moved(frame: pl.DataFrame, name: str, groups: pl.Expr) -> pl.DataFrame:
    """Where a pattern matches, its first group becomes column `name` and `line` keeps the second."""
    frame = frame.with_columns(groups.alias(name))
    first, rest = (pl.col(name).struct.field(number) for number in "12")
    return frame.with_columns(first.alias(name), line=pl.coalesce(rest, "line"))


def _without_number(frame: pl.DataFrame, known: dict[str, Any]) -> pl.DataFrame:
    """The house number moves from `line` to `number`; boxes are a street called `po box`."""
    line = pl.col("line")
    frame = frame.with_columns(line.str.replace_all("[ ,#]+", " ").str.strip_chars(" "))
    frame = frame.with_columns(
        box=line.str.extract(rf"^{any_of(known['boxes'])} ?([a-z0-9]+)\b.*$"),
        front=line.str.extract_groups(
            r"^(?:no )?([0-9]+[a-z]?(?:[-/][0-9]+[a-z]?)?(?: ?(?:bis|ter|quater)| 1/2)?) (.+)$"
        ),
        behind=pl.when(pl.col("country").is_in(known["number_last"])).then(
            line.str.extract_groups(rf"^(.*[^0-9 ]) ({_NUMBER})$")
        ),
    )
    front, behind = pl.col("front").struct, pl.col("behind").struct
    street = pl.when(pl.col("box").is_not_null()).then(pl.lit("po box")).otherwise(
        pl.coalesce(behind.field("1"), front.field("2"), "line")
    )  # fmt: skip
    return frame.with_columns(number=pl.coalesce("box", behind.field("2"), front.field("1")), line=street).with_columns(
        words(line)
    )


def _spelled(frame: pl.DataFrame, known: dict[str, Any]) -> pl.DataFrame:
    """One spelling for street types, directions and ordinals in column `street`."""
    street = pl.col("street")
    for country, more in known["by_country"].items():
        frame = frame.with_columns(
            pl.when(pl.col("country") == country).then(_respelled("street", more)).otherwise(street).alias("street")
        )
    frame = frame.with_columns(_respelled("street", known["types"] | known["directions"] | known["ordinals"]))
    return frame.with_columns(
        street.str.replace_all(r"(?:strasse|straat)\b", "str").str.replace_all(r"\b([ns]) ([ew])\b", "$1$2")
    )


def _cities(frame: pl.DataFrame) -> pl.DataFrame:
    kinds = ("not_in_names", "names", "addresses")
    frame = usable(frame, "city", *kinds)
    frame = frame.select(words(pl.col("city").str.replace(r",\s*[a-z]{2}\.?$", "")))
    frame = frame.select(_respelled("city", vocabulary()["cities"]))
    return without_placeholders(frame, "city", *kinds).select(
        pl.when(pl.col("city").str.contains(r"\p{L}")).then("city")
    )


def _regions(frame: pl.DataFrame) -> pl.DataFrame:
    frame = usable(frame, "region_code", "not_in_names").with_columns(words(pl.col("region_code")))
    frame = without_placeholders(frame, "region_code", "not_in_names")
    code = pl.col("region_code")
    for country, names in vocabulary()["regions"].items():
        bare = code.str.replace(rf"^{country.lower()} ([a-z]{{2,3}})$", "$1")  # US-CA, ISO 3166-2
        here = bare.replace({name: short.lower() for name, short in names.items()})
        frame = frame.with_columns(pl.when(pl.col("locale") == country).then(here).otherwise(code).alias("region_code"))
    return frame.select(code.str.to_uppercase())


def _postal_codes(frame: pl.DataFrame) -> pl.DataFrame:
    known = vocabulary()
    nothing = [*known["placeholders"]["postal_codes"], *(word.upper() for word in placeholders("not_in_names"))]
    code = pl.col("postal_code")
    frame = frame.with_columns(
        code.str.to_uppercase().str.replace(r"^[A-Z]{1,3}-([0-9]{4})", "$1").str.replace_all("[^A-Z0-9]", "")
    )
    for form in known["postal_codes"]:
        full = code
        if "digits" in form:  # a spreadsheet drops the leading zero
            full = code.str.replace(f"^([0-9]{{{int(form['digits']) - 1}}})$", "0$1")
        here = full.str.replace(form["pattern"], form["written"])
        frame = frame.with_columns(
            pl.when(pl.col("locale").is_in(form["countries"])).then(here).otherwise(code).alias("postal_code")
        )
    bare = code.str.replace_all("[ -]", "")
    is_code = bare.str.contains("[0-9]") & (bare.str.len_bytes() <= 10) & ~bare.is_in(nothing)
    return frame.select(pl.when(is_code).then(code))
