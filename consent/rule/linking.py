"""The link events to append, so that the ledger says of identities what the warehouse believes.

What links mean is said in `identity.py`.
"""

from datetime import datetime
from hashlib import sha256

import polars as pl

from consent.events import FIELDS, SCHEMA
from consent.rule.identity import (
    DETERMINISTIC,
    EVERY_TYPE,
    HUB,
    LINK_EVENTS,
    LINKED,
    PROBABILISTIC,
    UNLINKED,
)
from consent.rule.standing import GRANTING_LINKS, IDENTITIES, proved_groups

_LINK = ("first_id", "second_id", "link_type")


def record_links(ledger: pl.DataFrame, current: pl.DataFrame, at: datetime) -> pl.DataFrame:
    """The link events to append so that the ledger says what the warehouse believes now: rows with the event's columns.

    `ledger`: its rows. `current`: customer_id, identity_ref, link_type, group_ref (without it a customer is one proved group), and
    linked_at (naive UTC) where known. Each group's identities are linked to its hub, and the hubs of a customer's groups to one
    another, two events a link, one for each side. Left out is who was erased, with every group proved to be them, but for what
    was first seen since. Events are named by the link and how often it was made before, so appending what was appended already
    changes nothing; what was linked at this very time is unlinked at a later one.
    """
    said, erased = _links_said(ledger), _erased(ledger)
    held, meant = _held(said, erased), _meant(_without_erased(current, erased))
    changes = pl.concat(
        [
            held.filter(pl.col("on_at") < at)
            .join(meant, on=_LINK, how="anti")
            .select(*_LINK, event_type=pl.lit(UNLINKED)),
            meant.join(held, on=_LINK, how="anti").select(*_LINK, event_type=pl.lit(LINKED)),
        ]
    )
    made = said.group_by(*_LINK, "event_type").agg(pl.col("signal_id").n_unique().alias("times"))
    named = (
        changes.join(made, on=[*_LINK, "event_type"], how="left")
        .join(erased.rename({"subject_id": "first_id"}), on="first_id", how="left")
        .join(erased.rename({"subject_id": "second_id"}), on="second_id", how="left", suffix="_too")
        .select(
            *(*_LINK, "event_type"),
            pl.col("times").fill_null(0),
            # Whose own events cannot be read any more begins anew, under names of its own.
            pl.max_horizontal("erased_at", "erased_at_too").alias("anew_at"),
        )
        .sort(pl.col("event_type") == LINKED, *_LINK)
    )
    return _link_events(named, at)


def _links_said(ledger: pl.DataFrame) -> pl.DataFrame:
    """first_id, second_id (the smaller id first), link_type, event_type, signal_id and clocks of the ledger's link events."""
    one, other = pl.col("subject_id"), pl.col("linked_subject_id")
    return (
        ledger.lazy()
        .filter(pl.col("event_type").is_in(LINK_EVENTS), other.is_not_null(), one != other)
        .select(
            pl.min_horizontal(one, other).alias("first_id"),
            pl.max_horizontal(one, other).alias("second_id"),
            pl.col("link_type").fill_null(EVERY_TYPE),
            *("event_type", "signal_id", "received_at"),
            pl.min_horizontal("occurred_at", "recorded_at", "received_at").alias("happened_at"),
        )
        .collect()
    )


def _erased(ledger: pl.DataFrame) -> pl.DataFrame:
    """subject_id and erased_at of everyone who was erased."""
    erased = ledger.filter(event_type="erased")
    return erased.group_by("subject_id").agg(pl.col("received_at").max().alias("erased_at"))


def _held(said: pl.DataFrame, erased: pl.DataFrame) -> pl.DataFrame:
    """The typed links that the ledger holds to be there, each since `on_at`."""
    linked, ended = said.filter(event_type=LINKED), said.filter(event_type=UNLINKED)
    off_at = pl.col("received_at").max().alias("off_at")
    ends = (
        ended.group_by(_LINK).agg(off_at),
        ended.filter(link_type=EVERY_TYPE).group_by(_LINK[:2]).agg(off_at),
        erased.rename({"subject_id": "first_id", "erased_at": "off_at"}),
        erased.rename({"subject_id": "second_id", "erased_at": "off_at"}),
    )
    held = (
        linked.filter(pl.col("link_type") != EVERY_TYPE).group_by(_LINK).agg(pl.col("happened_at").max().alias("on_at"))
    )
    for each in ends:
        held = (
            held.join(each, on=[name for name in _LINK if name in each.columns], how="left")
            .filter((pl.col("off_at") <= pl.col("on_at")).fill_null(True))
            .drop("off_at")
        )
    return held


def _without_erased(current: pl.DataFrame, erased: pl.DataFrame) -> pl.DataFrame:
    """What is believed of those who were not erased, or of what was first seen after that."""
    first_seen = pl.col("linked_at") if "linked_at" in current.columns else pl.lit(None, pl.Datetime("us"))
    known = proved_groups(current).select(*IDENTITIES, linked_at=first_seen)
    gone = known.join(
        erased.with_columns(pl.col("erased_at").dt.replace_time_zone(None)),
        left_on="identity_ref",
        right_on="subject_id",
    ).filter(~(pl.col("linked_at") > pl.col("erased_at")).fill_null(False))
    groups = gone.filter(pl.col("link_type").is_in(GRANTING_LINKS)).select("customer_id", "group_ref")
    left = known.join(gone, on=["customer_id", "identity_ref"], how="anti")
    return left.join(groups, on=["customer_id", "group_ref"], how="anti").drop("linked_at")


def _meant(current: pl.DataFrame) -> pl.DataFrame:
    """first_id, second_id and link_type of each identity with the hub of its group, and of a customer's hubs with one another.

    A group without a hub is linked to the first that is proved.
    """
    kind, group = pl.col("link_type"), ["customer_id", "group_ref"]
    is_other, is_contact = ~kind.is_in((HUB, PROBABILISTIC)), ~kind.is_in(GRANTING_LINKS)
    kinds = (
        current.drop_nulls()
        .sort(*group, "identity_ref", is_other, is_contact, "link_type")  # one told twice: by its strongest proof
        .unique([*group, "identity_ref"], keep="first", maintain_order=True)
    )
    hubs = (
        kinds.sort(*group, is_other, is_contact, "identity_ref")
        .unique(group, keep="first", maintain_order=True)
        .select(*group, hub_ref="identity_ref")
    )
    stars = kinds.join(hubs, on=group).select(
        "identity_ref", "hub_ref", pl.when(is_other).then(kind).otherwise(pl.lit(DETERMINISTIC)).alias("link_type")
    )
    pairs = hubs.join(hubs.rename({"hub_ref": "identity_ref"}), on="customer_id").select(
        "identity_ref", "hub_ref", link_type=pl.lit(PROBABILISTIC)
    )
    one, other = pl.col("identity_ref"), pl.col("hub_ref")
    return (
        pl.concat([stars, pairs])
        .filter(one != other)
        .select(
            pl.min_horizontal(one, other).alias("first_id"),
            pl.max_horizontal(one, other).alias("second_id"),
            "link_type",
        )
        .unique()
    )


def _link_events(named: pl.DataFrame, at: datetime) -> pl.DataFrame:
    """An event for each side of each link."""
    names = [_digest(event_type, *link, str(times), *(() if anew_at is None else (anew_at.isoformat(),)))
             for *link, event_type, times, anew_at in named.iter_rows()]  # fmt: skip
    told: dict[str, str | datetime] = {
        "purpose_code": "*", "channel_code": "*", "jurisdiction_code": "*", "capture_method": "identity_resolution",
        "capture_place": "warehouse", "actor_type": "system", "occurred_at": at, "recorded_at": at, "received_at": at,
    }  # fmt: skip
    sides = named.select("event_type", "link_type", *_LINK[:2]).with_columns(
        pl.Series("signal_id", names, pl.String()), pl.int_range(pl.len()).alias("number")
    )
    both = pl.concat(
        (sides.rename({one: "subject_id", other: "linked_subject_id"}) for one, other in (_LINK[:2], _LINK[1::-1])),
        how="diagonal",
    )
    return both.sort("number", "subject_id").select(
        (pl.col(name) if name in both.columns else pl.lit(told.get(name))).cast(SCHEMA[name]).alias(name)
        for name in FIELDS
    )


def _digest(*said: str) -> str:
    return f"link-{sha256(chr(0).join(said).encode()).hexdigest()[:32]}"
