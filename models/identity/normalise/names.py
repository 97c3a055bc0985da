"""Names of people: whole names taken apart, titles dropped, short forms given their long one."""

from functools import lru_cache

import polars as pl

from models.identity.normalise.spelling import (
    any_of,
    by_unique,
    folded,
    usable,
    vocabulary,
    without_placeholders,
    words,
)

INPUTS = ["first_name", "middle_name", "last_name", "name_suffix", "full_name", "locale"]
OUTPUTS = ["first_name", "middle_name", "last_name", "name_suffix", "given_root"]
_PLACEHOLDERS = {
    "first_name": ["names", "first_names"],
    "middle_name": ["names", "first_names", "not_in_names"],
    "last_name": ["names"],  # and some more where the first name is none either
}
_ASIDE = r"\([^)]*\)|\"[^\"]*\"|[“«][^”»]*[”»]"  # Robert (Bob) Smith
_FAMILY_FIRST = r"\p{Han}|\p{Hangul}|\p{Hiragana}|\p{Katakana}"  # scripts in which the family name comes first


@lru_cache(maxsize=1)
def given_roots() -> dict[str, str]:
    """Short form to usual long form, from the table of the `nicknames` package.

    Where the table knows several, the one listed first among the vocabulary's long forms; without any listed, the
    only one there is. A name that is listed, or has short forms of its own and no listed long form, is its own.
    """
    from nicknames import name_triplets

    long_forms: dict[str, set[str]] = {}
    for triplet in name_triplets():
        long_forms.setdefault(triplet.name2, set()).add(triplet.name1)
    has_short_forms = {name for names in long_forms.values() for name in names}
    rank = {name: number for number, name in enumerate(vocabulary()["names"]["long_forms"])}
    roots = {}
    for short, longs in long_forms.items():
        if short in rank:
            continue
        listed = sorted(longs & rank.keys(), key=lambda name: rank[name])
        if listed:
            roots[short] = listed[0]
        elif len(longs) == 1 and short not in has_short_forms:
            roots[short] = next(iter(longs))
    variants: dict[str, str] = vocabulary()["names"]["variants"]
    return variants | {
        short: variants.get(roots.get(long, long), roots.get(long, long)) for short, long in roots.items()
    }


def parsed(frame: pl.DataFrame) -> pl.DataFrame:
    """Names as compared, one row per row; input and output columns as `INPUTS` and `OUTPUTS` say."""
    whole = frame.select("full_name", "locale")
    direct = ["first_name", "middle_name", "last_name", "name_suffix"]
    if whole["full_name"].null_count() < whole.height:
        split = by_unique(whole, whole.columns, _split)
    else:
        split = pl.DataFrame(dict.fromkeys(("given", "family", "full_suffix"), whole["full_name"]))
    said = pl.concat([by_unique(frame, [name], _words) for name in direct], how="horizontal")
    return _assembled(said.hstack(split))


def _words(column: pl.DataFrame) -> pl.DataFrame:
    (name,) = column.columns
    if name == "name_suffix":  # iii is no placeholder here, and only known ones are read
        return column.select(words(folded(pl.col(name))))
    return _one_line(usable(column, name, *_PLACEHOLDERS[name]), name).select(words(pl.col(name)))


def _one_line(frame: pl.DataFrame, name: str) -> pl.DataFrame:
    """Asides taken out of a name that has more to it, and one spelling of `and`."""
    without = frame.select(pl.col(name).str.replace_all(_ASIDE, " ").str.replace_all("[&+]", " and ")).to_series()
    return frame.with_columns(pl.when(without.str.contains(r"\p{L}")).then(without).otherwise(name).alias(name))


def _vocabulary() -> tuple[str, str, str, str]:
    known = vocabulary()["names"]
    return (
        rf"^(?:{any_of(known['titles'])}(?: {any_of(known['joint'])})? )+",
        rf"(?: {any_of([*known['suffixes'], *known['degrees']])})+$",
        rf"(?:{any_of(known['particles'])} )*",
        any_of(known["joint"]),
    )


def _stripped(text: pl.Expr) -> tuple[pl.Expr, pl.Expr]:
    """A name without titles, generation and degrees, none of which may be all there is; and the generation."""
    known = vocabulary()["names"]
    titles, endings, _, _ = _vocabulary()
    text = text.str.replace(titles, "")
    generation = any_of(known["suffixes"])
    suffix = text.str.extract(rf" ({generation})(?: {any_of([*known['suffixes'], *known['degrees']])})*$")
    text = text.str.replace(endings, "")
    return pl.when(text.str.contains(rf"^{any_of(known['titles'])}$").not_()).then(text), suffix.replace(
        known["suffixes"]
    )


def _split(frame: pl.DataFrame) -> pl.DataFrame:
    """Whole names as `given`, `family` and `full_suffix`: "Last, First" by its comma, otherwise by the last word."""
    known = vocabulary()["names"]
    titles, _, particles, joint = _vocabulary()
    ending = any_of([*known["suffixes"], *known["degrees"]])
    frame = _one_line(usable(frame, "full_name", *_PLACEHOLDERS["middle_name"]), "full_name")
    text = pl.col("full_name")
    frame = frame.with_columns(
        before=words(text.str.extract("^([^,]*),")), after=words(text.str.extract("^[^,]*,(.*)$")),
        straight=words(text, hyphened=True),
    )  # fmt: skip
    core, suffix = _stripped(pl.col("straight"))
    frame = frame.with_columns(
        core=core, full_suffix=suffix,
        is_inverted=pl.col("before").is_not_null() & ~pl.col("after").str.contains(rf"^{ending}(?: {ending})*$"),
        had_title=pl.col("straight").str.contains(titles),
        family_first=pl.col("locale").is_in(known["family_first"]) | pl.col("straight").str.contains(_FAMILY_FIRST),
    )  # fmt: skip
    frame = frame.with_columns(
        western=pl.col("core").str.extract_groups(rf"^(.+?) ({particles}\S+)$"),
        eastern=pl.col("core").str.extract_groups(r"^(\S+) (.+)$"),
        one=~pl.col("core").str.contains(" ", literal=True),
    )
    given = (
        pl.when("is_inverted").then("after").when(pl.col("one") & ~pl.col("had_title")).then("core").when("one").then(None)
        .when("family_first").then(pl.col("eastern").struct.field("2")).otherwise(pl.col("western").struct.field("1"))
    )  # fmt: skip
    family = (
        pl.when("is_inverted").then("before").when(pl.col("one") & pl.col("had_title")).then("core").when("one").then(None)
        .when("family_first").then(pl.col("eastern").struct.field("1")).otherwise(pl.col("western").struct.field("2"))
    )  # fmt: skip
    frame = frame.select(given.alias("given"), family.alias("family"), "full_suffix")
    is_joint = pl.col("given").str.contains(rf" {joint}(?: |$)|^{joint} ")
    return frame.with_columns(pl.when(is_joint.not_()).then("given").alias("given"))


def _assembled(said: pl.DataFrame) -> pl.DataFrame:
    known = vocabulary()
    suffixes = known["names"]["suffixes"]
    _, _, _, joint = _vocabulary()
    said = said.with_columns(
        given=pl.coalesce("first_name", "given").str.replace_all("[- ]+", " ").str.strip_chars(" "),
        family=pl.coalesce("last_name", "family").str.replace_all("[- ]+", " ").str.strip_chars(" "),
    )
    given, given_suffix = _stripped(pl.col("given"))
    family, family_suffix = _stripped(pl.col("family"))
    said = said.select(
        "middle_name", given=given, family=family,
        name_suffix=pl.coalesce(
            pl.col("name_suffix").str.extract(rf"(?:^| )({any_of(suffixes)})(?: |$)").replace(suffixes),
            family_suffix, "full_suffix", given_suffix,
        ),
        is_joint=given.str.contains(rf" {joint}(?: |$)"),
    )  # fmt: skip
    said = said.with_columns(
        "name_suffix",
        first_name=pl.when(~pl.col("is_joint")).then(pl.col("given").str.extract(r"^(\S+)")),
        middle_name=pl.coalesce(
            "middle_name", pl.when(~pl.col("is_joint")).then(pl.col("given").str.extract(r"^\S+ (.+)$"))
        ),
        last_name=pl.col("family"),
    )
    for name, kinds in _PLACEHOLDERS.items():
        said = without_placeholders(said, name, *kinds)
        said = said.with_columns(pl.when(pl.col(name).str.contains(r"\p{L}")).then(name).alias(name))
    alone = pl.col("first_name").is_null() & pl.col("last_name").is_in(known["placeholders"]["last_names_alone"])
    return said.select(
        "first_name", "middle_name", pl.when(alone.not_()).then("last_name").alias("last_name"), "name_suffix",
        pl.col("first_name").replace(given_roots()).alias("given_root"),
    )  # fmt: skip
