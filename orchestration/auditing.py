"""What an auditor asks on the command line: does the ledger verify, what did a subject say, provably, and what does it allow."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC
from typing import TYPE_CHECKING, Any

from orchestration.errors import MISUSE, NOTHING_READABLE, RunError
from troth.clock import SystemClock
from troth.home import Home

_FRACTION = re.compile(r"(?<=\d\d:\d\d:\d\d)\.\d+Z$")

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


def identities_of(home: Home, subject: str) -> list[tuple[str, str, str]]:
    """Identity, link type and proved group of each of a customer's identities, or of the one named."""
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


def show(home: Home, subject: str, at: "datetime", known_at: "datetime | None") -> dict[str, Any]:
    """Standing of a subject, or of a customer over all its identities, for every purpose and channel that is asked."""
    import polars as pl

    from consent.rule.explanations import explain
    from consent.rule.policy import read_policy
    from consent.rule.standing import IDENTITIES
    from serving.audit.persons import Known, standing_of

    policy, identities = read_policy(), identities_of(home, subject)
    links = pl.DataFrame([(subject, *each) for each in identities], schema=IDENTITIES, orient="row")
    with reading(home) as ledger:
        size, root = ledger.size, ledger.root().hex()
        found = list(standing_of(ledger, Known(subject, links), policy, at, known_at))
    rows = [
        {
            "purpose": code,
            "channel": channel,
            "is_allowed": one.is_allowed,
            "reason": one.reason_code,
            "since_at": seconds(one.since_at),
            "expires_at": seconds(one.expires_at),
            "leaf": one.leaf_index,
        }
        for _, code, channel, one in found
    ]
    words = {f"{code} {channel}": explain(one, "marketer", policy, code, channel) for _, code, channel, one in found}
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


def for_people(answer: Any) -> dict[str, Any]:
    """An audit as it is printed: what was found, then the checks; sentences and whole hashes are for `--json`."""
    import msgspec

    told: dict[str, Any] = msgspec.to_builtins(answer, enc_hook=str, str_keys=True)
    checks = told.pop("checks")
    told.pop("checkpoint", None)
    for name, rows in told.items():
        if isinstance(rows, list) and rows and isinstance(rows[0], dict):
            told[name] = [{key: _short(value) for key, value in row.items() if key != "in_words"} for row in rows]
        elif rows == []:
            told[name] = "none"
    told["checks"] = [
        {"outcome": each["outcome"], "check": each["check"], "evidence": each["evidence"]} for each in checks
    ]
    return told


def _short(value: Any) -> Any:
    """A cell of a table: times to the second, lists and counts in one line."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {count}" for key, count in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return _FRACTION.sub("Z", value) if isinstance(value, str) else value


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
