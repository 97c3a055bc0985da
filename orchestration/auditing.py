"""What an auditor asks on the command line: does the ledger verify, and what did a subject say, provably."""

from typing import TYPE_CHECKING, Any

from troth.clock import SystemClock
from troth.errors import TrothError
from troth.home import Home

if TYPE_CHECKING:
    from pathlib import Path


def verify(home: Home, export: "Path | None") -> dict[str, Any]:
    """Verify an export, or make one of the home's ledger first. The answer carries the evidence when it does not verify."""
    from consent.audit import verify_export
    from consent.ledger import open_ledger
    from consent.merkle import VerificationError

    if export is None:
        if not home.ledger.exists():
            raise TrothError(f"ledger: expected one at {home.ledger}, found none. Run `troth run` first.")
        with open_ledger(home, SystemClock()) as ledger:
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

    Raises: TrothError when neither a customer nor a subject of that id is known.
    """
    from consent.ledger import open_ledger
    from consent.merkle import verify_inclusion

    identities = _identities(home, subject)
    events = []
    with open_ledger(home, SystemClock()) as ledger:
        size, root = ledger.size, ledger.root()
        for subject_id, link in identities:
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
    if not events and not identities:
        raise TrothError(
            "subject: expected a customer id (cus_...) or an identifier token, found an unknown one. See `troth ask customer`."
        )
    return {
        "subject": subject,
        "ledger_size": size,
        "root": root.hex(),
        "identities": len(identities),
        "events": sorted(events, key=lambda event: event["leaf"]),
        "standing": _standing(home, subject),
    }


def _identities(home: Home, subject: str) -> list[tuple[str, str]]:
    import polars as pl

    from troth.published import current

    if not subject.startswith("cus_"):
        return [(subject, "itself")]
    rows = pl.scan_parquet(current(home, "customer_identities")).filter(pl.col("customer_id") == subject)
    return list(rows.select("identity_ref", "link_type").sort("identity_ref").collect().iter_rows())


def _standing(home: Home, subject: str) -> list[dict[str, Any]]:
    import polars as pl

    from troth.published import current

    rows = pl.scan_parquet(current(home, "consent_standing")).filter(pl.col("customer_id") == subject)
    columns = ["purpose_code", "channel_code", "is_allowed", "reason_code", "since_at", "expires_at"]
    return rows.select(columns).sort(columns[:2]).collect().to_dicts()
