"""What sources said about people, spelled so that the same is equal and nothing said is null.

One home for what counts as said: linking compares these columns and nothing else. How each field is read stands in
`names`, `contacts`, `places` and `dates`; the words, placeholders among them, in `vocabulary.yml`.
"""

from datetime import date

import polars as pl

from models.errors import ModelsError
from models.identity.normalise import contacts, dates, names, places
from models.identity.normalise.spelling import as_text

INPUTS = (
    "first_name", "middle_name", "last_name", "name_suffix", "full_name", "email", "phone", "birth_date", "street_address",
    "house_number", "street_name", "unit", "city", "region_code", "postal_code", "country_code",
)  # fmt: skip
OUTPUTS = (
    "first_name", "middle_name", "last_name", "name_suffix", "given_root", "email", "email_local", "email_domain", "phone",
    "birth_date", "house_number", "street_name", "unit", "city", "region_code", "postal_code", "country_code",
)  # fmt: skip

__all__ = ["INPUTS", "OUTPUTS", "normalised"]


def normalised(records: pl.DataFrame, country: str = "US", *, today: date | None = None) -> pl.DataFrame:
    """Records as compared: `record_id`, then `OUTPUTS`, one row per record in the same order.

    Takes `record_id` and any of `INPUTS`; other columns are left out, missing ones count as null. Where `country_code` is
    null, phones, addresses and dates are read as in `country`. Births after `today` are impossible.
    Raises: ModelsError when `record_id` is missing, null or repeated, or `country` is no ISO 3166 alpha-2 code.
    """
    _check(records, country)
    nothing = pl.repeat(None, records.height, dtype=pl.String, eager=True)
    said = pl.DataFrame({name: as_text(records[name]) if name in records.columns else nothing for name in INPUTS})
    said = said.with_columns(places.country_codes(pl.col("country_code")).alias("country_code"))
    said = said.with_columns(pl.col("country_code").fill_null(country).alias("locale"))
    made = pl.concat(
        [
            records.select("record_id"),
            said.select("country_code"),
            names.parsed(said.select(names.INPUTS)),
            contacts.email_addresses(said.select("email")),
            contacts.phone_numbers(said.select("phone", "locale")),
            dates.birth_dates(said.select("birth_date", "locale"), today),
            places.parsed(said.select(places.INPUTS)),
        ],
        how="horizontal",
    )
    return made.select("record_id", *OUTPUTS)


def _check(records: pl.DataFrame, country: str) -> None:
    if "record_id" not in records.columns:
        raise ModelsError("records: expected a column record_id, found none of that name. Name each record.")
    repeated = records.height - records["record_id"].n_unique()
    if repeated or records["record_id"].null_count():
        raise ModelsError(
            f"records: expected a record_id for each that no other has, found {repeated} repeated and "
            f"{records['record_id'].null_count()} missing. Give every record an id of its own."
        )
    if not (len(country) == 2 and country.isascii() and country.isalpha() and country.isupper()):
        raise ModelsError(
            "country: expected two capital letters of ISO 3166, found something else. Hand in one such as US."
        )
