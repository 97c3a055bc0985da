"""Names of people: whole names taken apart, titles dropped, short forms given their long one."""

from functools import lru_cache

import polars as pl

from models.identity.normalise.spelling import any_of, by_unique, folded, usable, vocabulary, words

INPUTS = ["first_name", "middle_name", "last_name", "name_suffix", "full_name", "locale"]
OUTPUTS = ["first_name", "middle_name", "last_name", "name_suffix", "given_root"]
_ASIDE = r"\([^)]*\)|\"[^\"]*\"|[“«][^”»]*[”»]"  # Robert (Bob) Smith
_NO_FOLD = r"\p{Han}|\p{Hangul}|\p{Hiragana}|\p{Katakana}"  # scripts in which the family name comes first


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
    return {short: roots.get(long, long) for short, long in roots.items()}


def parsed(frame: pl.DataFrame) -> pl.DataFrame:
    """Names as compared, one row per row; input and output columns as `INPUTS` and `OUTPUTS` say."""
    whole = frame.select("full_name", "locale")
    direct = ["first_name", "middle_name", "last_name", "name_suffix"]
    if whole["full_name"].null_count() < whole.height:
        split = by_unique(whole, whole.columns, _split)
    else:
        split = pl.DataFrame({name: whole["full_name"] for name in ("given", "family", "full_suffix")})
    said = pl.concat([by_unique(frame, [name], _words) for name in direct], how="horizontal")
    return _assembled(said.hstack(split))


def _words(column: pl.DataFrame) -> pl.DataFrame:
    (name,) = column.columns
    kinds = {"first_name": ["first_names"], "last_name": []}.get(name, ["first_names", "not_in_names"])
    return column.select(words(_one_line(usable(folded(pl.col(name)), "names", *kinds))))


def _one_line(text: pl.Expr) -> pl.Expr:
    without = text.str.replace_all(_ASIDE, " ")
    text = pl.when(without.str.contains(r"\p{L}")).then(without).otherwise(text)
    return text.str.replace_all("[&+]", " and ")


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
    text = _one_line(usable(folded(pl.col("full_name")), "names", "not_in_names", "first_names"))
    frame = frame.with_columns(
        before=words(text.str.extract("^([^,]*),")), after=words(text.str.extract("^[^,]*,(.*)$")),
        straight=words(text, hyphened=True),
    )  # fmt: skip
    is_inverted = pl.col("before").is_not_null() & ~pl.col("after").str.contains(rf"^{ending}(?: {ending})*$")
    core, suffix = _stripped(pl.col("straight"))
    frame = frame.with_columns(
        core=core, full_suffix=suffix, is_inverted=is_inverted.fill_null(value=False),
        had_title=pl.col("straight").str.contains(titles),
        family_first=pl.col("locale").is_in(known["family_first"]) | pl.col("straight").str.contains(_NO_FOLD),
    )  # fmt: skip
    western = pl.col("core").str.extract_groups(rf"^(.+?) ({particles}\S+)$")
    eastern = pl.col("core").str.extract_groups(r"^(\S+) (.+)$")
    swapped = pl.col("family_first").fill_null(value=False)
    one = ~pl.col("core").str.contains(" ", literal=True)
    given = (
        pl.when("is_inverted").then("after").when(one).then(pl.when(~pl.col("had_title")).then("core"))
        .when(swapped).then(eastern.struct.field("2")).otherwise(western.struct.field("1"))
    )  # fmt: skip
    family = (
        pl.when("is_inverted").then("before").when(one).then(pl.when("had_title").then("core"))
        .when(swapped).then(eastern.struct.field("1")).otherwise(western.struct.field("2"))
    )  # fmt: skip
    frame = frame.select(given.alias("given"), family.alias("family"), "full_suffix")
    is_joint = pl.col("given").str.contains(rf" {joint}(?: |$)|^{joint} ")
    return frame.with_columns(pl.when(is_joint.not_()).then("given").alias("given"))


def _assembled(said: pl.DataFrame) -> pl.DataFrame:
    known = vocabulary()
    _, _, _, joint = _vocabulary()
    given, given_suffix = _stripped(pl.coalesce("first_name", "given").str.replace_all("-", " ", literal=True))
    family, family_suffix = _stripped(pl.coalesce("last_name", "family").str.replace_all("-", " ", literal=True))
    said = said.select(
        given=given, family=family, middle="middle_name",
        suffix=pl.coalesce(
            pl.col("name_suffix").str.extract(rf"(?:^| )({any_of(known['names']['suffixes'])})(?: |$)").replace(known["names"]["suffixes"]),
            family_suffix, "full_suffix", given_suffix,
        ),
    )  # fmt: skip
    not_names = known["placeholders"]
    first = pl.col("given").str.extract(r"^(\S+)")
    two_people = pl.col("given").str.contains(rf" {joint}(?: |$)")
    first = pl.when(
        two_people.not_() & first.str.contains(r"\p{L}") & ~first.is_in(not_names["first_names"] + not_names["names"])
    ).then(first)
    said = said.with_columns(
        first_name=first, rest=pl.when(two_people.not_()).then(pl.col("given").str.extract(r"^\S+ (.+)$"))
    )
    alone = pl.col("first_name").is_null() & pl.col("family").is_in(not_names["last_names_alone"])
    last = pl.col("family")
    return said.select(
        "first_name",
        pl.when(pl.coalesce("middle", "rest").str.contains(r"\p{L}"))
        .then(pl.coalesce("middle", "rest"))
        .alias("middle_name"),
        pl.when(last.str.contains(r"\p{L}") & ~alone & ~last.is_in(not_names["names"])).then(last).alias("last_name"),
        pl.col("suffix").alias("name_suffix"),
        pl.col("first_name").replace(given_roots()).alias("given_root"),
    )
