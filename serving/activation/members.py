"""Who was in a delivery: customer ids, tokens and the reference the recipient knows each by. Never contact data.

One Parquet file per delivery below `activation/members/` of the home, where an erasure finds its rows. A reference is made of the
delivery and the customer under a key of the home: it says nothing to anybody else, and is another in every delivery.
"""

import io
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from hmac import digest
from pathlib import Path

import polars as pl

from consent.ledger.opening import open_ledger
from consent.log.note import open_checkpoint
from consent.rule.policy import EVERY, read_policy
from models.permission import LINKS, FrameStanding, identities, policy_hash
from models.tables import naive
from serving.activation.deliveries import Delivery
from serving.activation.destinations import SHARING
from troth.clock import FixedClock
from troth.home import Home, write_atomically
from troth.published import current

# `attempt`: the last in which the person was handed over.
SCHEMA = {"customer_id": pl.String(), "contact_ref": pl.String(), "member_ref": pl.String(), "attempt": pl.Int64()}
NO_LONGER_KNOWN = "no_longer_known"


def folder_of(home: Home) -> Path:
    return home.root / "activation" / "members"


def path_of(home: Home, delivery_id: str) -> Path:
    return folder_of(home) / f"{delivery_id}.parquet"


def with_refs(home: Home, delivery_id: str, people: pl.DataFrame) -> pl.DataFrame:
    """People with the column `member_ref`: HMAC-SHA-256 over delivery and customer, 128 bits of it in hex."""
    key = home.key("activation")
    prefix = f"member\0{delivery_id}\0".encode()
    refs = [f"mbr_{digest(key, prefix + each.encode(), 'sha256')[:16].hex()}" for each in people["customer_id"]]
    return people.with_columns(pl.Series("member_ref", refs, dtype=pl.String))


def read_members(home: Home, delivery_id: str) -> pl.DataFrame:
    """Everybody in it, one row each; nobody where it is over or never was."""
    path = path_of(home, delivery_id)
    return pl.read_parquet(path) if path.exists() else pl.DataFrame(schema=SCHEMA)


def keep_members(home: Home, delivery_id: str, people: pl.DataFrame) -> None:
    """Remember who is in it, durable on return."""
    data = io.BytesIO()
    people.select(*SCHEMA).unique("member_ref", maintain_order=True).write_parquet(data, compression="zstd")
    write_atomically(path_of(home, delivery_id), data.getvalue())


def forget_members(home: Home, delivery_id: str) -> None:
    path_of(home, delivery_id).unlink(missing_ok=True)


def deliveries_with(home: Home, identifiers: Collection[str]) -> dict[str, list[str]]:
    """The member_refs of a person (customer ids, tokens) by delivery."""
    wanted = sorted(identifiers)
    found = {}
    for path in sorted(folder_of(home).glob("*.parquet")):
        is_theirs = pl.col("customer_id").is_in(wanted) | pl.col("contact_ref").is_in(wanted)
        refs = pl.scan_parquet(path).filter(is_theirs).select("member_ref").collect()["member_ref"].to_list()
        if refs:
            found[path.stem] = refs
    return found


def forget_person(home: Home, delivery_id: str, member_refs: Collection[str]) -> None:
    people = read_members(home, delivery_id)
    keep_members(home, delivery_id, people.filter(~pl.col("member_ref").is_in(list(member_refs))))


@dataclass(frozen=True)
class Standings:
    """How everybody stands now, by the ledger itself, with the questions that were asked so far."""

    basis: str  # what could change an answer: size of the ledger, identities, policy
    at: datetime
    rule: FrameStanding

    def ended(self, delivery: Delivery, people: pl.DataFrame) -> tuple[dict[str, str], datetime | None]:
        """Reason by member_ref of whoever may not be contacted any more; and when the next yes of the others ends.

        Somebody whose customer id is gone is asked about by their contact point, and so is a contact point that became somebody
        else's: every one of them has to allow it.
        """
        asked = _asked_about(people, self.rule.links)
        reasons: dict[str, str] = dict.fromkeys(
            people.filter(~pl.col("member_ref").is_in(asked["member_ref"].unique().to_list()))["member_ref"],
            NO_LONGER_KNOWN,
        )
        ends: list[datetime] = []
        for question, prefix in _questions(delivery):
            standing = self.rule.known_at(*question, self.at)
            answers = asked.join(standing, on="customer_id", how="left")
            refused = answers.filter(~pl.col("is_allowed").fill_null(False))
            for ref, reason in refused.select("member_ref", "reason_code").iter_rows():
                reasons.setdefault(ref, f"{prefix}{reason or NO_LONGER_KNOWN}")
            end = answers.filter(pl.col("is_allowed"))["expires_at"].min()
            if isinstance(end, datetime):
                ends.append(end)
        return reasons, min(ends, default=None)


def standings(home: Home, at: datetime) -> Standings:
    """From every event of the ledger, held against its signed root. Raises: LedgerError where it does not verify."""
    links = current(home, LINKS)
    with open_ledger(home, FixedClock(at)) as ledger:
        known = open_checkpoint(ledger.checkpoint(), ledger.verifier)
        events = ledger.frame(known.size)
    newest = events["received_at"].max()
    latest = max(naive(at), naive(newest)) if isinstance(newest, datetime) else naive(at)
    basis = f"{known.size} {known.root.hex()} {links.stem} {policy_hash()}"
    return Standings(basis, latest, FrameStanding(events, identities(links), read_policy()))


def basis_now(home: Home, at: datetime) -> str:
    """The same as `standings` has, without reading anybody's events."""
    with open_ledger(home, FixedClock(at)) as ledger:
        known = open_checkpoint(ledger.checkpoint(), ledger.verifier)
    return f"{known.size} {known.root.hex()} {current(home, LINKS).stem} {policy_hash()}"


def _questions(delivery: Delivery) -> list[tuple[tuple[str, str], str]]:
    """Purpose and channel of each question, and what its reasons begin with: as the export asked them."""
    channels = read_policy().purposes[delivery.purpose_code].channels
    own = (delivery.purpose_code, delivery.channel_code if delivery.channel_code in channels else EVERY)
    if not delivery.is_third_party or delivery.purpose_code == SHARING:
        return [(own, "")]
    return [(own, ""), ((SHARING, EVERY), f"{SHARING}_")]


def _asked_about(people: pl.DataFrame, links: pl.DataFrame) -> pl.DataFrame:
    """member_ref and each customer who has to allow it now."""
    known = links.select("customer_id").unique()
    theirs = links.select(pl.col("identity_ref").alias("contact_ref"), "customer_id").unique()
    same = people.join(known, on="customer_id", how="semi").select("member_ref", "customer_id")
    moved = people.join(theirs, on=["contact_ref", "customer_id"], how="anti")
    others = moved.drop("customer_id").join(theirs, on="contact_ref", how="inner").select("member_ref", "customer_id")
    return pl.concat([same, others]).unique(maintain_order=True)
