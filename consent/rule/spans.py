"""Standing over time, for all at once: from when until when each customer's answer was what, as it was known at the time.

Decides nothing itself. Between two changes of what is known, and of what has ended, an answer stays; so `standing_frame` is
asked at each change of each customer, all in one go: the rule counts in differences of times, and a copy of a customer's
events for every change, moved so that the change falls on one instant, makes them one question.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from consent.errors import ConsentError
from consent.events import TIMES
from consent.rule.identity import JOINED_SCHEMA, LINK_EVENTS, joined_frame
from consent.rule.policy import Policy
from consent.rule.standing import DENIALS, IDENTITIES, proved_groups, standing_frame, touching

SPAN_SCHEMA: dict[str, pl.DataType] = {
    "customer_id": pl.String(),
    "from_at": pl.Datetime("us", "UTC"),
    "until_at": pl.Datetime("us", "UTC"),
    "is_allowed": pl.Boolean(),
    "reason_code": pl.String(),
    "since_at": pl.Datetime("us", "UTC"),
    "expires_at": pl.Datetime("us", "UTC"),
    "leaf_index": pl.Int64(),
}
_QUESTION = ("purpose_code", "channel_code")
_ANSWER = ("is_allowed", "reason_code", "since_at", "expires_at", "leaf_index")
_ONE_INSTANT = datetime(2001, 1, 1, tzinfo=UTC)
_COPIES_AT_ONCE = 2_000_000  # of events; about 1 GB
_JOINED_TIMES = ("linked_at", "split_at", "unlinked_at")


def standing_spans(
    events: pl.DataFrame, links: pl.DataFrame, policy: Policy, purpose_code: str, channel_code: str
) -> pl.DataFrame:
    """Every customer's standing over time: one row per customer and time in which the answer stayed, without gaps (`SPAN_SCHEMA`).

    In [from_at, until_at) it is what `standing_frame` answers at that time from what had been received by then; the last row has
    no until_at. Before a customer's first row nothing was said: never asked. `events` and `links` as for `standing_frame`; who is
    whose is taken as given for all time, as there.

    Raises: ConsentError where nobody is asked for the purpose over the channel.
    """
    purpose = policy.purposes.get(purpose_code)
    if purpose is None or purpose.rests_on_contract or channel_code not in purpose.channels:
        raise ConsentError(
            f"standing over time: expected a purpose and a channel that people are asked for, "
            f"found {purpose_code} over {channel_code}. Choose one of the policy's."
        )
    asked = replace(policy, purposes={purpose_code: replace(purpose, channels=(channel_code,))})
    return _spans(events.filter(touching(purpose_code)), links, asked).select(*SPAN_SCHEMA)


def every_span(events: pl.DataFrame, links: pl.DataFrame, policy: Policy) -> pl.DataFrame:
    """`standing_spans` of all that people are asked for, in one go: with purpose_code and channel_code. For few customers: each change of
    one answer asks for all others as well."""
    asked = {code: purpose for code, purpose in policy.purposes.items() if not purpose.rests_on_contract}
    return _spans(events, links, replace(policy, purposes=asked))


def _spans(events: pl.DataFrame, links: pl.DataFrame, policy: Policy) -> pl.DataFrame:
    """`SPAN_SCHEMA` and the question, for whatever the policy asks for."""
    world = _World.of(events, proved_groups(links).select(IDENTITIES), _lifetimes(policy))
    schema = {**dict.fromkeys(_QUESTION, pl.String()), **SPAN_SCHEMA}
    found = [_answers(part, policy) for part in world.parts()]
    if not found:
        return pl.DataFrame(schema=schema)
    keys = ("customer_id", *_QUESTION)
    changes = pl.concat(found).sort(*keys, "from_at")
    is_same = pl.all_horizontal(pl.col(*keys, *_ANSWER).eq_missing(pl.col(*keys, *_ANSWER).shift(1)))
    return (
        changes.filter(~is_same)
        .with_columns(pl.col("from_at").shift(-1).over(keys).alias("until_at"))
        .select(pl.col(name).cast(kind) for name, kind in schema.items())
    )


def _lifetimes(policy: Policy) -> list[int]:
    """How many days a yes may last, for anything that is asked, in any place."""
    places = (policy.days(purpose, code) for purpose in policy.purposes for code in policy.jurisdictions)
    return sorted({days for days in places if days is not None})


@dataclass(frozen=True)
class _World:
    """What each customer's answer can rest on, and when it can change.

    `said`: events that say something, by subject. `owned`: `IDENTITIES`. `heard`: customer_id, subject_id, whose events can
    matter to whom. `changes`: customer_id, at. `together`: rows of `joined_frame`, by from when until when they were known.
    """

    said: pl.DataFrame
    owned: pl.DataFrame
    heard: pl.DataFrame
    changes: pl.DataFrame
    together: pl.DataFrame

    @classmethod
    def of(cls, events: pl.DataFrame, owned: pl.DataFrame, lifetimes: list[int]) -> "_World":
        said, together = events.filter(~pl.col("event_type").is_in(LINK_EVENTS)), _together(events)
        own = owned.select("customer_id", subject_id="identity_ref").unique()
        others = own.join(_hearing(together, _refusing(events)), on="subject_id")
        heard = pl.concat([own, others.select("customer_id", subject_id="other_subject_id")]).unique()
        ends = [pl.min_horizontal(*TIMES) + timedelta(days=days) for days in lifetimes]
        instants = [said.select("subject_id", at=at) for at in (pl.col("received_at"), *ends)]
        instants.append(together.select("subject_id", at="known_at"))
        changes = heard.join(pl.concat(instants).unique(), on="subject_id").select("customer_id", "at").unique()
        return cls(said, owned, heard, changes, together)

    def parts(self) -> Iterator["_World"]:
        """Customers by customers, so that a part's copies fit into memory."""
        weights = (
            self.heard.join(self.said.group_by("subject_id").len("events"), on="subject_id")
            .group_by("customer_id")
            .agg(pl.col("events").sum())
            .join(self.changes.group_by("customer_id").len("changes"), on="customer_id")
            .sort("customer_id")
            .select("customer_id", part=(pl.col("events") * pl.col("changes")).cum_sum() // _COPIES_AT_ONCE)
        )
        for (_,), mine in weights.group_by("part", maintain_order=True):
            heard, changes, owned = (
                frame.join(mine, on="customer_id", how="semi") for frame in (self.heard, self.changes, self.owned)
            )
            said, together = (frame.join(heard, on="subject_id", how="semi") for frame in (self.said, self.together))
            yield _World(said, owned, heard, changes, together)


def _answers(world: _World, policy: Policy) -> pl.DataFrame:
    """customer_id, from_at and the answer from then on, at every change of every customer."""
    copies = world.changes.with_row_index("copy").with_columns(
        pl.col("copy").cast(pl.String) + ":", moved=pl.lit(_ONE_INSTANT, pl.Datetime("us", "UTC")) - pl.col("at")
    )
    told = (
        copies.join(world.heard, on="customer_id")
        .join(world.said, on="subject_id")
        .filter(pl.col("received_at") <= pl.col("at"))
        .sort("leaf_index")
        .with_row_index("leaf")  # of its own for every copy, in the same order
        .with_columns(pl.col("leaf").cast(pl.Int64), _copied("subject_id"), *_moved(TIMES))
    )
    events = told.drop("leaf_index").rename({"leaf": "leaf_index"}).select(world.said.columns)
    together = (
        copies.join(world.heard, on="customer_id")
        .join(world.together, on="subject_id")
        .filter(pl.col("known_at") <= pl.col("at"), (pl.col("known_until") > pl.col("at")).fill_null(True))
        .with_columns(*_moved(_JOINED_TIMES))
        .select(
            _copied("subject_id"),
            _copied("other_subject_id"),
            *_JOINED_TIMES,
            "is_proved",
        )
    )
    links = copies.join(world.owned, on="customer_id").select(
        _copied("customer_id"),
        _copied("identity_ref"),
        "link_type",
        "group_ref",
    )
    leaves = told.select("leaf_index", leaf="leaf")
    found = standing_frame(events, links, policy, _ONE_INSTANT, together=together).rename({"leaf_index": "leaf"})
    return (
        copies.with_columns(asked=_copied("customer_id"))
        .join(found, left_on="asked", right_on="customer_id")
        .join(leaves, on="leaf", how="left")
        .with_columns((pl.col(name) - pl.col("moved")).alias(name) for name in ("since_at", "expires_at"))
        .select("customer_id", *_QUESTION, pl.col("at").alias("from_at"), *_ANSWER)
    )


def _refusing(events: pl.DataFrame) -> pl.DataFrame:
    """Who ever said no: nothing else travels over a link."""
    return events.filter(pl.col("event_type").is_in([*DENIALS])).select("subject_id").unique()


def _hearing(together: pl.DataFrame, refusing: pl.DataFrame) -> pl.DataFrame:
    """subject_id, other_subject_id: whose events can matter to whom. A no passes a link, and another one that has ended before."""
    pairs = together.select("subject_id", "other_subject_id", has_ended=pl.col("unlinked_at").is_not_null()).unique()
    direct = pairs.join(refusing, left_on="other_subject_id", right_on="subject_id", how="semi")
    ended = direct.filter("has_ended").select(via="subject_id", other_subject_id="other_subject_id")
    through = pairs.select("subject_id", via="other_subject_id").join(ended, on="via")
    names = ["subject_id", "other_subject_id"]
    middle = through.select("subject_id", other_subject_id="via")
    return pl.concat([direct.select(names), through.select(names), middle]).unique()


def _together(events: pl.DataFrame) -> pl.DataFrame:
    """`joined_frame` near whoever said no, as it was known from known_at until known_until: again for every time at which the
    links of a chain of identities changed."""
    none = pl.DataFrame(
        schema={**JOINED_SCHEMA, **dict.fromkeys(("known_at", "known_until"), pl.Datetime("us", "UTC"))}
    )
    if not {"linked_subject_id", "link_type"} <= set(events.columns):
        return none
    chains = _chains(events)
    loud = chains.join(_refusing(events), on="subject_id", how="semi").select("chain").unique()
    told = (
        events.filter(pl.col("event_type").is_in((*LINK_EVENTS, "erased")))
        .join(chains.join(loud, on="chain", how="semi"), on="subject_id")
        .select("chain", "subject_id", "linked_subject_id", "link_type", "event_type", *TIMES)
    )
    known = (
        told.select("chain", known_at="received_at")
        .unique()
        .sort("chain", "known_at")
        .with_columns(pl.col("known_at").shift(-1).over("chain").alias("known_until"))
        .with_row_index("copy")
        .with_columns(pl.col("copy").cast(pl.String) + ":")
    )
    copies = known.join(told, on="chain").filter(pl.col("received_at") <= pl.col("known_at"))
    found = joined_frame(copies.with_columns(_copied("subject_id"), _copied("linked_subject_id")))
    if not found.height:
        return none
    return (
        found.with_columns((pl.col("subject_id").str.extract(r"^(\d+:)")).alias("copy"))
        .join(known.select("copy", "known_at", "known_until"), on="copy")
        .with_columns(pl.col(name).str.strip_prefix(pl.col("copy")) for name in ("subject_id", "other_subject_id"))
        .select(none.columns)
    )


def _chains(events: pl.DataFrame) -> pl.DataFrame:
    """subject_id and chain: identities that any links ever led to one another bear one number."""
    links = events.filter(pl.col("event_type").is_in(LINK_EVENTS), pl.col("linked_subject_id").is_not_null())
    pairs = links.select("subject_id", "linked_subject_id").unique()
    names = pl.concat([pairs["subject_id"], pairs["linked_subject_id"].alias("subject_id")]).unique().sort()
    one, other = (names.search_sorted(pairs[side]).to_numpy() for side in ("subject_id", "linked_subject_id"))
    chain = np.arange(names.len())
    while True:
        before = chain.copy()
        lower = np.minimum(chain[one], chain[other])
        np.minimum.at(chain, one, lower)
        np.minimum.at(chain, other, lower)
        chain = chain[chain]
        if np.array_equal(chain, before):
            return pl.DataFrame({"subject_id": names, "chain": chain})


def _copied(name: str) -> pl.Expr:
    """The id of one copy among many."""
    return (pl.col("copy") + pl.col(name)).alias(name)


def _moved(names: tuple[str, ...]) -> Iterator[pl.Expr]:
    return ((pl.col(name) + pl.col("moved")).alias(name) for name in names)
