"""Receipts of what customers' data is used for, recorded when it is used.

A subject here is a customer; whose identities are whose is an input of the decision, named by its published version. What a
receipt holds and how it verifies belongs to `decisions.py`; that it is decided again, to `models/decisions.py`.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import polars as pl

from consent.errors import ConsentError
from consent.ledger.opening import signer_of
from consent.log.entry import subject_key
from consent.log.merkle import VerificationError, canonical
from consent.log.note import Verifier, open_note, sign_note, to_base64
from consent.receipts import decisions
from consent.receipts.decisions import DecisionReceipt, Question, Use
from consent.receipts.shopper import policy_hash
from consent.rule.policy import POLICY_FILE, Policy, read_policy
from troth.clock import Clock
from troth.home import Home, write_atomically
from troth.ids import file_hash

LINKS = "customer_identities"
REPLACED = "troth replaced version 1"
SEAL = "troth manifest seal 1"
VERSION_CHARACTERS = 32  # of a file's hash, in the name of what is kept by it
_COLUMNS = ("is_allowed", "reason_code", "since_at", "expires_at", "leaf_index")


@dataclass(frozen=True)
class Basis:
    """What a use was decided under: a checkpoint of the ledger, and the version of the identities it was decided over."""

    checkpoint: str
    links_version: str


def folder_of(home: Home) -> Path:
    """Where the home keeps receipts of use."""
    return home.root / "decisions"


def record(
    home: Home,
    use: str,
    asked_by: str,
    asked: tuple[str, str, datetime],
    customers: pl.Series,
    standing: pl.DataFrame,
    basis: Basis,
    clock: Clock,
    *,
    definition: str | None = None,
    outputs: Mapping[str, str] | None = None,
) -> DecisionReceipt:
    """Sign and keep the receipt of a use. `asked`: purpose, channel, naive UTC time, at which all that was known counted.

    `standing`: customer_id and the columns of `standing_frame`'s answer; whoever of the customers is missing was never asked.
    """
    purpose_code, channel_code, moment = asked
    at = moment.replace(tzinfo=UTC)
    told = Use(
        use=use,
        asked_by=asked_by,
        question=Question(purpose_code, channel_code, at, at),
        policy_sha256=keep_policy(home),
        definition_sha256=definition,
        inputs={LINKS: file_hash(links_file(home, basis.links_version))},
        outputs=dict(outputs or {}),
    )
    rows = answers(customers.to_list(), standing)
    return decisions.record(folder_of(home), told, rows, basis.checkpoint, signer_of(home), clock)


def answers(customers: Sequence[str], standing: pl.DataFrame) -> pl.DataFrame:
    """One row per customer, in the shape a receipt commits to."""
    asked = pl.DataFrame({"subject_id": customers}, schema={"subject_id": pl.String()})
    return asked.join(
        standing.select(pl.col("customer_id").alias("subject_id"), *_COLUMNS), on="subject_id", how="left"
    ).with_columns(pl.col("is_allowed").fill_null(False), pl.col("reason_code").fill_null("never_asked"))


def links_file(home: Home, version: str) -> Path:
    """A version of the identities. Raises: ConsentError where it is not there any more."""
    path = home.published / LINKS / f"{version}.parquet"
    if not path.is_file():
        raise ConsentError(
            f"published table {LINKS}: expected the version of the decision, found none of that name. "
            "It was replaced by an erasure, or removed: the receipt stands on its signature."
        )
    return path


def keep_policy(home: Home) -> str:
    """Keep the policy that uses are decided under now by its hash, and say it: they are decided again under it when it is another."""
    hashed, _ = _policy_in(POLICY_FILE)
    path = _kept_policy(home, hashed)
    if not path.exists():
        write_atomically(path, POLICY_FILE.read_bytes())
    return hashed


def policy_of(home: Home, hashed: str) -> Policy:
    """The policy of a decision, by its hash: today's, or one that was kept. Raises: VerificationError where it is neither."""
    other, found = _policy_in(POLICY_FILE)
    kept = _kept_policy(home, hashed)
    if other != hashed and kept.is_file():
        other, found = _policy_in(kept)
    if other != hashed:
        raise VerificationError("policy", f"hash {hashed}", other, "Restore the policy of its time below decisions/")
    return found


def _policy_in(path: Path) -> tuple[str, Policy]:
    found = read_policy(path)
    return policy_hash(found), found


def _kept_policy(home: Home, hashed: str) -> Path:
    return folder_of(home) / "policies" / f"{hashed[:VERSION_CHARACTERS]}.yml"


def replaced(home: Home, was: str, now: str, customers: Iterable[str]) -> None:
    """Write down, signed, that an erasure made another version of the identities: hashes of both files, and whom it touched.

    Customers stand in it as the keys decisions know them by. Decisions that name the old version are decided again over the new one.
    """
    told = {"table": LINKS, "was": was, "now": now, "subject_keys": sorted(subject_key(one).hex() for one in customers)}
    note = sign_note(f"{REPLACED}\n{canonical(told).decode()}\n", signer_of(home))
    write_atomically(_replacement(home, was), note.encode())


def links_of(home: Home, hashed: str, key: Verifier) -> tuple[Path, frozenset[str]]:
    """The identities of a decision, by the hash of their file; and the keys of customers whom erasures touched in it since.

    Raises: ConsentError where they are not there any more; VerificationError where they are not those.
    """
    touched: frozenset[str] = frozenset()
    while (note := _replacement(home, hashed)).is_file():
        told = _replaced(note.read_bytes().decode(errors="replace"), key, hashed)
        touched |= frozenset(told["subject_keys"])
        hashed = told["now"]
    path = links_file(home, hashed[:VERSION_CHARACTERS])
    if (found := file_hash(path)) != hashed:
        raise VerificationError(f"published table {LINKS}", f"hash {hashed}", found, "It was changed")
    return path, touched


def _replacement(home: Home, hashed: str) -> Path:
    return folder_of(home) / "replaced" / f"{hashed[:VERSION_CHARACTERS]}.txt"


def _replaced(note: str, key: Verifier, hashed: str) -> dict[str, Any]:
    what = f"replaced version {hashed[:VERSION_CHARACTERS]}"
    first, _, rest = open_note(note, [key]).text.partition("\n")
    told: dict[str, Any] = json.loads(rest) if first == REPLACED else {}
    if told.get("was") != hashed:
        raise VerificationError(what, f"{REPLACED} of {hashed}", "another note", "Restore it from a backup")
    return told


def sealed_manifest(home: Home, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest of what went out, with a note of the ledger's key over the rest of it."""
    unsealed = {**manifest, "seal": None}
    return {**unsealed, "seal": sign_note(_seal_of(unsealed), signer_of(home))}


def check_manifest(manifest: Mapping[str, Any], key: Verifier) -> None:
    """That a manifest is as it was sealed. Raises: VerificationError."""
    expected, found = _seal_of({**manifest, "seal": None}), open_note(str(manifest["seal"]), [key]).text
    if expected != found:
        raise VerificationError(
            "manifest.json", found.split("\n")[1], expected.split("\n")[1], "It was changed after it was sealed"
        )


def has_seal(home: Home, manifest: Mapping[str, Any]) -> bool:
    """Whether a manifest is as it was sealed, so that it may be sealed anew with something else in it."""
    try:
        check_manifest(manifest, signer_of(home).verifier)
    except (VerificationError, KeyError):
        return False
    return True


def _seal_of(manifest: Mapping[str, Any]) -> str:
    return f"{SEAL}\nsha256 {to_base64(sha256(canonical(manifest)).digest())}\n"
