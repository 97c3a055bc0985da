"""Stand-alone auditor: `python -m consent verify <export folder> [--key KEY] [--since FILE] [--json]`.

Of ours it imports `log/audit.py` alone, and what that needs.
Ends with 0 when the export verifies, 1 when it does not, 2 on misuse.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from consent.log.audit import Verified, verify_export
from consent.log.merkle import VerificationError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the auditor. Returns the exit code."""
    asked = _parser().parse_args(arguments)
    if not asked.folder.is_dir():
        print(
            f"export: expected a folder, found none at {asked.folder}. Give the folder an export was written to.",
            file=sys.stderr,
        )
        return 2
    try:
        since = asked.since.read_bytes().decode() if asked.since else None
    except (OSError, UnicodeDecodeError) as fault:
        print(
            f"--since: expected a checkpoint file, found {type(fault).__name__}. Give a checkpoint you kept.",
            file=sys.stderr,
        )
        return 2
    try:
        verified = verify_export(asked.folder, key=asked.key, since=since)
    except VerificationError as evidence:
        return _refuse(evidence, asked.json)
    _tell(verified, asked.json, trusted=asked.key is not None)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m consent", description="Check an export of the consent ledger without trusting its maker."
    )
    verify = parser.add_subparsers(required=True, metavar="verify").add_parser(
        "verify", help="re-derive the tree and check every byte"
    )
    verify.add_argument("folder", type=Path, help="the export")
    verify.add_argument("--key", help="verifier key, known from elsewhere than the export")
    verify.add_argument("--since", type=Path, help="a checkpoint file kept from before: the export must contain it")
    verify.add_argument("--json", action="store_true", help="one JSON object instead of words")
    return parser


def _refuse(evidence: VerificationError, as_json: bool) -> int:
    found = {
        "verified": False,
        "what": evidence.what,
        "expected": evidence.expected,
        "found": evidence.found,
        "message": str(evidence),
    }
    if as_json:
        print(json.dumps(found))
    else:
        print(f"does not verify\n{evidence}", file=sys.stderr)
    return 1


def _tell(verified: Verified, as_json: bool, trusted: bool) -> None:
    if as_json:
        print(json.dumps({"verified": True, "key_given": trusted, **asdict(verified)}))
        return
    print(f"verified: {verified.size} events under {verified.checkpoint_count} checkpoints")
    print(f"root {verified.root}\nkey {verified.verifier_key}")
    if not trusted:
        print("The key came with the export. Compare it with one you know from elsewhere (--key).")


if __name__ == "__main__":
    sys.exit(main())
