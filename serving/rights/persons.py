"""Who is meant by a request: the identities that are proved to be one person, and no others.

A contact that was only seen in the same record may be somebody else's, so it is neither handed out nor erased; nor is what only
looks like the same person.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from consent.rule.identity import PROBABILISTIC
from consent.rule.standing import GRANTING_LINKS, IDENTITIES, proved_groups
from models.permission import LINKS, identities
from troth.errors import TrothError
from troth.home import Home
from troth.ids import IDENTIFIER_TYPES, tokeniser
from troth.published import current


class RightsError(TrothError):
    """A request about a person's data that cannot be carried out as asked."""


@dataclass(frozen=True)
class Person:
    """`tokens` are proved, those asked for first; `unproved` were seen beside them in some record, or look alike, and stay out of it.

    `shared_ids`: those of `customer_ids` that are in part only likely to be the person, so that rows of them may tell of another.
    """

    customer_ids: tuple[str, ...]
    tokens: tuple[str, ...]
    unproved: tuple[str, ...]
    shared_ids: tuple[str, ...] = ()


def resolve(home: Home, subjects: Sequence[str], known: pl.DataFrame | None = None) -> Person:
    """The person behind customer ids (`cus_...`), tokens (`email_...`) and identifiers (`email:anna@example.com`, or bare).

    That is, the proved group of each identifier, and of a customer the main one: other groups of it are but likely to be the same.
    Give an identifier only when the person has proved it to be theirs. `known`: of `near`, where it was read before.
    Raises: RightsError for one nobody knows.
    """
    known = (near(home, subjects) if known is None else known).drop_nulls()
    owned = known.filter(pl.col("link_type").is_in(GRANTING_LINKS))
    # An identifier that is proved for two customers proves neither.
    proved = owned.filter(pl.col("customer_id").n_unique().over("identity_ref") == 1)
    group = ["customer_id", "group_ref"]
    main = known.join(known.filter(link_type=PROBABILISTIC), on=group, how="anti").select(group)
    asked: list[str] = []
    groups = [known.clear().select(group)]
    customers: list[str] = []
    for subject in subjects:
        if subject.startswith("cus_"):
            groups.append(main.filter(customer_id=subject))
            customers.append(subject)
            continue
        found = tokens_of(home, subject, proved)
        asked += found
        groups.append(proved.filter(pl.col("identity_ref").is_in(found)).select(group))
        customers += groups[-1]["customer_id"].to_list()
    customers = list(dict.fromkeys(customers))
    mine = pl.concat(groups).unique()
    theirs = known.filter(pl.col("customer_id").is_in(customers))
    if not asked and not theirs.height:
        raise _unknown()
    tokens = dict.fromkeys([*asked, *proved.join(mine, on=group, how="semi")["identity_ref"].sort()])
    unproved = sorted(set(theirs["identity_ref"]) - set(tokens))
    shared = set(theirs.join(mine, on=group, how="anti").join(owned, on=group, how="semi")["customer_id"])
    return Person(tuple(customers), tuple(tokens), tuple(unproved), tuple(sorted(shared)))


def near(home: Home, subjects: Sequence[str]) -> pl.DataFrame:
    """`IDENTITIES`: whose identities are whose, of whoever may be meant: all of theirs, and everybody else who has one of them."""
    path = current(home, LINKS)
    customers = [one for one in subjects if one.startswith("cus_")]
    tokens = [made for one in subjects if not one.startswith("cus_") for made in _tokens(home, one)[0]]
    meant = identities(path, customers, tokens)["customer_id"].unique()
    theirs = identities(path, meant)["identity_ref"].drop_nulls()
    return proved_groups(identities(path, meant, theirs)).select(IDENTITIES)


def tokens_of(home: Home, subject: str, known: pl.DataFrame) -> list[str]:
    """The tokens of an identifier as it was given; of a bare one, those in `known` (identity_ref). Raises: RightsError where there are none."""
    made, is_bare = _tokens(home, subject)
    if not is_bare:
        return made
    found = known.filter(pl.col("identity_ref").is_in(made))["identity_ref"].unique().to_list()
    if found or len(made) == 1:
        return found or made
    raise _unknown()


def _tokens(home: Home, subject: str) -> tuple[list[str], bool]:
    """Every token that an identifier may have; of one with its type that one, or none where it cannot be read. Whether it came without."""
    token = tokeniser(home.key("token"))
    kind, colon, value = subject.partition(":")
    if colon and kind in IDENTIFIER_TYPES:
        made = token(kind, value)
        return [made] if made else [], False
    head, _, tail = subject.partition("_")
    if head in IDENTIFIER_TYPES and len(tail) == 22:
        return [subject], False
    kinds = ("email",) if "@" in subject else IDENTIFIER_TYPES
    return [made for kind in kinds if (made := token(kind, subject))], True


def _unknown() -> RightsError:
    return RightsError(
        f"subject: expected a customer id (cus_...), a token, or <type>:<identifier> with a type of {', '.join(IDENTIFIER_TYPES)}, "
        "found one that nobody is known by. Ask the person for another identifier."
    )
