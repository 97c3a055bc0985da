"""What is written down of people: on the account, on the loyalty form, by guests; each with the ways it differs from the truth.

A difference is a bit in the marks of a record, so that the truth can name them. Who people are is decided in `households`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from simulator.duplicates import NEVER, Duplicates
from simulator.households import HALL, HOUSEMATES, Homes, Households, person_ids
from simulator.names import FIRST_NAMES, LAST_NAMES, drawn, short_forms
from simulator.scale import Scale
from simulator.spelling import scatter

MAIL_HOSTS = ("example.com", "example.org", "example.net", "mail.example.com")
# North American area codes with a 9 in the middle are reserved: no such phone rings anywhere.
AREA_CODES = tuple(str(code) for first in range(2, 10) for code in range(first * 100 + 90, first * 100 + 100))
COLLEAGUES = 25  # people who give the same number at work
PLACEHOLDERS = {
    "email": ("noemail@example.com", "none@example.com", "n/a"),
    "phone": ("000-000-0000", "(000) 000-0000", "n/a"),
    "street": ("n/a", "unknown"),
}
NOBODYS_BIRTHDAY = -25_567  # 1900-01-01
DIFFERENCES = (
    "nickname", "initial", "swapped_names", "name_suffix", "former_last_name", "former_address", "typo_name", "typo_email", "typo_street",
    "work_phone", "missing_email", "missing_phone", "missing_birth_date", "wrong_birth_date",
    "placeholder_email", "placeholder_phone", "placeholder_street", "placeholder_birth_date",
    "duplicate_account", "duplicate_membership", "second_email", "unverified_email", "relay_email",
    "shared_email", "shared_phone", "shared_payment", "namesake", "twin", "housemates", "hall",
)  # fmt: skip
BIT = {name: np.uint32(1 << place) for place, name in enumerate(DIFFERENCES)}
ACCOUNT, FORM, GUEST = range(3)


@dataclass(frozen=True)
class Written:
    """Texts by number; `at` says which address each kind of record carries; `marks` (3 kinds of record x number) how they differ."""

    texts: pl.DataFrame
    at: dict[str, np.ndarray]
    marks: np.ndarray
    is_verified: np.ndarray
    typist: np.ndarray  # the number that first gave the e-mail this one gives


class _Pen:
    """Columns being written, and the marks that go with each stroke."""

    def __init__(self, count: int) -> None:
        self.columns: dict[str, pl.Series] = {}
        self.marks = np.zeros((3, count), np.uint32)

    def write(self, record: int, mark: str, column: str, where: np.ndarray, text: pl.Series | str | None) -> None:
        """Put a text in a column at some numbers; what stays the same there is no difference."""
        now = self.columns[column]
        new = (
            pl.Series([text], dtype=pl.String).new_from_index(0, len(where))
            if not isinstance(text, pl.Series)
            else text
        )
        differs = now[where].ne_missing(new).to_numpy()
        self.columns[column] = now.clone().scatter(where, new)  # scatter changes what it is called on
        self.mark(record, mark, where[differs])

    def mark(self, record: int, mark: str, where: np.ndarray) -> None:
        self.marks[record, where] |= BIT[mark]

    def clear(self, record: int, marks: Sequence[str], where: np.ndarray) -> None:
        """These differences are written over."""
        for mark in marks:
            self.marks[record, where] &= ~BIT.get(mark, np.uint32(0))


def written(
    rng: np.random.Generator, scale: Scale, people: Households, homes: Homes, twice: Duplicates, account_day: np.ndarray,
    member_day: np.ndarray,
) -> Written:  # fmt: skip
    """Everything that is written of anyone, once and for all. Days are by number."""
    person, count = twice.person, len(twice)
    pen = _Pen(count)
    first = pl.Series(FIRST_NAMES)[people.first[person]]
    last = people.last_names[people.last[person]]
    is_second = np.arange(count) >= len(people.head)
    # The earlier of account and form was written under the former name, from the former address.
    early_account = ~is_second & (account_day <= member_day)
    early_form = ~is_second & ~early_account
    email, is_verified, typist = _emails(rng, pen, people, twice, first, last)
    phone, guest_phone, form_phone = _phones(people, person)
    pen.columns = {
        "account_first_name": first, "account_last_name": last, "form_first_name": first, "form_last_name": last,
        "form_email": email, "form_phone": form_phone, "guest_email": email,
        "form_street": homes.addresses["short_street"][homes.lives_at[person]],
    }  # fmt: skip
    at = _moves(rng, scale, pen, homes, person, early_account, early_form)
    _names(rng, scale, pen, people, person, early_account, early_form)
    born = _birth_dates(rng, scale, pen, people.born[person])
    _form_contacts(rng, scale, pen)
    for record, column, mark, rate in (
        (FORM, "form_first_name", "typo_name", scale.typo_rate / 2), (FORM, "form_last_name", "typo_name", scale.typo_rate / 2),
        (FORM, "form_email", "typo_email", scale.typo_rate), (FORM, "form_street", "typo_street", scale.typo_rate),
        (GUEST, "guest_email", "typo_email", scale.typo_rate),
    ):  # fmt: skip
        hit = np.flatnonzero(rng.random(count) < rate)
        pen.write(record, mark, column, hit, mistyped(rng, pen.columns[column][hit]))
    pen.columns["guest_email"], pen.marks[GUEST] = pen.columns["guest_email"][typist], pen.marks[GUEST, typist]
    _lazy_clerks(rng, scale, pen, born)
    _mark_persons(pen, people, twice)
    has_card, has_account = pl.Series(member_day < NEVER), pl.Series(account_day < NEVER)
    texts = pl.select(
        person_id=person_ids(person), first_name=first, last_name=last, email=email, phone=phone, guest_phone=guest_phone,
        birth_date=pl.Series(born, dtype=pl.Int32).replace(NEVER, None).cast(pl.Date),
        card=pl.when(has_card).then("6009" + _permuted(twice.card, 7_919, 12)),
        member_id=pl.when(has_card).then("M" + _permuted(twice.card, 104_729, 9)),
        account_id=pl.when(has_account).then(pl.Series(6_900_000_000_000 + twice.account * 7).cast(pl.String)),
        payment="tok_" + pl.Series(scatter(11, np.where(people.shares_payment, people.head, np.arange(len(people.head)))[person])).cast(pl.String),
        relay_email="b" + pl.Series(scatter(13, person)).cast(pl.String) + "@relay.bazaar.example",
    ).with_columns(**pen.columns)  # fmt: skip
    return Written(texts, at, pen.marks, is_verified, typist)


def _permuted(number: np.ndarray, factor: int, digits: int) -> pl.Series:
    """Numbers spread over the range without meeting: a factor prime to ten is a bijection modulo a power of ten."""
    return pl.Series((number * factor + 12_345) % 10**digits).cast(pl.String).str.zfill(digits)


def _emails(
    rng: np.random.Generator, pen: _Pen, people: Households, twice: Duplicates, first: pl.Series, last: pl.Series
) -> tuple[pl.Series, np.ndarray, np.ndarray]:
    """The e-mail of each number's account, and whether the shop verified it, and who gave it first: some second accounts
    reuse the first one's."""
    count, persons = len(twice), len(people.head)
    number = np.arange(count)
    host = pl.Series(MAIL_HOSTS)[rng.choice(len(MAIL_HOSTS), count, p=[0.55, 0.2, 0.15, 0.1])]
    given, family = first.str.to_lowercase(), last.str.replace_all("'", "").str.to_lowercase()
    way = pl.Series(scatter(31, number) % np.uint64(5))
    name = (
        pl.when(way == 0).then(given.str.slice(0, 1) + family).when(way == 1).then(given)
        .when(way == 2).then(family + "." + given).otherwise(given + "." + family)
    )  # fmt: skip
    own = pl.select(pl.concat_str([name, pl.Series(number).cast(pl.String), pl.lit("@"), host])).to_series()
    is_account = (number >= persons) & twice.owns_account
    same, verified = rng.random((2, count))
    reuses = is_account & (same < 0.2)
    typist = np.where(reuses, twice.parent, number)
    typist = np.where(is_account | (number < persons), typist, typist[twice.parent])
    mail = np.r_[np.where(people.shares_email, people.head, number[:persons]), number[persons:]][typist]
    is_verified = np.where(is_account, ~reuses & (verified < 0.75), number % 20 != 0)
    pen.mark(ACCOUNT, "second_email", np.flatnonzero(is_account & ~reuses))
    pen.mark(ACCOUNT, "unverified_email", np.flatnonzero(~is_verified))
    return own[mail], is_verified, typist


def _phones(people: Households, person: np.ndarray) -> tuple[pl.Series, pl.Series, pl.Series]:
    """The same number in three spellings: the shop's, a guest's, the form's."""
    line = np.where(people.shares_phone, people.head, np.arange(len(people.head)))[person]
    area = pl.Series(AREA_CODES)[line % len(AREA_CODES)]
    exchange = pl.Series(200 + line // 80 % 800).cast(pl.String)
    rest = pl.Series(1000 + (line // 64_000 * 37 + scatter(5, line % 80) % np.uint64(37)).astype(np.int64)).cast(
        pl.String
    )
    return "+1" + area + exchange + rest, area + "-" + exchange + "-" + rest, "(" + area + ") " + exchange + "-" + rest


def _moves(
    rng: np.random.Generator, scale: Scale, pen: _Pen, homes: Homes, person: np.ndarray, early_account: np.ndarray,
    early_form: np.ndarray,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Which address each record carries. Who moved came from somebody's present home, mostly near the same store."""
    count = len(homes.lives_at)
    order = np.argsort(homes.nearest, kind="stable")
    start = np.searchsorted(homes.nearest[order], homes.nearest)
    size = np.bincount(homes.nearest)[homes.nearest]
    near = order[start + (rng.random(count) * size).astype(np.int64)]
    before = homes.lives_at[np.where(rng.random(count) < 0.8, near, rng.integers(0, count, count))]
    moved = (rng.random(count) < scale.moved_rate) & (before != homes.lives_at)
    now, then, has_moved = homes.lives_at[person], before[person], moved[person]
    at = {}
    for record, name, early in ((ACCOUNT, "account_", early_account), (FORM, "form_", early_form)):
        at[name] = np.where(has_moved & early, then, now)
        pen.mark(record, "former_address", np.flatnonzero(has_moved & early))
    old = np.flatnonzero(has_moved & early_form)
    pen.columns["form_street"] = (
        pen.columns["form_street"].clone().scatter(old, homes.addresses["short_street"][then[old]])
    )
    return {"": now, **at}


def _names(
    rng: np.random.Generator, scale: Scale, pen: _Pen, people: Households, person: np.ndarray, early_account: np.ndarray,
    early_form: np.ndarray,
) -> None:  # fmt: skip
    """Short forms on one side, former last names on the earlier record, initials, suffixes, names in each other's place."""
    count = len(person)
    former = pl.Series(LAST_NAMES)[drawn(rng, LAST_NAMES, len(people.head))]
    changed = (rng.random(len(people.head)) < scale.changed_name_rate)[person]
    for record, column, early in ((ACCOUNT, "account_last_name", early_account), (FORM, "form_last_name", early_form)):
        where = np.flatnonzero(changed & early)
        pen.write(record, "former_last_name", column, where, former[person[where]])
    has, short = short_forms(rng, people.first[person])
    dice, side = rng.random((2, count))
    for record, column, is_here in (
        (ACCOUNT, "account_first_name", side < 0.5),
        (FORM, "form_first_name", side >= 0.5),
    ):
        chosen = (dice < scale.nickname_rate)[has] & is_here[has]
        pen.write(record, "nickname", column, has[chosen], short.filter(pl.Series(chosen)))
    where = np.flatnonzero(rng.random(count) < scale.initial_rate)
    dot = pl.Series(["", "."])[(rng.random(len(where)) < 0.5).astype(np.int64)]
    pen.write(FORM, "initial", "form_first_name", where, pen.columns["form_first_name"][where].str.slice(0, 1) + dot)
    where = np.flatnonzero(people.is_junior[person] & (rng.random(count) < 0.4))
    pen.write(FORM, "name_suffix", "form_last_name", where, pen.columns["form_last_name"][where] + " Jr.")
    where = np.flatnonzero(rng.random(count) < scale.swapped_name_rate)
    given, family = pen.columns["form_first_name"][where], pen.columns["form_last_name"][where]
    pen.write(FORM, "swapped_names", "form_first_name", where, family)
    pen.write(FORM, "swapped_names", "form_last_name", where, given)


def _birth_dates(rng: np.random.Generator, scale: Scale, pen: _Pen, born: np.ndarray) -> np.ndarray:
    """Days from the epoch as the form has them, NEVER where it has none; some with day and month exchanged, or one digit wrong."""
    told = born.copy()
    wrong = np.flatnonzero(rng.random(len(born)) < scale.wrong_birth_date_rate)
    digit = pl.Series(rng.integers(1, 10, len(wrong)))
    true = pl.Series(born[wrong], dtype=pl.Int32).cast(pl.Date)
    year, month, day = true.dt.year(), true.dt.month().cast(pl.Int32), true.dt.day().cast(pl.Int32)
    can_swap = pl.Series(np.arange(len(wrong)) % 2 == 0) & (day <= 12) & (day != month)
    other_year = year - year % 10 + (year % 10 + digit) % 10
    told[wrong] = pl.select(
        pl.when(can_swap).then(pl.date(pl.lit(year), pl.lit(day.clip(1, 12)), pl.lit(month)))
        .otherwise(pl.date(pl.lit(other_year), pl.lit(month), pl.lit(day.clip(1, 28)))).cast(pl.Int32)
    ).to_series().to_numpy()  # fmt: skip
    pen.mark(FORM, "wrong_birth_date", wrong)
    missing = np.flatnonzero(rng.random(len(born)) < scale.missing_birth_date_rate)
    told[missing] = NEVER
    pen.mark(FORM, "missing_birth_date", missing)
    pen.clear(FORM, ["wrong_birth_date"], missing)
    return told


def _form_contacts(rng: np.random.Generator, scale: Scale, pen: _Pen) -> None:
    """E-mails in capitals, the phone at work, and boxes left empty."""
    count = pen.marks.shape[1]
    loud = np.flatnonzero(rng.random(count) < 0.1)
    pen.columns["form_email"] = (
        pen.columns["form_email"].clone().scatter(loud, pen.columns["form_email"][loud].str.to_uppercase())
    )
    where = np.flatnonzero(rng.random(count) < scale.work_phone_rate)
    work = rng.integers(0, count // COLLEAGUES + 1, len(where))
    area = pl.Series(AREA_CODES)[work % len(AREA_CODES)]
    exchange, rest = pl.Series(200 + work // 80 % 800).cast(pl.String), pl.Series(100 + work // 64_000).cast(pl.String)
    pen.write(FORM, "work_phone", "form_phone", where, "(" + area + ") " + exchange + "-0" + rest)
    number = np.arange(count)
    pen.write(FORM, "missing_email", "form_email", np.flatnonzero(number % 10 == 7), None)
    pen.write(FORM, "missing_phone", "form_phone", np.flatnonzero(number % 4 == 2), None)
    pen.clear(FORM, ["work_phone"], np.flatnonzero(number % 4 == 2))


def _lazy_clerks(rng: np.random.Generator, scale: Scale, pen: _Pen, born: np.ndarray) -> None:
    """What is typed to get past a box that must be filled. `born` is changed."""
    count = len(born)
    box = np.where(rng.random(count) < scale.placeholder_rate, rng.integers(0, 4, count), -1)
    for place, (name, texts) in enumerate(PLACEHOLDERS.items()):
        where = np.flatnonzero(box == place)
        pen.write(
            FORM,
            f"placeholder_{name}",
            f"form_{name}",
            where,
            pl.Series(texts)[rng.integers(0, len(texts), len(where))],
        )
        pen.clear(FORM, [f"missing_{name}", f"typo_{name}", f"work_{name}"], where)
    where = np.flatnonzero(box == len(PLACEHOLDERS))
    born[where] = NOBODYS_BIRTHDAY
    pen.mark(FORM, "placeholder_birth_date", where)
    pen.clear(FORM, ["missing_birth_date", "wrong_birth_date"], where)


def _mark_persons(pen: _Pen, people: Households, twice: Duplicates) -> None:
    """What is hard about the person rather than the record, on all of their records; and which records are second ones."""
    is_second = np.arange(len(twice)) >= len(people.head)
    pen.mark(ACCOUNT, "duplicate_account", np.flatnonzero(is_second & twice.owns_account))
    pen.mark(FORM, "duplicate_membership", np.flatnonzero(is_second & twice.owns_card))
    kind = people.kinds()
    size = np.bincount(people.household)[people.household]
    for name, who in (
        ("shared_email", people.shares_email & (size > 1)), ("shared_phone", people.shares_phone & (size > 1)),
        ("shared_payment", people.shares_payment & (size > 1)), ("namesake", people.is_namesake), ("twin", people.is_twin),
        ("housemates", kind == HOUSEMATES), ("hall", kind == HALL),
    ):  # fmt: skip
        where = np.flatnonzero(who[twice.person])
        for record in (ACCOUNT, FORM, GUEST):
            pen.mark(record, name, where)


def mistyped(rng: np.random.Generator, words: pl.Series) -> pl.Series:
    """Two neighbouring characters exchanged, the first one left alone; short texts stay."""
    at = pl.Series(1 + rng.integers(0, 6, len(words)))
    return pl.select(
        pl.when(words.str.len_chars() > at + 2)
        .then(pl.concat_str([
            words.str.slice(pl.lit(0), at), words.str.slice(at + 1, 1), words.str.slice(at, 1), words.str.slice(at + 2),
        ]))
        .otherwise(words)
    ).to_series()  # fmt: skip


def differences(marks: np.ndarray) -> pl.Series:
    """Marks as lists of short names."""
    made, place = np.unique(marks, return_inverse=True)
    names = [[name for name in DIFFERENCES if mark & BIT[name]] for mark in made]
    return pl.Series(names, dtype=pl.List(pl.String))[place]
