"""Who is meant by a request: the identities that are proved to be one person, and no others.

A contact that was only seen in the same record may be somebody else's, so it is neither handed out nor erased.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from feature_repo.publish import PROVED_LINKS
from troth.errors import TrothError
from troth.home import Home
from troth.ids import IDENTIFIER_TYPES, tokeniser
from troth.published import current


class RightsError(TrothError):
    """A request about a person's data that cannot be carried out as asked."""


@dataclass(frozen=True)
class Person:
    """`tokens` are proved, those asked for first; `unproved` were seen beside them in some record and stay out of it."""

    customer_ids: tuple[str, ...]
    tokens: tuple[str, ...]
    unproved: tuple[str, ...]


def resolve(home: Home, subjects: Sequence[str]) -> Person:
    """The person behind customer ids (`cus_...`), tokens (`email_...`) and identifiers (`email:anna@example.com`, or bare).

    Give an identifier only when the person has proved it to be theirs. Raises: RightsError for one nobody knows.
    """
    identities = pl.read_parquet(
        current(home, "customer_identities"), columns=["customer_id", "identity_ref", "link_type"]
    ).drop_nulls()
    is_proved = pl.col("link_type").is_in(PROVED_LINKS)
    # An identifier that is proved for two customers proves neither.
    proved = identities.filter(is_proved).filter(pl.col("customer_id").n_unique().over("identity_ref") == 1)
    asked: list[str] = []
    customers: list[str] = []
    for subject in subjects:
        if subject.startswith("cus_"):
            customers.append(subject)
            continue
        found = _tokens(home, subject, proved)
        asked += found
        customers += proved.filter(pl.col("identity_ref").is_in(found))["customer_id"].to_list()
    customers = list(dict.fromkeys(customers))
    theirs = identities.filter(pl.col("customer_id").is_in(customers))
    if not asked and not theirs.height:
        raise _unknown()
    tokens = dict.fromkeys(
        [*asked, *proved.join(theirs, on=["customer_id", "identity_ref"], how="semi")["identity_ref"].sort()]
    )
    unproved = sorted(set(theirs["identity_ref"]) - set(tokens))
    return Person(tuple(customers), tuple(tokens), tuple(unproved))


def _tokens(home: Home, subject: str, proved: pl.DataFrame) -> list[str]:
    """The tokens of an identifier as it was given; of a bare one, those that somebody is known by."""
    kind, colon, value = subject.partition(":")
    token = tokeniser(home.key("token"))
    if colon and kind in IDENTIFIER_TYPES:
        made = token(kind, value)
        return [made] if made else []
    head, _, tail = subject.partition("_")
    if head in IDENTIFIER_TYPES and len(tail) == 22:
        return [subject]
    kinds = ("email",) if "@" in subject else IDENTIFIER_TYPES
    made_of = [made for kind in kinds if (made := token(kind, subject))]
    known = proved.filter(pl.col("identity_ref").is_in(made_of))["identity_ref"].unique().to_list()
    if known or len(made_of) == 1:
        return known or made_of
    raise _unknown()


def _unknown() -> RightsError:
    return RightsError(
        f"subject: expected a customer id (cus_...), a token, or <type>:<identifier> with a type of {', '.join(IDENTIFIER_TYPES)}, "
        "found one that nobody is known by. Ask the person for another identifier."
    )
