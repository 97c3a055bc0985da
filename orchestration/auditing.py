"""What an auditor asks on the command line: does the ledger verify, what did a subject say, provably, and what does it allow."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC
from typing import TYPE_CHECKING, Any

from orchestration.errors import MISUSE, NOTHING_READABLE, RunError
from troth.clock import SystemClock
from troth.home import Home

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from consent.ledger.ledger import Ledger


def verify(home: Home, export: "Path | None") -> dict[str, Any]:
    """Verify an export, or make one of the home's ledger first. The answer carries the evidence when it does not verify."""
    from consent.log.audit import verify_export
    from consent.log.merkle import VerificationError

    if export is None:
        with reading(home) as ledger:
            ledger.verify()
            export = ledger.export(home.exports / "ledger")
    try:
        verified = verify_export(export)
    except VerificationError as evidence:
        return {"is_verified": False, "evidence": str(evidence), "export": str(export)}
    return {
        "is_verified": True,
        "ledger_size": verified.size,
        "root": verified.root,
        "checkpoints": verified.checkpoint_count,
        "verifier_key": verified.verifier_key,
        "export": str(export),
        "check_it_yourself": f"python -m consent verify {export}",
    }


def trace(home: Home, subject: str) -> dict[str, Any]:
    """Events of a customer or of one identifier token, each proved to be in the ledger, and the standing that follows.

    Raises: RunError when neither a customer nor a subject of that id is known.
    """
    from consent.log.merkle import verify_inclusion

    identities = identities_of(home, subject)
    events = []
    with reading(home) as ledger:
        size, root = ledger.size, ledger.root()
        for subject_id, link, _ in identities:
            for recorded in ledger.events_of(subject_id):
                index, event = recorded.leaf_index, recorded.event
                verify_inclusion(ledger.leaf_hash(index), index, size, ledger.inclusion_proof(index), root)
                events.append(
                    {
                        "leaf": index,
                        "proved": "included",
                        "said_at": event.occurred_at.isoformat(timespec="seconds"),
                        "event": event.event_type,
                        "purpose": event.purpose_code,
                        "channel": event.channel_code,
                        "place": event.capture_place,
                        "notice": f"{event.notice_id} v{event.notice_version}" if event.notice_id else None,
                        "identity": f"{subject_id[:14]}... ({link})",
                    }
                )
    return {
        "subject": subject,
        "ledger_size": size,
        "root": root.hex(),
        "identities": len(identities),
        "events": sorted(events, key=lambda event: event["leaf"]),
        "standing": _standing(home, subject),
    }


def identities_of(home: Home, subject: str) -> list[tuple[str, str, str]]:
    """Identity, link type and proved group of each of a customer's identities, or of the one named."""
    import re

    import polars as pl

    from consent.rule.standing import IDENTITIES, proved_groups
    from models.permission import LINKS, identities
    from troth.published import current

    if re.fullmatch(r"[a-z]+_[a-z2-7]{22}", subject) and not subject.startswith("cus_"):
        return [(subject, "itself", subject)]
    found = []
    if subject.startswith("cus_"):
        mine = proved_groups(identities(current(home, LINKS))).filter(pl.col("customer_id") == subject)
        found = list(mine.select(IDENTITIES[1:]).sort("identity_ref").iter_rows())
    if not found:
        raise RunError(
            "subject: expected the id of a customer (cus_...) or an identifier token (email_...), found neither. "
            "See `troth ask customer`.",
            MISUSE,
        )
    return found


def _standing(home: Home, subject: str) -> list[dict[str, Any]]:
    import polars as pl

    from troth.published import current

    rows = pl.scan_parquet(current(home, "consent_standing")).filter(pl.col("customer_id") == subject)
    columns = ["purpose_code", "channel_code", "is_allowed", "reason_code", "since_at", "expires_at"]
    return rows.select(columns).sort(columns[:2]).collect().to_dicts()


def show(home: Home, subject: str, at: "datetime", known_at: "datetime | None") -> dict[str, Any]:
    """Standing of a subject, or of a customer over all its identities, for every purpose and channel that is asked."""
    from consent.rule.explanations import explain
    from consent.rule.policy import read_policy
    from consent.rule.standing import Standing, merged_groups, standing
    from serving.hub.preferences import history as heard_of

    policy = read_policy()
    with reading(home) as ledger:
        identities = identities_of(home, subject)
        size, root = ledger.size, ledger.root().hex()
        said = [(one, link, group, heard_of(ledger, one)) for one, link, group in identities]
    rows, words = [], {}
    for code, purpose in policy.purposes.items():
        for channel in purpose.channels:
            answers = [
                (group, link, standing(events, one, code, channel, at, policy=policy, known_at=known_at))
                for one, link, group, events in said
            ]
            alone = subject == said[0][0]
            found = Standing(True, "contract") if purpose.rests_on_contract else merged_groups(answers)
            found = answers[0][2] if alone else found
            rows.append(
                {
                    "purpose": code,
                    "channel": channel,
                    "is_allowed": found.is_allowed,
                    "reason": found.reason_code,
                    "since_at": seconds(found.since_at),
                    "expires_at": seconds(found.expires_at),
                    "leaf": found.leaf_index,
                }
            )
            words[f"{code} {channel}"] = explain(found, "marketer", policy, code, channel)
    return {
        "subject": subject,
        "at": seconds(at),
        "known_at": seconds(known_at),
        "ledger_size": size,
        "root": root,
        "identities": len(identities),
        "standing": rows,
        "in_words": words,
    }


def history(home: Home, subject: str) -> dict[str, Any]:
    """Every event of a subject or of a customer's identities; a leaf that was erased says only that it is there."""
    from consent.events import decode

    with reading(home) as ledger:
        identities = identities_of(home, subject)
        rows = []
        for number, (one, _, _) in enumerate(identities, start=1):
            for leaf in ledger.leaves_of(one):
                opened = ledger.opened(leaf)
                row: dict[str, Any] = {"leaf": leaf, "event": "(erased)"}
                if opened is not None:
                    event = decode(opened.event)
                    row = {
                        "leaf": leaf,
                        "event": event.event_type,
                        "purpose": event.purpose_code,
                        "channel": event.channel_code,
                        "occurred_at": seconds(event.occurred_at),
                        "recorded_at": seconds(event.recorded_at),
                        "received_at": seconds(event.received_at),
                        "notice": f"{event.notice_id} v{event.notice_version}" if event.notice_id else None,
                        "method": event.capture_method,
                        "place": event.capture_place,
                        "by": event.actor_id or event.actor_type,
                        "jurisdiction": event.jurisdiction_code,
                    }
                rows.append({**row, "identity": number})
        size = ledger.size
    rows.sort(key=lambda row: row["leaf"])
    known_as = [
        {"identity": number, "token": one, "link": link} for number, (one, link, _) in enumerate(identities, start=1)
    ]
    return {"subject": subject, "ledger_size": size, "identities": known_as, "events": rows}


@contextmanager
def reading(home: Home) -> Iterator["Ledger"]:
    """The home's ledger. Raises: RunError, with the code of what cannot be read, when there is none or it is in doubt."""
    from consent.errors import LedgerError
    from consent.ledger.opening import has_ledger, ledger_place, open_ledger

    try:
        if not has_ledger(home):
            found = f"ledger: expected one in {ledger_place(home)}, found none. Run `troth run` first."
            raise RunError(found, NOTHING_READABLE)
        with open_ledger(home, SystemClock()) as ledger:
            yield ledger
    except LedgerError as fault:
        raise RunError(str(fault), NOTHING_READABLE) from fault


def seconds(at: "datetime | None") -> str | None:
    """UTC to the second, as people read it."""
    return None if at is None else at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
