"""What an explanation of identity looks like: structs that a page draws without further work, and as JSON by the same names.

Tokens, levels, numbers and sentences. Fields may be added; none is renamed or taken away. `OUTCOMES` are the reasons there are; the steps of a `Comparison` add up to its `bits`.
"""

from msgspec import Struct

from models.identity.resolving import MISSED_MERGE_COST, WRONG_MERGE_COST

OUTCOMES = (
    "proved", "forced", "likely", "likely_through_others", "tied", "tied_to_another", "forbidden", "pending", "nothing_to_compare",
    "not_allowed", "outweighed", "not_compared", "below_the_bar",
)  # fmt: skip


class Who(Struct, frozen=True, kw_only=True):
    """An identifier: what it is, who told of it, and the proved group and customer it belongs to."""

    identity_ref: str
    identity_type: str
    source_name: str
    hub_identity_type: str
    hub_identity_ref: str
    is_hub: bool
    proof: str  # how it came to its group, in words
    customer_id: str
    is_test: bool
    may_be_joined: bool
    consent_reason: str | None  # why not, or by what


class FieldStep(Struct, frozen=True, kw_only=True):
    """One field: how far two records agree, and what that weighs."""

    field: str
    level: str
    words: str
    bits: float  # for one person against strangers, rarity included
    rarity_bits: float  # by how much a name rarer than most weighs more
    bits_against_household: float
    clear: tuple[str | None, str | None] | None = None  # what the two records say; only where it was asked for


class Comparison(Struct, frozen=True, kw_only=True):
    """Two records compared. prior_bits + bits of the fields + household_bits = bits."""

    first_record: str
    second_record: str
    fields: tuple[FieldStep, ...]
    prior_bits: float  # how rare it is that two records out of all are one person's
    household_bits: float  # what is lost because two of one household would agree as well
    bits: float  # log2 of the odds that one person is behind both
    probability: float
    within_bits: float  # the same when one person and two are as likely beforehand
    bar_bits: float
    bar_probability: float
    keys_shared: tuple[str, ...]  # by which the two were brought together
    keys_too_common: tuple[str, ...]  # agreed on, but by so many that nobody is compared by it


class Costs(Struct, frozen=True, kw_only=True):
    """What the bar follows from: joining is right while probability * missed > (1 - probability) * wrong."""

    wrong_merge: float = WRONG_MERGE_COST
    missed_merge: float = MISSED_MERGE_COST


class Word(Struct, frozen=True, kw_only=True):
    """What a steward said last of two identifiers."""

    decision_id: str
    decision_type: str
    decided_at: str
    actor_id: str
    reason: str
    first_ref: str
    second_ref: str


class Link(Struct, frozen=True, kw_only=True):
    """A step of a chain: how one identifier is tied to the next."""

    first_ref: str
    second_ref: str
    how: str  # proved, likely, forced, or tied (a payment card)
    words: str
    probability: float | None = None
    bits: float | None = None
    steward: Word | None = None  # of a forced one: who said so, when and why


class Between(Struct, frozen=True, kw_only=True):
    """The evidence between two customers: pairs of their records, and what these weigh on average, in bits for one person."""

    pairs: int
    against: int
    average_bits: float


class Explanation(Struct, frozen=True, kw_only=True):
    """Why two identifiers are of one customer, or of two."""

    first: Who
    second: Who
    is_joined: bool
    outcome: str  # one of OUTCOMES
    sentence: str
    model: str
    costs: Costs
    comparison: Comparison | None  # of the two records that speak most for one person; None where there are no two
    chain: tuple[Link, ...]  # from the first to the second, where they are joined
    between: Between | None  # where they are not
    steward: Word | None
    members: tuple[Who, ...]  # everyone else of the customer, or of both


class Group(Struct, frozen=True, kw_only=True):
    """Identifiers of a customer that are proved to be one person's."""

    hub_identity_ref: str
    members: tuple[Who, ...]


class CustomerExplanation(Struct, frozen=True, kw_only=True):
    """Everything that holds a customer together."""

    customer_id: str
    sentence: str
    model: str
    groups: tuple[Group, ...]
    links: tuple[Link, ...]  # as many as it takes to join the groups: the surest
    between: tuple[Link, ...]  # every pair of groups that was weighed, for and against
    stewards: tuple[Word, ...]
