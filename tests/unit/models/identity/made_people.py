"""People made up for tests: couples who share what couples share, each person in one to three records with slips of the pen."""

from random import Random
from typing import Any

import polars as pl

FIRST = [
    "anna",
    "bela",
    "carl",
    "dora",
    "emil",
    "fanni",
    "gabor",
    "hanna",
    "istvan",
    "julia",
    "karl",
    "lena",
    "mark",
    "nora",
    "otto",
    "petra",
    "quentin",
    "rosa",
    "stefan",
    "teresa",
    "ulrich",
    "vera",
    "walter",
    "xenia",
    "yannick",
    "zoe",
]
ROOTS = {"anna": "ann", "karl": "charles", "carl": "charles", "lena": "helen"}
SYLLABLES = [
    "bar",
    "den",
    "fal",
    "gor",
    "hin",
    "jan",
    "kel",
    "lor",
    "mun",
    "nis",
    "per",
    "quin",
    "ros",
    "sal",
    "tor",
    "und",
    "ver",
    "wes",
    "yar",
    "zim",
]
STREETS = ["n main st", "oak ave", "mill rd", "church ln", "harbor blvd", "kossuth ut", "lindenweg", "rue basse"]
TOWNS = (("troy", "12180"), ("ithaca", "14850"), ("cairo", "12413"), ("athens", "12015"), ("utica", "13501"))
COLUMNS = (
    "first_name", "given_root", "last_name", "email", "email_local", "phone", "birth_date", "house_number", "street_name",
    "postal_code", "city", "payment",
)  # fmt: skip
SCHEMA = {"record_id": pl.String, "person": pl.Int64, **dict.fromkeys(COLUMNS, pl.String)}
Row = dict[str, Any]


def frame(rows: list[Row]) -> pl.DataFrame:
    """Records as compared; what a row leaves out is missing."""
    return pl.DataFrame([_followed(dict.fromkeys(SCHEMA) | row) for row in rows], schema=SCHEMA)


def _followed(row: Row) -> Row:
    """What follows from what was said, where the row does not say otherwise."""
    first, email = row["first_name"], row["email"]
    row["given_root"] = row["given_root"] or (ROOTS.get(first, first) if first else None)
    row["email_local"] = row["email_local"] or (email.split("@")[0].replace(".", "") if email else None)
    return row


def person(number: int, seed: int = 0) -> Row:
    """Person 2n and 2n+1 live together."""
    home, own = Random(f"home {seed} {number // 2}"), Random(f"own {seed} {number}")
    last = "".join(home.choices(SYLLABLES, k=3))
    if own.random() < 0.1:
        last = "".join(own.choices(SYLLABLES, k=3))
    first, (town, code) = own.choice(FIRST), home.choice(TOWNS)
    mobile, landline = f"+1518{own.randrange(10**7):07}", f"+1607{home.randrange(10**7):07}"
    return {
        "person": number, "first_name": first, "last_name": last, "email": f"{first}.{last}{own.randrange(100)}@example.org",
        "phone": landline if own.random() < 0.3 else mobile, "house_number": str(home.randrange(1, 400)),
        "birth_date": f"{own.randrange(1940, 2006)}-{own.randrange(1, 13):02}-{own.randrange(1, 29):02}",
        "street_name": home.choice(STREETS), "postal_code": code, "city": town, "payment": f"pay_{home.randrange(10**9)}",
    }  # fmt: skip


def written(who: Row, record_id: str, random: Random) -> Row:
    """A record of a person: something missing, something mistyped, something else."""
    row = {**who, "record_id": record_id}
    for name in ("email", "phone", "birth_date", "payment"):
        if random.random() < 0.25:
            row[name] = None
    for name in ("first_name", "last_name", "email", "phone", "birth_date", "street_name"):
        if row[name] and random.random() < 0.08:
            row[name] = mistyped(row[name], random)
    if random.random() < 0.1:
        row |= {"house_number": str(random.randrange(1, 400)), "street_name": random.choice(STREETS)}
    return row


def mistyped(word: str, random: Random) -> str:
    """One letter exchanged with its neighbour, left out or replaced."""
    at = random.randrange(len(word) - 1)
    letter = random.choice("0123456789" if word[at].isdigit() else "aeinrst")
    exchanged = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    return random.choice((exchanged, word[:at] + word[at + 1 :], word[:at] + letter + word[at + 1 :]))


def records(people: int, seed: int = 0) -> pl.DataFrame:
    """About 1.7 records a person, in no order."""
    random = Random(f"records {seed}")
    rows = [
        written(person(number, seed), f"r{number:05}_{copy}", random)
        for number in range(people)
        for copy in range(random.choice((1, 1, 2, 2, 3)))
    ]
    random.shuffle(rows)
    return frame(rows)
