"""May this person's data be used for this purpose, over this channel, at this time? For one person, and for all.

The rule is written in README.md, "The rule of standing"; the numbers in the comments are its steps. Fails closed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Protocol

import polars as pl

from consent.events import Event, Recorded
from consent.policy import EVERY, Policy, notices_frame, policy_frame

DENIALS = {"refuse": "refused", "withdraw": "withdrawn", "object": "objected"}
GPC_PURPOSE = "third_party_sharing"
REFUSALS = ("refused", "withdrawn", "objected", "gpc")
UNKNOWABLE = ("unknown_purpose", "unknown_channel", "ledger_unreadable")
GRANTING_LINKS = ("hub", "deterministic")
REASONS = {
    "granted": "The person agreed, under a notice that still counts.",
    "contract": "Needed to do what the person ordered; it does not rest on consent.",
    "never_asked": "The person was never asked.",
    "refused": "The person said no when asked.",
    "withdrawn": "The person took their agreement back.",
    "objected": "The person objected.",
    "gpc": "The person's browser sent a Global Privacy Control signal.",
    "expired": "The agreement was given too long ago.",
    "stale_notice": "The agreement was given under a notice that no longer counts, or under none.",
    "unknown_purpose": "The policy does not know this purpose.",
    "unknown_channel": "The policy does not ask about this channel.",
    "ledger_unreadable": "The consent ledger could not be read.",
}


@dataclass(frozen=True)
class Standing:
    """The answer, its reason (`REASONS`), since when it stands, when it ends by itself, and the deciding leaf."""

    is_allowed: bool
    reason_code: str
    since_at: datetime | None = None
    expires_at: datetime | None = None
    leaf_index: int | None = None


class Readable(Protocol):
    """Anything that has a subject's events, such as a ledger."""

    def events_of(self, subject_id: str) -> Sequence[Recorded]: ...


def standing(
    events: Readable | Sequence[Recorded],
    subject_id: str,
    purpose_code: str,
    channel_code: str,
    at: datetime,
    *,
    policy: Policy,
    known_at: datetime | None = None,
) -> Standing:
    """Standing of one subject at a time (aware), from what had been received by `known_at` where that is given.

    A purpose asked as a whole is answered as a whole, whatever the channel. `*` asks for every channel at once.
    """
    purpose = policy.purposes.get(purpose_code)
    if purpose is None:
        return Standing(False, "unknown_purpose")
    if channel_code != EVERY and channel_code not in (
        policy.channels if EVERY in purpose.channels else purpose.channels
    ):
        return Standing(False, "unknown_channel")
    if not purpose.rests_on_consent:
        return Standing(True, "contract")
    asked = EVERY if EVERY in purpose.channels else channel_code
    try:
        found = events if isinstance(events, Sequence) else events.events_of(subject_id)
        mine = [recorded for recorded in found if recorded.event.subject_id == subject_id]
    except Exception:  # whatever keeps us from looking, the answer is no
        return Standing(False, "ledger_unreadable")
    said = [
        _said(recorded, purpose_code, at, policy)
        for recorded in mine
        if _counts(recorded.event, at, known_at) and _reaches(recorded.event, purpose_code, asked)
    ]
    return max(said, key=_rank) if said else Standing(False, "never_asked")


def merged(standings: Iterable[tuple[str, Standing]]) -> Standing:
    """Step 6: standing of a customer from (link type, standing) of each linked identity."""
    brought = [
        found
        for link_type, found in standings
        if link_type in GRANTING_LINKS or found.reason_code in REFUSALS or found.reason_code in UNKNOWABLE
    ]
    denied = [found for found in brought if not found.is_allowed and found.reason_code != "never_asked"]
    if denied:
        return max(denied, key=lambda found: (found.reason_code in UNKNOWABLE, *_rank(found)))
    granted = [found for found in brought if found.is_allowed]
    if not granted:
        return Standing(False, "never_asked")
    ends = [found.expires_at for found in granted if found.expires_at is not None]
    return replace(max(granted, key=_rank), expires_at=min(ends, default=None))


def standing_frame(
    events: pl.DataFrame, links: pl.DataFrame, policy: Policy, at: datetime, known_at: datetime | None = None
) -> pl.DataFrame:
    """Standing of every customer. One row per customer, asked purpose and asked channel, also without any event.

    `events`: columns of `consent.events.SCHEMA`. `links`: customer_id, identity_ref (the subject), link_type.
    Returns customer_id, purpose_code, channel_code, is_allowed, reason_code, since_at, expires_at, leaf_index and
    ledger_size.
    """
    rules = policy_frame(policy)
    asked = rules.select("purpose_code", "channel_code", "legal_basis").unique(maintain_order=True)
    subjects = _subject_frame(events, asked.filter(pl.col("legal_basis") == "consent"), policy, at, known_at)
    keys = ["customer_id", "purpose_code", "channel_code"]
    decided = (
        links.lazy()
        .select("customer_id", "identity_ref", "link_type")
        .join(subjects, left_on="identity_ref", right_on="subject_id")
        .filter(pl.col("link_type").is_in(GRANTING_LINKS) | pl.col("reason_code").is_in(REFUSALS))
        .with_columns(pl.col("expires_at").min().over(keys))
        .sort("is_allowed", "since_at", "leaf_index", descending=[False, True, True])
        .unique(keys, keep="first", maintain_order=True)
        .with_columns(pl.when("is_allowed").then("expires_at").alias("expires_at"))
        .select(*keys, "is_allowed", "reason_code", "since_at", "expires_at", "leaf_index")
    )
    on_contract = pl.col("legal_basis") == "contract"
    size = events["ledger_size"].max() if "ledger_size" in events.columns else None
    return (
        links.lazy()
        .select("customer_id")
        .unique()
        .join(asked.lazy(), how="cross")
        .join(decided, on=keys, how="left")
        .with_columns(
            pl.coalesce("is_allowed", on_contract),
            pl.coalesce("reason_code", pl.when(on_contract).then(pl.lit("contract")).otherwise(pl.lit("never_asked"))),
            pl.lit(size or 0, pl.Int64()).alias("ledger_size"),
        )
        .drop("legal_basis")
        .sort(keys)
        .collect()
    )


def _subject_frame(
    events: pl.DataFrame, asked: pl.DataFrame, policy: Policy, at: datetime, known_at: datetime | None
) -> pl.LazyFrame:
    """Steps 1 to 5 for every subject. One row per subject and asked pair that an event reaches."""
    now = pl.lit(at.astimezone(UTC), pl.Datetime("us", "UTC"))
    known = now if known_at is None else pl.lit(known_at.astimezone(UTC), pl.Datetime("us", "UTC"))
    is_signal = pl.col("event_type") == "signal_seen"
    is_grant = pl.col("event_type") == "grant"
    whole = pl.col("channel_code") == EVERY
    heard = (
        events.lazy()
        .filter(~is_signal | (pl.col("capture_method") == "gpc"))
        .with_columns(
            pl.when(is_signal).then(pl.lit(GPC_PURPOSE)).otherwise("purpose_code").alias("purpose_code"),
            pl.when(is_signal).then(pl.lit(EVERY)).otherwise("channel_code").alias("channel_code"),
            pl.min_horizontal("occurred_at", "recorded_at", "received_at").alias("happened_at"),
            pl.min_horizontal("recorded_at", "received_at").alias("bounded_at"),
        )
        .filter(pl.col("happened_at") <= now, pl.lit(known_at is None) | (pl.col("received_at") <= known))
    )
    pairs = asked.lazy().select("purpose_code", pl.col("channel_code").alias("asked_code"))
    reached = pl.concat(
        [
            heard.filter(pl.col("purpose_code") != EVERY).join(pairs, on="purpose_code"),
            heard.filter(pl.col("purpose_code") == EVERY).drop("purpose_code").join(pairs, how="cross"),
        ],
        how="diagonal",
    ).filter((pl.col("channel_code") == pl.col("asked_code")) | whole | (~is_grant & (pl.col("asked_code") == EVERY)))
    lasts = policy_frame(policy).lazy().select("purpose_code", "jurisdiction_code", "expires_after_days").unique()
    ends_at = pl.col("happened_at") + pl.duration(days="expires_after_days")
    reason = (
        pl.when(~is_grant)
        .then(pl.col("event_type").replace_strict({**DENIALS, "signal_seen": "gpc"}, default="refused"))
        .when((pl.col("notice_version") >= pl.col("minimum_version")).fill_null(False).not_())
        .then(pl.lit("stale_notice"))
        .when((ends_at <= now).fill_null(False))
        .then(pl.lit("expired"))
        .otherwise(pl.lit("granted"))
    )
    return (
        reached.with_columns(
            pl.when(pl.col("jurisdiction_code").is_in(list(policy.jurisdictions)))
            .then("jurisdiction_code")
            .otherwise(pl.lit(EVERY))
            .alias("jurisdiction_code")
        )
        .join(lasts, on=["purpose_code", "jurisdiction_code"])
        .join(notices_frame(policy).lazy(), on="notice_id", how="left")
        .with_columns(reason.alias("reason_code"))
        .select(
            "subject_id",
            "purpose_code",
            pl.col("asked_code").alias("channel_code"),
            (pl.col("reason_code") == "granted").alias("is_allowed"),
            "reason_code",
            pl.when(is_grant).then("happened_at").otherwise("bounded_at").alias("since_at"),
            pl.when(pl.col("reason_code") == "granted").then(ends_at).alias("expires_at"),
            "leaf_index",
        )
        .sort("since_at", "is_allowed", "leaf_index", descending=[True, False, True])
        .unique(["subject_id", "purpose_code", "channel_code"], keep="first", maintain_order=True)
    )


def _counts(event: Event, at: datetime, known_at: datetime | None) -> bool:
    """Step 3, and step 1 for signals that say nothing."""
    if event.event_type == "signal_seen" and event.capture_method != "gpc":
        return False
    return _happened_at(event) <= at and (known_at is None or event.received_at <= known_at)


def _reaches(event: Event, purpose_code: str, asked: str) -> bool:
    """Step 2: a yes must cover all that is asked; a no need only touch it."""
    if event.event_type == "signal_seen":
        return purpose_code == GPC_PURPOSE
    if event.purpose_code not in (purpose_code, EVERY):
        return False
    return event.channel_code in (asked, EVERY) or (event.event_type != "grant" and asked == EVERY)


def _said(recorded: Recorded, purpose_code: str, at: datetime, policy: Policy) -> Standing:
    """Steps 1 and 4: what one event says by itself."""
    event, leaf_index = recorded.event, recorded.leaf_index
    if event.event_type != "grant":
        reason = "gpc" if event.event_type == "signal_seen" else DENIALS.get(event.event_type, "refused")
        return Standing(False, reason, min(event.recorded_at, event.received_at), None, leaf_index)
    since_at = _happened_at(event)
    days = policy.days(purpose_code, event.jurisdiction_code)
    expires_at = None if days is None else since_at + timedelta(days=days)
    if not policy.is_current(event.notice_id, event.notice_version):
        return Standing(False, "stale_notice", since_at, None, leaf_index)
    if expires_at is not None and at >= expires_at:
        return Standing(False, "expired", since_at, None, leaf_index)
    return Standing(True, "granted", since_at, expires_at, leaf_index)


def _happened_at(event: Event) -> datetime:
    return min(event.occurred_at, event.recorded_at, event.received_at)


_BEFORE_ALL = datetime.min.replace(tzinfo=UTC)


def _rank(found: Standing) -> tuple[datetime, bool, int]:
    """Step 5: latest first; at the same instant a no before a yes; then the later leaf."""
    return (found.since_at or _BEFORE_ALL, not found.is_allowed, -1 if found.leaf_index is None else found.leaf_index)
