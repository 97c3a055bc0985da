"""The shoppers: households near stores, their names and contact points, their tastes, and how they feel about privacy.

Everything a source could know of a person is fixed here once, typing errors included, so that the truth can list it.
"""

from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import polars as pl

from simulator.places import NEAR_KM, Places, distance_km, postal_codes
from simulator.products import BRANDS, Products
from simulator.scale import Scale
from simulator.spelling import EPOCH, epoch_day, fractions, scatter

NEVER = 32_000  # a day that does not come
FIRST_NAMES = (
    "Maria", "James", "Aisha", "Wei", "Sofia", "Liam", "Olivia", "Noah", "Fatima", "Diego", "Hannah", "Ethan", "Priya", "Lucas", "Grace",
    "Omar", "Chloe", "Mateo", "Ingrid", "Samuel", "Yuki", "Nadia", "Peter", "Leila", "Marcus", "Elena", "Tomas", "Ruth", "Andre", "Zoe",
    "Henry", "Camila", "Victor", "Amara", "Joel", "Mei", "Oscar", "Tessa", "Rafael", "Nora", "Isaac", "Lucia", "Felix", "Anita", "Dmitri",
    "Clara", "Malik", "Rosa", "Simon", "Ayaan", "Beatriz", "Caleb", "Dahlia", "Emeka", "Freya", "Gael", "Hugo", "Imani", "Jonas", "Keiko",
)  # fmt: skip
LAST_NAMES = (
    "Garcia", "Smith", "Nguyen", "Johnson", "Patel", "Kim", "Lopez", "Brown", "Martinez", "Davis", "Khan", "Wilson", "Chen", "Anderson",
    "Rivera", "Taylor", "Okafor", "Moore", "Cohen", "Jackson", "Silva", "Lee", "Novak", "White", "Haddad", "Harris", "Ivanov", "Clark",
    "Lewis", "Walker", "Ramos", "Hall", "Young", "Torres", "King", "Wright", "Flores", "Green", "Adams", "Baker", "Nelson", "Mbeki",
    "Campbell", "Mitchell", "Roberts", "Carter", "Phillips", "Evans", "Turner", "Diaz", "Parker", "Cruz", "Edwards", "Collins", "Reyes",
    "Stewart", "Morris", "Morales", "Murphy", "Cook", "Rogers", "Ortiz", "Morgan", "Cooper", "Peterson", "Bailey", "Reed", "Kelly",
    "Howard", "Ward", "Cox", "Diallo", "Richardson", "Watson", "Brooks", "Chavez", "Wood", "James", "Bennett", "Gray", "Mendoza", "Ruiz",
    "Hughes", "Price", "Alvarez", "Castillo", "Sanders", "Myers", "Long", "Ross", "Foster", "Jimenez", "Lindqvist", "Yamada", "O'Brien",
)  # fmt: skip
STREETS = (
    "Main",
    "Oak",
    "Maple",
    "Cedar",
    "Elm",
    "Washington",
    "Lake",
    "Hill",
    "Walnut",
    "Park",
    "Sunset",
    "River",
    "Church",
    "Spring",
)
SUFFIXES = (("Street", "St"), ("Avenue", "Ave"), ("Road", "Rd"), ("Lane", "Ln"))
MAIL_HOSTS = ("example.com", "example.org", "example.net", "mail.example.com")
# North American area codes with a 9 in the middle are reserved: no such phone rings anywhere.
AREA_CODES = tuple(str(code) for first in range(2, 10) for code in range(first * 100 + 90, first * 100 + 100))


@dataclass(frozen=True)
class People:
    """Arrays by person; `texts` holds what is printed. Days count from the first trading day, negative before it."""

    texts: pl.DataFrame
    household: np.ndarray
    home: np.ndarray  # nearest store
    second: np.ndarray  # second nearest
    activity: np.ndarray  # cumulative weights of being out shopping
    taste: np.ndarray  # person x category, sums to 1
    favourite: np.ndarray  # person x category: brand
    member_day: np.ndarray
    account_day: np.ndarray
    is_linked: np.ndarray  # card and account under one login
    has_gpc: np.ndarray
    wariness: np.ndarray  # 0 agrees to everything, 1 to nothing
    device_count: np.ndarray
    shares_email: np.ndarray

    def __len__(self) -> int:
        return len(self.home)

    def text(self, column: str, person: np.ndarray) -> pl.Series:
        """One printed column for many persons; a negative person is null."""
        found: pl.Series = self.texts[column][np.maximum(person, 0)]
        if len(person) and person.min() < 0:
            return pl.select(pl.when(pl.Series(person >= 0)).then(found)).to_series()
        return found


def device_ids(person: np.ndarray, which: np.ndarray) -> pl.Series:
    """Browser or app installation ids, `a` and 19 digits."""
    digits = pl.Series(scatter(77, np.asarray(person) * 4 + which) >> np.uint64(4)).cast(pl.String).str.zfill(19)
    return pl.select(pl.lit("a") + digits).to_series()


def settle(scale: Scale, places: Places, products: Products, seed: int) -> People:
    """People the retailer could meet: drawn household by household around the stores."""
    rng = np.random.default_rng([seed, 3])
    household, size = _households(rng, scale.people)
    towns, home, second = _homes(rng, places, household)
    count, kinds = scale.people, len(products.categories)
    taste = rng.gamma(0.45, 1.0, (count, kinds)).astype(np.float32) + np.float32(1e-4)
    taste /= taste.sum(axis=1, keepdims=True)
    is_member = rng.random(count) < scale.member_share
    has_account = rng.random(count) < scale.account_share
    joins_now = rng.random(count) < 0.12  # during the simulated days
    sharing: np.ndarray = np.less(rng.random(len(size)), scale.shared_email_rate)
    shares_email = sharing[household] & (size[household] > 1)
    day = np.where(joins_now, rng.integers(1, max(2, scale.days), count), rng.integers(-900, 0, count))
    account_day = np.where(joins_now, rng.integers(1, max(2, scale.days), count), rng.integers(-900, 0, count))
    return People(
        texts=_texts(rng, scale, towns, household, size, shares_email, is_member, has_account),
        household=household, home=home, second=second,
        activity=np.cumsum(rng.gamma(1.2, 1.0, count)),
        taste=taste, favourite=rng.integers(0, BRANDS, (count, kinds)).astype(np.uint8),
        member_day=np.where(is_member, day, NEVER).astype(np.int32),
        account_day=np.where(has_account, account_day, NEVER).astype(np.int32),
        is_linked=is_member & has_account & (rng.random(count) < 0.55),
        has_gpc=rng.random(count) < 0.08, wariness=rng.beta(1.1, 1.1, count),
        device_count=rng.choice([1, 2, 3], count, p=[0.65, 0.27, 0.08]).astype(np.uint8),
        shares_email=shares_email,
    )  # fmt: skip


def _households(rng: np.random.Generator, people: int) -> tuple[np.ndarray, np.ndarray]:
    """Household of each person, and the size of each household."""
    sizes = rng.choice([1, 2, 3, 4], people, p=[0.40, 0.34, 0.14, 0.12])
    used = int(np.searchsorted(np.cumsum(sizes), people)) + 1
    household = np.repeat(np.arange(used), sizes[:used])[:people]
    return household, np.bincount(household, minlength=used)


def _homes(
    rng: np.random.Generator, places: Places, household: np.ndarray
) -> tuple[pl.DataFrame, np.ndarray, np.ndarray]:
    """Town of each household, thinning out with distance from a store, and each person's two nearest stores."""
    towns = postal_codes()
    latitude, longitude = towns["latitude"].to_numpy(), towns["longitude"].to_numpy()
    first = places.centers
    stores = len(places) - first
    pull = rng.lognormal(0.0, 0.35, stores)
    of_store = rng.choice(stores, household[-1] + 1, p=pull / pull.sum())
    town = np.empty(len(of_store), np.int64)
    far = distance_km(places.latitude[first:], places.longitude[first:], latitude, longitude)
    for store in range(stores):
        near = np.flatnonzero(far[store] < NEAR_KM)
        likely = np.exp(-far[store, near] / 12.0)
        here = np.flatnonzero(of_store == store)
        town[here] = rng.choice(near, len(here), p=likely / likely.sum())
    used, place = np.unique(town, return_inverse=True)
    nearest = np.argsort(far[:, used], axis=0, kind="stable")[:2]
    second = nearest[1] if stores > 1 else nearest[0]
    home_town = place[household]
    return (
        towns[town[household]],
        (nearest[0][home_town] + first).astype(np.int32),
        (second[home_town] + first).astype(np.int32),
    )


def _texts(
    rng: np.random.Generator, scale: Scale, towns: pl.DataFrame, household: np.ndarray, size: np.ndarray,
    shares_email: np.ndarray, is_member: np.ndarray, has_account: np.ndarray,
) -> pl.DataFrame:  # fmt: skip
    """What is printed of each person: as registered with the shop, as written on the loyalty form, as typed by a guest."""
    count, homes = len(household), len(size)
    person = np.arange(count)
    head = np.r_[0, np.cumsum(size)[:-1]][household]  # first person of the household
    number = pl.Series(person)
    first = pl.Series(FIRST_NAMES)[rng.integers(0, len(FIRST_NAMES), count)]
    family = rng.integers(0, len(LAST_NAMES), homes)[household]
    last = pl.Series(LAST_NAMES)[np.where(rng.random(count) < 0.9, family, rng.integers(0, len(LAST_NAMES), count))]
    host = pl.Series(MAIL_HOSTS)[rng.choice(len(MAIL_HOSTS), count, p=[0.55, 0.2, 0.15, 0.1])]
    own_email = pl.select(
        pl.concat_str(
            [first, pl.lit("."), last.str.replace("'", "", literal=True), number.cast(pl.String), pl.lit("@"), host]
        ).str.to_lowercase()
    ).to_series()
    email = own_email[np.where(shares_email, head, person)]
    suffix = rng.integers(0, len(SUFFIXES), homes)[household]
    house = pl.Series(rng.integers(1, 9_800, homes)[household]).cast(pl.String)
    street = pl.Series(STREETS)[rng.integers(0, len(STREETS), homes)[household]]
    long_way, short_way = (pl.Series([s[n] for s in SUFFIXES])[suffix] for n in (0, 1))
    line = np.where((rng.random(homes) < 0.3)[household], head, person)  # one line for the whole house
    area = pl.Series(AREA_CODES)[line % len(AREA_CODES)]
    exchange = pl.Series(200 + line // 80 % 800).cast(pl.String)
    rest = pl.Series(1000 + (line // 64_000 * 37 + scatter(5, line % 80) % np.uint64(37)).astype(np.int64)).cast(
        pl.String
    )
    born = epoch_day(scale.first_day) - rng.integers(18 * 365, 85 * 365, count)
    form_first, form_last = _mistyped(rng, first, scale.typo_rate / 2), _mistyped(rng, last, scale.typo_rate / 2)
    return pl.DataFrame({
        "person_id": "P" + number.cast(pl.String).str.zfill(7),
        "first_name": first, "last_name": last, "email": email,
        "phone": pl.select(pl.concat_str([pl.lit("+1"), area, exchange, rest])).to_series(),
        "street": pl.select(pl.concat_str([house, street, long_way], separator=" ")).to_series(),
        "city": towns["city"], "region": towns["state"], "postal": towns["zip"],
        "form_first_name": form_first, "form_last_name": form_last,
        "form_email": _mistyped(rng, pl.select(pl.when(pl.Series(rng.random(count) < 0.1)).then(email.str.to_uppercase()).otherwise(email)).to_series(), scale.typo_rate),
        "form_phone": pl.select(pl.concat_str([pl.lit("("), area, pl.lit(") "), exchange, pl.lit("-"), rest])).to_series(),
        "form_street": _mistyped(rng, pl.select(pl.concat_str([house, street, short_way], separator=" ")).to_series(), scale.typo_rate),
        "guest_email": _mistyped(rng, email, scale.typo_rate),
        "guest_phone": pl.select(pl.concat_str([area, exchange, rest], separator="-")).to_series(),
        "birth_date": pl.Series([EPOCH + timedelta(int(d)) for d in born], dtype=pl.Date) if count < 50_000 else pl.Series(born, dtype=pl.Int32).cast(pl.Date),
        "card": pl.Series(is_member).replace_strict({True: "6009", False: None}, return_dtype=pl.String) + _permuted(person, 7_919, 12),
        "member_id": pl.Series(is_member).replace_strict({True: "M", False: None}, return_dtype=pl.String) + _permuted(person, 104_729, 9),
        "account_id": pl.select(pl.when(pl.Series(has_account)).then(pl.Series(6_900_000_000_000 + person * 7).cast(pl.String))).to_series(),
        "payment": pl.select(pl.lit("tok_") + pl.Series(scatter(11, person)).cast(pl.String)).to_series(),
        "relay_email": pl.select(pl.concat_str([pl.lit("b"), pl.Series(scatter(13, person)).cast(pl.String), pl.lit("@relay.bazaar.example")])).to_series(),
    })  # fmt: skip


def _permuted(number: np.ndarray, factor: int, digits: int) -> pl.Series:
    """Numbers spread over the range without meeting: a factor prime to ten is a bijection modulo a power of ten."""
    return pl.Series((number * factor + 12_345) % 10**digits).cast(pl.String).str.zfill(digits)


def _mistyped(rng: np.random.Generator, text: pl.Series, rate: float) -> pl.Series:
    """A share of the texts with two neighbouring characters exchanged, the first one left alone."""
    hit = np.flatnonzero(rng.random(len(text)) < rate)
    words = text[hit]
    at = pl.Series(1 + rng.integers(0, 6, len(hit)))
    swapped = pl.select(
        pl.when(words.str.len_chars() > at + 2)
        .then(
            pl.concat_str(
                [
                    words.str.slice(pl.lit(0), at),
                    words.str.slice(at + 1, 1),
                    words.str.slice(at, 1),
                    words.str.slice(at + 2),
                ]
            )
        )
        .otherwise(words)
    ).to_series()
    return text.scatter(hit, swapped)


def identifiers(people: People, start: int, stop: int) -> pl.DataFrame:
    """The truth: which person stands behind each identifier, in every spelling that occurs. person_id, identifier_type, identifier."""
    texts = people.texts[start:stop]
    parts = [
        texts.select("person_id", pl.lit(kind).alias("identifier_type"), pl.col(column).alias("identifier"))
        for kind, column in (
            ("email", "email"), ("email", "form_email"), ("email", "guest_email"), ("email", "relay_email"), ("phone", "phone"),
            ("phone", "form_phone"), ("phone", "guest_phone"), ("card", "card"), ("account", "account_id"), ("payment", "payment"),
        )
    ]  # fmt: skip
    for which in range(3):
        owners = start + np.flatnonzero(people.device_count[start:stop] > which)
        parts.append(
            pl.DataFrame(
                {
                    "person_id": people.texts["person_id"][owners],
                    "identifier_type": ["device"] * len(owners),
                    "identifier": device_ids(owners, np.full(len(owners), which)),
                }
            )
        )
    return pl.concat(parts).drop_nulls("identifier").unique(maintain_order=True)


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
