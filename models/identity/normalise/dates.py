"""Dates of birth, in the spellings that forms and exports use, read by the order of day and month of the place."""

from datetime import date

import polars as pl

from models.identity.normalise.spelling import by_unique, folded, vocabulary

_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]


def birth_dates(frame: pl.DataFrame, today: date | None) -> pl.DataFrame:
    """`birth_date` as a date, of text columns `birth_date` and `locale`; null when impossible or a placeholder.

    Impossible: no such day, before 1900, after `today` (2100 without). Two-digit years name no century: null.
    """
    return by_unique(frame, ["birth_date", "locale"], lambda part: _read(part, today))


def _read(frame: pl.DataFrame, today: date | None) -> pl.DataFrame:
    known = vocabulary()
    text = folded(pl.col("birth_date")).str.replace(r"[t ][0-9]{1,2}:[0-9]{2}.*$", "").str.strip_chars(" .,")
    year_first = text.str.extract_groups(r"^([0-9]{4})[-/. ]?([0-9]{2})[-/. ]?([0-9]{2})$")
    loose = text.str.extract_groups(r"^([0-9]{4})[-/.] ?([0-9]{1,2})[-/.] ?([0-9]{1,2})$")
    numbers = text.str.extract_groups(r"^([0-9]{1,2})([-/. ]) ?([0-9]{1,2})[-/. ] ?([0-9]{4})$")
    month = (
        text.str.extract(r"(\p{L}{3,4})")
        .replace(known["dates"]["months"])
        .str.slice(0, 3)
        .replace(known["dates"]["months"])
    )
    month_number = month.replace_strict(
        _MONTHS, [f"{n:02}" for n in range(1, 13)], default=None, return_dtype=pl.String
    )
    worded = (
        text.str.replace(r"\p{L}{3,}", " ")
        .str.replace_all(r"\b([0-9]{1,2})(?:st|nd|rd|th)\b", "$1")
        .str.replace_all("[^0-9]+", " ")
    )
    day_of_word = worded.str.extract_groups(r"^ ?([0-9]{1,2}) ([0-9]{4})$")
    a, b = numbers.struct.field("1"), numbers.struct.field("3")
    a_number, b_number = a.cast(pl.Int32), b.cast(pl.Int32)
    month_leads = pl.col("locale").is_in(known["dates"]["month_first"]).fill_null(value=False) & (
        numbers.struct.field("2") != "."
    )
    unclear = (
        pl.col("locale").is_in(known["dates"]["either_way"]).fill_null(value=False)
        & (numbers.struct.field("2") != ".") & (a_number <= 12) & (b_number <= 12) & (a_number != b_number)
    )  # fmt: skip
    month_leads = (month_leads & (a_number <= 12)) | (b_number > 12)
    by_place = _iso(
        numbers.struct.field("4"), pl.when(month_leads).then(a).otherwise(b), pl.when(month_leads).then(b).otherwise(a)
    )
    read = pl.coalesce(
        _iso(*(year_first.struct.field(n) for n in "123")),
        _iso(*(loose.struct.field(n) for n in "123")),
        pl.when(unclear.not_()).then(by_place),
        _iso(day_of_word.struct.field("2"), month_number, day_of_word.struct.field("1")),
    )
    last = date(2100, 1, 1) if today is None else today
    nobody = [date.fromisoformat(day) for day in known["placeholders"]["birth_dates"]]
    frame = frame.select(read.alias("birth_date"))
    return frame.select(
        pl.when(pl.col("birth_date").is_between(date(1900, 1, 1), last) & ~pl.col("birth_date").is_in(nobody)).then(
            "birth_date"
        )
    )


def _iso(year: pl.Expr, month: pl.Expr, day: pl.Expr) -> pl.Expr:
    return pl.concat_str([year, month.str.zfill(2), day.str.zfill(2)], separator="-").str.to_date(
        "%Y-%m-%d", strict=False
    )
