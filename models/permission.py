"""Standing of every customer at a time, by the rule of `consent`: from published tables or from the ledger itself."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import polars as pl
import polars.selectors as cs

from consent.events import SCHEMA
from consent.rule.policy import EVERY, POLICY_FILE, Policy, read_policy
from consent.rule.standing import IDENTITIES, standing_frame, touching
from models.errors import ModelsError
from models.tables import read
from troth.home import Home
from troth.ids import file_hash
from troth.published import current

LINKS = "customer_identities"
# A message over these channels needs a purpose that people are asked about channel by channel, or a contract.
WRITTEN_TO = ("email", "sms", "push", "post")


def policy_hash() -> str:
    """The version of the policy: SHA-256 of its file, in hex."""
    return file_hash(POLICY_FILE)


def asked_channel(policy: Policy, what: str, purpose_code: str, channel_code: str) -> str:
    """The channel under which people are asked for a purpose: the channel itself, or `*`.

    Raises: ModelsError for an unknown purpose or channel, or a purpose that does not cover writing to people.
    """
    purpose = policy.purposes.get(purpose_code)
    if purpose is None:
        raise ModelsError(
            f"{what}, purpose: expected one of {', '.join(policy.purposes)}, found {purpose_code}. Choose one of them."
        )
    if channel_code not in policy.channels:
        raise ModelsError(
            f"{what}, channel: expected one of {', '.join(policy.channels)}, found {channel_code}. Choose one of them."
        )
    if channel_code in purpose.channels:
        return channel_code
    if EVERY in purpose.channels and (channel_code not in WRITTEN_TO or purpose.rests_on_contract):
        return EVERY
    raise ModelsError(
        f"{what}, purpose: expected one that people are asked about for {channel_code}, found {purpose_code}. "
        "Use marketing, or a channel that does not write to them."
    )


@dataclass(frozen=True)
class FrameStanding:
    """Standing from consent events and the identities they are linked to, in frames."""

    events: pl.DataFrame
    links: pl.DataFrame
    policy: Policy
    answered: dict[tuple[str, str, datetime], pl.DataFrame] = field(default_factory=dict, compare=False)

    @classmethod
    def published(cls, home: Home, events: pl.DataFrame | None = None) -> Self:
        """From the published tables; events may be handed in from the ledger itself."""
        return cls(
            events=_published_events(home) if events is None else events,
            links=identities(current(home, LINKS)),
            policy=read_policy(),
        )

    def known_at(self, purpose_code: str, channel_code: str, at: datetime) -> pl.DataFrame:
        """customer_id, is_allowed, reason_code, since_at, expires_at, leaf_index at a naive UTC time, from what had been received by then."""
        asked = (purpose_code, channel_code, at)
        if asked not in self.answered:
            self.answered[asked] = self._answer(*asked)
        return self.answered[asked]

    def _answer(self, purpose_code: str, channel_code: str, at: datetime) -> pl.DataFrame:
        """Asks for this purpose and channel alone: the policy and the events are narrowed to what can touch them."""
        moment = at.replace(tzinfo=UTC)
        purpose = replace(self.policy.purposes[purpose_code], channels=(channel_code,))
        return standing_frame(
            self.events.filter(touching(purpose_code)),
            self.links,
            replace(self.policy, purposes={purpose_code: purpose}),
            moment,
            known_at=moment,
        ).select("customer_id", "is_allowed", "reason_code", "since_at", "expires_at", "leaf_index")


def identities(path: Path, of: Iterable[str] | None = None, refs: Iterable[str] = ()) -> pl.DataFrame:
    """Whose identities are whose, of a published version; one from before there were groups has no group_ref.

    `of`: rows of these customers alone, and of whoever else has one of the identities `refs`.
    """
    rows = pl.scan_parquet(path).select(cs.by_name(*IDENTITIES, require_all=False))
    if of is not None:
        rows = rows.filter(pl.col("customer_id").is_in([*of]) | pl.col("identity_ref").is_in([*refs]))
    return rows.collect()


def _published_events(home: Home) -> pl.DataFrame:
    """Consent events in the ledger's own shape: aware UTC times."""
    frame = read(home, "consent_events", list(SCHEMA))
    return frame.select(
        pl.col(name).dt.replace_time_zone("UTC") if isinstance(kind, pl.Datetime) else pl.col(name).cast(kind)
        for name, kind in SCHEMA.items()
    )
