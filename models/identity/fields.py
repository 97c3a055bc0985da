"""What two records of people are compared by: the levels of agreement of each field, from most to least, as Splink compares them.

A record is a row of normalised columns (`normalise.py`), any of which may be missing. Each level carries expectations, how often it
is seen between records of one person and between records of two people of one household: where training starts, and where few pairs
were seen, what it ends near; and how often between strangers, for where there are too few records to learn from. They are guesses of common
sense, to be overruled by data.
"""

from dataclasses import dataclass

EDITS, LIKENESS = (
    "<edits>",
    "<likeness>",
)  # Damerau-Levenshtein distance and Jaro-Winkler similarity, as a dialect names them


@dataclass(frozen=True, slots=True)
class Level:
    """A degree of agreement: its name, its condition in SQL (none: what is left), and the share expected of it by class of pairs."""

    name: str
    condition: str
    person: float
    household: float
    strangers: float


@dataclass(frozen=True, slots=True)
class Field:
    """Something two records agree on or not. The last level is what is left; where `missing` holds, nothing is said."""

    name: str
    columns: tuple[str, ...]
    missing: str
    levels: tuple[Level, ...]
    frequency_of: str | None = (
        None  # column whose rare values say more: agreement of the first level counts by its frequency
    )
    any_of: tuple[str, ...] = ()  # columns of which both records must say one; where none is named, the first column

    @property
    def said_in(self) -> tuple[str, ...]:
        return self.any_of or self.columns[:1]

    @property
    def level_names(self) -> tuple[str, ...]:
        return tuple(level.name for level in self.levels)


@dataclass(frozen=True, slots=True)
class Key:
    """Columns whose agreement makes two records worth comparing, and the levels of fields that are then reached: by field, the last."""

    columns: tuple[str, ...]
    reaches: tuple[tuple[str, str], ...]

    @property
    def name(self) -> str:
        return "__".join(self.columns)


def _same(column: str) -> str:
    return f"{column}_l = {column}_r"


def _within(column: str, edits: int) -> str:
    """At most so many letters added, left out, replaced or exchanged with a neighbour."""
    return f"{EDITS}({column}_l, {column}_r) <= {edits}"


def _alike(column: str, least: float) -> str:
    return f"{LIKENESS}({column}_l, {column}_r) >= {least}"


def _either_missing(column: str) -> str:
    return f"({column}_l is null or {column}_r is null)"


def _name_alike(column: str) -> str:
    return f"({_within(column, 1)} and greatest(length({column}_l), length({column}_r)) > 3) or {_alike(column, 0.92)}"


_EXCHANGED = (
    f"((first_name_l = last_name_r and {LIKENESS}(last_name_l, first_name_r) >= 0.88) "
    f"or (last_name_l = first_name_r and {LIKENESS}(first_name_l, last_name_r) >= 0.88))"
)
_INITIAL = (
    "least(length(first_name_l), length(first_name_r)) = 1 and substr(first_name_l, 1, 1) = substr(first_name_r, 1, 1)"
)
_DAY_AND_MONTH_EXCHANGED = (
    "substr(birth_date_l, 1, 4) = substr(birth_date_r, 1, 4) and substr(birth_date_l, 6, 2) = substr(birth_date_r, 9, 2) "
    "and substr(birth_date_l, 9, 2) = substr(birth_date_r, 6, 2)"
)

FIELDS = (
    Field("first_name", ("first_name", "given_root", "last_name", "name_is_known"), _either_missing("first_name"), (
        Level("same", _same("first_name"), .80, .02, .008),
        Level("short_form", _same("given_root"), .06, .002, .001),
        Level("names_exchanged", _EXCHANGED, .01, .0002, 1e-06),
        Level("alike", f"({_name_alike('first_name')}) and not (name_is_known_l and name_is_known_r)", .08, .01, .001),
        Level("initial", _INITIAL, .01, .002, .0015),
        Level("somewhat_alike", f"{_alike('first_name', .80)} and not (name_is_known_l and name_is_known_r)", .015, .05, .006),
        Level("different", "", .025, .92, .98),
    ), "first_name"),
    Field("last_name", ("last_name", "first_name"), f"{_either_missing('last_name')} or ({_EXCHANGED})", (
        Level("same", _same("last_name"), .85, .80, .006),
        Level("alike", _name_alike("last_name"), .08, .01, .001),
        Level("somewhat_alike", _alike("last_name", .80), .015, .01, .005),
        Level("different", "", .055, .18, .988),
    ), "last_name"),
    Field("birth_date", ("birth_date",), _either_missing("birth_date"), (
        Level("same", _same("birth_date"), .90, .01, 5e-05),
        Level("slip", f"{_within('birth_date', 1)} or ({_DAY_AND_MONTH_EXCHANGED})", .06, .004, .001),
        Level("two_slips", _within("birth_date", 2), .01, .02, .015),
        Level("different", "", .03, .966, .984),
    ), "birth_date"),
    Field("email", ("email", "email_local", "email_number", "email_is_relay", "email_is_shared"), f"{_either_missing('email')} or (email_l <> email_r and (email_is_relay_l or email_is_relay_r))", (
        Level("same", f"{_same('email')} and not email_is_shared_l", .66, .04, 2e-06),
        Level("same_shared", _same("email"), .04, .08, 2e-06),
        Level("same_name_elsewhere", _same("email_local"), .05, .005, 1e-05),
        Level("slip", f"{_within('email', 2)} and {_same('email_number')}", .08, .005, 1e-06),
        Level("different", "", .17, .865, .99998),
    )),
    Field("phone", ("phone", "phone_is_shared"), _either_missing("phone"), (
        Level("same", f"{_same('phone')} and not phone_is_shared_l", .65, .10, 2e-06),
        Level("same_shared", _same("phone"), .10, .25, 5e-06),
        Level("slip", _within("phone", 1), .03, .02, .0001),
        Level("different", "", .22, .63, .9999),
    )),
    Field("identifier", ("identifier",), _either_missing("identifier"), (
        Level("same", _same("identifier"), .90, .001, 1e-05),
        Level("slip", _within("identifier", 1), .06, .001, 2e-05),
        Level("different", "", .04, .998, .99997),
    )),
    Field("payment", ("payment", "payment_is_shared"), _either_missing("payment"), (
        Level("same", f"{_same('payment')} and not payment_is_shared_l", .65, .05, 1e-06),
        Level("same_shared", _same("payment"), .05, .15, 5e-06),
        Level("different", "", .30, .80, .99999),
    )),
    Field("address", ("street_name", "house_number", "postal_code", "city"),
          f"{_either_missing('street_name')} and {_either_missing('postal_code')} and {_either_missing('city')}", (
        Level("same", f"{_same('house_number')} and {_same('street_name')} and ({_same('postal_code')} or {_same('city')})", .69, .88, 1e-05),
        Level("alike", f"({_same('house_number')} and ({_same('street_name')} or {_same('postal_code')} or {_alike('street_name', .88)})) "
              f"or ({_same('street_name')} and {_same('postal_code')})", .12, .06, .0001),
        Level("same_street", f"{_same('street_name')} or ({_alike('street_name', .9)} and ({_same('postal_code')} or {_same('city')}))", .03, .01, .002),
        Level("same_place", f"{_same('postal_code')} or {_same('city')}", .08, .02, .01),
        Level("near_place", f"{_within('postal_code', 1)} or {_alike('city', .9)}", .02, .01, .01),
        Level("different", "", .06, .02, .978),
    ), any_of=("street_name", "postal_code", "city")),
)  # fmt: skip


KEYS = (
    Key(("identifier",), (("identifier", "same"),)),
    Key(("email",), (("email", "same_shared"),)),
    Key(("phone",), (("phone", "same_shared"),)),
    Key(("payment",), (("payment", "same_shared"),)),
    Key(("email_local",), (("email", "same_name_elsewhere"),)),
    Key(("names",), (("first_name", "names_exchanged"), ("last_name", "same"))),
    Key(("first_start", "last_start"), (("first_name", "alike"), ("last_name", "alike"))),
    Key(("first_start", "birth_date"), (("first_name", "alike"), ("birth_date", "same"))),
    Key(("last_start", "birth_date"), (("last_name", "alike"), ("birth_date", "same"))),
    Key(("last_start", "postal_code"), (("last_name", "alike"), ("address", "same_place"))),
    Key(("last_start", "house_number"), (("last_name", "alike"), ("address", "alike"))),
    Key(("first_start", "house_number"), (("first_name", "alike"), ("address", "alike"))),
    Key(("street_start", "house_number"), (("address", "alike"),)),
    Key(("last_name", "birth_date"), (("last_name", "same"), ("birth_date", "same"))),
    Key(("given_root", "birth_date"), (("first_name", "short_form"), ("birth_date", "same"))),
    Key(("last_name", "postal_code"), (("last_name", "same"), ("address", "same_place"))),
    Key(("given_root", "postal_code"), (("first_name", "short_form"), ("address", "same_place"))),
    Key(
        ("given_root", "last_name", "city"),
        (("first_name", "short_form"), ("last_name", "same"), ("address", "same_place")),
    ),
    Key(("house_number", "street_name"), (("address", "alike"),)),
    Key(("house_number", "postal_code"), (("address", "alike"),)),
    Key(("street_name", "postal_code"), (("address", "alike"),)),
    Key(("birth_date", "postal_code"), (("birth_date", "same"), ("address", "same_place"))),
    Key(("birth_date",), (("birth_date", "same"),)),
    Key(("last_name",), (("last_name", "same"),)),
    Key(("given_root",), (("first_name", "short_form"),)),
    Key(("postal_code",), (("address", "same_place"),)),
)
