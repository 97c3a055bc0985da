"""What every field has in common: text made comparable, placeholders told from values, the vocabulary.

Nothing here knows what a field means. The words stand in `vocabulary.yml`.
"""

from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import polars as pl
import yaml

LONGEST = 300  # characters: longer than any name, e-mail (254, RFC 5321) or address line that a person writes
ONE_LETTER = "^(?:" + "|".join(f"{letter}{{3,}}" for letter in ascii_lowercase) + ")$"
_APOSTROPHES = "[\u2018\u2019\u201b\u02bc\u02b9\u2032`]"
# Letters that decompose into nothing simpler; what is left of them differs between writers.
_LETTERS = {"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "ħ": "h", "ı": "i", "ς": "σ"}  # fmt: skip
_EDGES = " \t<>()[]{}\"'.,;:-_*?!#=~|"


@lru_cache(maxsize=1)
def vocabulary() -> dict[str, Any]:
    """The file of words; every scalar is text, `no` and `123` too."""
    text = Path(__file__).with_name("vocabulary.yml").read_text(encoding="utf-8")
    loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)  # 10 ms against 200
    return dict(yaml.load(text, Loader=loader))  # noqa: S506  makes text, lists and mappings only


def placeholders(*kinds: str) -> list[str]:
    """The placeholders that hold anywhere, and those of these kinds."""
    known = vocabulary()["placeholders"]
    return sorted({word for kind in ("anywhere", *kinds) for word in known[kind]})


def any_of(words: Iterable[str]) -> str:
    """A pattern for these words of the vocabulary, longest first."""
    return "(?:" + "|".join(sorted(words, key=lambda word: (-len(word), word))) + ")"


def as_text(column: pl.Series) -> pl.Series:
    """A column as text: whole floats without their `.0`, times as ISO 8601, blank or too long as null."""
    if column.dtype.is_float():
        column = column.cast(pl.Int64, strict=False)
    text = column.cast(pl.String)
    if text.str.contains(r"[\p{Cc}\p{Zl}\p{Zp}\u00a0\u2000-\u200a\u202f\u205f\u3000]|^ | $|  ").any():
        text = text.str.replace_all(r"[\p{Cc}\p{Z}]+", " ").str.strip_chars(" ")
    return text.set((text == "") | (text.str.len_chars() > LONGEST), None)


def folded(text: pl.Expr) -> pl.Expr:
    """Lower case, one form of apostrophe, no accents, no invisible characters; letters of other scripts stay."""
    return (
        text.str.replace_all("\u00b4", "'", literal=True)  # would decompose into a blank and an accent
        .str.normalize("NFKD")
        .str.to_lowercase()
        .str.replace_all(_APOSTROPHES, "'")
        .str.replace_all(r"[\u0300-\u036f\p{Cf}\p{Co}\p{Cn}]", "")
        .str.replace_many(list(_LETTERS), list(_LETTERS.values()))
        .str.normalize("NFC")
    )


def words(text: pl.Expr, *, hyphened: bool = False) -> pl.Expr:
    """Folded text as words with one blank between: apostrophes closed up, all other punctuation parts words.

    With `hyphened` a hyphen between letters stays.
    """
    if hyphened:
        text = text.str.replace_all(r"\s+-+|-+\s+|^-+|-+$", " ")
    kept = "-" if hyphened else ""
    apart = text.str.replace_all("'", "").str.replace_all(rf"[^\p{{L}}\p{{M}}\p{{N}}{kept}]+", " ").str.strip_chars(" ")
    return apart.replace("", None)  # `text` once only: an expression that stands twice is worked out twice


def usable(frame: pl.DataFrame, name: str, *kinds: str) -> pl.DataFrame:
    """A frame with one column folded, null where it is a placeholder of these kinds."""
    return without_placeholders(frame.with_columns(folded(pl.col(name))), name, *kinds)


def without_placeholders(frame: pl.DataFrame, name: str, *kinds: str) -> pl.DataFrame:
    """A frame with one column of folded text null where it is a placeholder of these kinds."""
    bare = frame.select(pl.col(name).str.replace_all(" ", "", literal=True).str.strip_chars(_EDGES)).to_series()
    nothing = (bare == "") | bare.is_in(placeholders(*kinds)) | bare.str.contains(ONE_LETTER)
    return frame.with_columns(pl.when(~nothing).then(name).alias(name))


def by_unique(frame: pl.DataFrame, keys: list[str], make: Callable[[pl.DataFrame], pl.DataFrame]) -> pl.DataFrame:
    """What `make` gives for each row's keys, computed once for rows that agree on them. Same rows, same order."""
    distinct = frame.select(keys).unique()
    if distinct.height > 0.7 * frame.height:  # above, the join back costs more than it saves
        return make(frame.select(keys))
    made = make(distinct)
    renamed = {key: f"key_{key}" for key in keys}  # what is made may bear the name of what it is made from
    there = made.hstack(distinct.rename(renamed))
    joined = (
        frame.select(keys)
        .rename(renamed)
        .join(there, on=list(renamed.values()), how="left", nulls_equal=True, maintain_order="left")
    )
    return joined.select(made.columns)
