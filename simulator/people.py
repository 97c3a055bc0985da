"""The shoppers: households near stores, their tastes, what is written of them, and how they feel about privacy.

Everything a source could know of a person is fixed here once, typing errors included, so that the truth can list it.
Shoppers are known by number: below the count of people a person, above it a second account or card of one (`duplicates`).
"""

from dataclasses import dataclass

import numpy as np
import polars as pl

from simulator import duplicates, households, records
from simulator.duplicates import NEVER, Duplicates
from simulator.households import Households
from simulator.places import Places
from simulator.products import BRANDS, Products
from simulator.scale import Scale
from simulator.spelling import fractions, scatter

# Source, column of the key and kind of marks, by type of record.
RECORDS = {
    "account": ("ecommerce", "account_id", records.ACCOUNT), "member": ("loyalty", "member_id", records.FORM),
    "guest": ("ecommerce", "guest_email", records.GUEST), "relay": ("ecommerce", "relay_email", records.GUEST),
}  # fmt: skip


@dataclass(frozen=True)
class People:
    """Arrays by number, `activity` by person; `texts` holds what is printed. Days count from the first trading day, negative before it."""

    texts: pl.DataFrame
    addresses: pl.DataFrame
    at: dict[str, np.ndarray]  # "", "account_", "form_": the address each kind of record carries
    marks: np.ndarray  # kind of record x number: `records.DIFFERENCES`
    households: Households
    duplicates: Duplicates
    clerks: np.ndarray  # by place: a member who works at its tills
    home: np.ndarray  # nearest store
    second: np.ndarray  # second nearest
    activity: np.ndarray  # cumulative weights of being out shopping
    taste: np.ndarray  # number x category, sums to 1
    favourite: np.ndarray  # number x category: brand
    member_day: np.ndarray
    account_day: np.ndarray
    is_linked: np.ndarray  # card and account under one login
    is_verified: np.ndarray  # the account's e-mail
    typist: np.ndarray  # the number that first gave the e-mail this one gives
    has_gpc: np.ndarray
    wariness: np.ndarray  # 0 agrees to everything, 1 to nothing
    device_count: np.ndarray

    def __len__(self) -> int:
        """Persons; there are more numbers than that."""
        return len(self.activity)

    @property
    def numbers(self) -> int:
        return len(self.home)

    def text(self, column: str, number: np.ndarray) -> pl.Series:
        """One printed column for many numbers; a negative number is null."""
        place = np.maximum(number, 0)
        if column in self.texts.columns:
            found: pl.Series = self.texts[column][place]
        else:
            prefix, _, part = column.rpartition("_")
            found = self.addresses[part][self.at[prefix and prefix + "_"][place]]
        if len(number) and number.min() < 0:
            return pl.select(pl.when(pl.Series(number >= 0)).then(found)).to_series()
        return found

    def devices(self, number: np.ndarray, which: np.ndarray) -> pl.Series:
        """Installation ids of the devices each number uses: a second account may be on the first one's phone."""
        return device_ids(self.duplicates.device[number], which)


def device_ids(person: np.ndarray, which: np.ndarray) -> pl.Series:
    """Browser or app installation ids, `a` and 19 digits."""
    digits = pl.Series(scatter(77, np.asarray(person) * 4 + which) >> np.uint64(4)).cast(pl.String).str.zfill(19)
    return pl.select(pl.lit("a") + digits).to_series()


def settle(scale: Scale, places: Places, products: Products, seed: int) -> People:
    """People the retailer could meet: drawn household by household around the stores."""
    rng, names = np.random.default_rng([seed, 3]), np.random.default_rng([seed, 131])
    living = households.formed(rng, names, scale)
    homes = households.housed(rng, names, places, living)
    count, kinds = scale.people, len(products.categories)
    taste = rng.gamma(0.45, 1.0, (count, kinds)).astype(np.float32) + np.float32(1e-4)
    taste /= taste.sum(axis=1, keepdims=True)
    is_member = rng.random(count) < scale.member_share
    has_account = rng.random(count) < scale.account_share
    joins_now = rng.random(count) < 0.12  # during the simulated days
    member_day, account_day = (
        np.where(
            has, np.where(joins_now, rng.integers(1, max(2, scale.days), count), rng.integers(-900, 0, count)), NEVER
        )
        for has in (is_member, has_account)
    )
    activity = np.cumsum(rng.gamma(1.2, 1.0, count))
    favourite = rng.integers(0, BRANDS, (count, kinds)).astype(np.uint8)
    is_linked = is_member & has_account & (rng.random(count) < 0.55)
    has_gpc, wariness = rng.random(count) < 0.08, rng.beta(1.1, 1.1, count)
    device_count = rng.choice([1, 2, 3], count, p=[0.65, 0.27, 0.08]).astype(np.uint8)
    twice = duplicates.repeated(np.random.default_rng([seed, 132]), scale, account_day, member_day)
    person, second = twice.person, np.arange(len(twice)) >= count
    account_day = np.where(twice.owns_account & second, twice.since, account_day[person])
    # A card under the second account's guise opened with it.
    account_day = account_day[twice.account]
    member_day = np.where(twice.owns_card & second, twice.since, member_day[person])
    replaced = twice.unlinked_day[person] < NEVER
    told = records.written(np.random.default_rng([seed, 133]), scale, living, homes, twice, account_day, member_day)
    return People(
        texts=told.texts, addresses=homes.addresses, at=told.at, marks=told.marks, households=living, duplicates=twice,
        clerks=_clerks(len(places), homes.nearest, member_day[:count]), home=homes.nearest[person], second=homes.second[person], activity=activity, taste=taste[person], favourite=favourite[person],
        member_day=member_day.astype(np.int32), account_day=account_day.astype(np.int32),
        is_linked=is_linked[person] & (~second | (twice.owns_card & replaced)), is_verified=told.is_verified, typist=told.typist,
        has_gpc=has_gpc[person], wariness=wariness[person], device_count=device_count[person],
    )  # fmt: skip


def _clerks(places: int, home: np.ndarray, member_day: np.ndarray) -> np.ndarray:
    """The first old member who lives near each place; -1 where none does."""
    clerks = np.full(places, -1)
    members = np.flatnonzero(member_day < 0)[::-1]
    clerks[home[members]] = members
    return clerks


def identifiers(people: People, start: int, stop: int) -> pl.DataFrame:
    """The truth: which person stands behind each identifier, in every spelling that occurs. person_id, identifier_type, identifier."""
    number = np.arange(start, stop)
    found = _spellings(people, number)
    later = number[number >= len(people)]
    if len(later):  # what the person is known by already stands there
        person = np.unique(people.duplicates.person[later])
        known = _spellings(people, np.r_[person, people.duplicates.parent[later]])
        found = found.join(known, on=found.columns, how="anti", maintain_order="left")
    return found


def _spellings(people: People, number: np.ndarray) -> pl.DataFrame:
    texts = people.texts[number]
    parts = [
        texts.select("person_id", pl.lit(kind).alias("identifier_type"), pl.col(column).alias("identifier"))
        for kind, column in (
            ("email", "email"), ("email", "form_email"), ("email", "guest_email"), ("email", "relay_email"), ("phone", "phone"),
            ("phone", "form_phone"), ("phone", "guest_phone"), ("card", "card"), ("account", "account_id"), ("payment", "payment"),
        )
    ]  # fmt: skip
    for which in range(3):
        owners = number[people.device_count[number] > which]
        parts.append(
            pl.DataFrame(
                {
                    "person_id": people.texts["person_id"][owners],
                    "identifier_type": ["device"] * len(owners),
                    "identifier": people.devices(owners, np.full(len(owners), which)),
                }
            )
        )
    return pl.concat(parts).drop_nulls("identifier").unique(maintain_order=True)


def record_rows(people: People, number: np.ndarray, record_type: str) -> pl.DataFrame:
    """The truth: whom a source's records are about, and how they differ from what is so.

    `record_type` is account, member, guest, or relay (guests of a marketplace, who are guests as well). One row per record and
    person: an e-mail that two typed stands twice.
    """
    source, column, marks = RECORDS[record_type]
    person = people.duplicates.person[number]
    differences = people.marks[marks, number]
    if record_type == "relay":
        differences = differences & ~records.BIT["typo_email"] | records.BIT["relay_email"]
    frame = pl.DataFrame({
        "record_key": people.text(column, number), "card_number": people.text("card", number),
        "person_id": people.text("person_id", number),
        "household_id": households.household_ids(people.households.household[person]),
        "differences": records.differences(differences),
    })  # fmt: skip
    return frame.select(
        pl.lit(source).alias("source_name"), pl.lit("guest" if marks == records.GUEST else record_type).alias("record_type"),
        "record_key", pl.when(pl.lit(record_type == "member")).then("card_number").alias("card_number"), "person_id", "household_id",
        pl.lit(False).alias("is_test"), "differences",
    )  # fmt: skip


def tester_rows(account: pl.Series) -> pl.DataFrame:
    """The same of the shop's testers, who are nobody."""
    return pl.select(
        source_name=pl.lit("ecommerce"), record_type=pl.lit("account"), record_key=account.cast(pl.String),
        card_number=pl.lit(None, pl.String), person_id=pl.lit(None, pl.String), household_id=pl.lit(None, pl.String),
        is_test=pl.lit(True), differences=pl.lit([], pl.List(pl.String)),
    )  # fmt: skip


def tastes(people: People, products: Products, start: int, stop: int) -> pl.DataFrame:
    """The truth: what each person likes. One row per person and category: share of demand and favourite brand."""
    kinds, count = len(products.categories), stop - start
    brand = pl.Series([name for names in products.brands for name in names])
    flat = np.tile(np.arange(kinds), count) * BRANDS + people.favourite[start:stop].ravel()
    return pl.DataFrame(
        {
            "person_id": people.texts["person_id"][np.repeat(np.arange(start, stop), kinds)],
            "category_name": pl.Series(products.categories)[np.tile(np.arange(kinds), count)],
            "demand_share": people.taste[start:stop].ravel(),
            "favourite_brand_name": brand[flat],
        }
    )


def leans(people: People, person: np.ndarray, stream: int) -> np.ndarray:
    """A person's fixed inclination in [0, 1) for one question: the same whenever it is asked."""
    return fractions(stream, person)
