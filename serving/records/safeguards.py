"""Technical and organisational measures (GDPR 30(1)(g), 32) that are on, each by looking at what the home holds. What cannot be told
from here says so. Terms: technical measures of the Data Privacy Vocabulary 2.0.
"""

import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from datetime import datetime
from functools import lru_cache
from pathlib import Path

from consent.ledger.opening import has_ledger, ledger_size
from consent.rights import FILE as RIGHTS_FILE
from models.purpose_flow.kept import kept
from serving import keys
from serving.console import accounts, looks
from serving.console.roles import ROLES
from serving.operations import read_log
from serving.records.shapes import Measure
from troth.home import Home


def measures(home: Home, at: datetime) -> list[Measure]:
    """Every measure, on or not, with what was looked at."""
    listed: list[tuple[str, str, str, Callable[[Home], tuple[bool | None, str]]]] = [
        ("vault_encrypted", "Contact data is encrypted, each value under a key of its own", "dpv:EncryptionAtRest", _vault),
        ("keys_apart", "The key that opens all others rests elsewhere", "dpv:CryptographicKeyManagement", _keys),
        ("ledger_signed", "What people said is kept in a signed log that only grows, encrypted under a key per person", "dpv:DigitalSignatures", _ledger),
        ("tokens", "Identifiers stand in tables as keyed tokens", "dpv:Pseudonymisation", _tokens),
        ("purpose_flow", "No personal data reaches a use that its purpose does not cover; checked over all columns before anything is published", "dpv:InformationFlowControl", _flow),
        ("standing", "Every read, segment, export and training asks per person whether it may, and absence of an answer is a no", "dpv:AuthorisationProtocols", _standing),
        ("roles", "Staff sign in and see what their role needs", "dpv:AccessControlMethod", _roles),
        ("callers", "Systems call with keys that name their purposes", "dpv:AuthenticationProtocols", _callers),
        ("reads_logged", "Every read of personal data by a system is written down", "dpv:ActivityMonitoring", _log(read_log.FILE_NAME)),
        ("looks_logged", "Every look of staff at a person is written down, with the reason", "dpv:ActivityMonitoring", _log(looks.FILE_NAME)),
        ("erasure", "Requests for erasure are carried out everywhere, searched for and certified", "dpv:DataSanitisationTechnique", _rights),
        ("in_transit", "Connections are encrypted", "dpv:EncryptionInTransfer", lambda _: (None, "Ended by whatever stands in front of the service: look there.")),
        ("disk", "The disk is encrypted", "dpv:FileSystemSecurity", lambda _: (None, "A matter of the machine: look there.")),
    ]  # fmt: skip
    found = []
    for name, title, term, look in listed:
        is_on, evidence = look(home)
        found.append(Measure(name=name, title=title, is_on=is_on, evidence=evidence, term=term))
    return found


def _vault(home: Home) -> tuple[bool | None, str]:
    if not home.vault.exists():
        return False, "There is no vault: nothing was put in it yet."
    beside = home.vault.with_name(f"{home.vault.name}-wal")
    stamps = tuple((each.stat().st_mtime_ns, each.stat().st_size) for each in (home.vault, beside) if each.exists())
    values, wrapped, shortest, over = _counted(home.vault, stamps)
    text = f"{values} values, {wrapped} keys, wrapped under {over} key-encryption key{'' if over == 1 else 's'}; AES-256-GCM."
    return values == wrapped and (shortest or 16) >= 16, text  # an empty value is its tag alone


@lru_cache(maxsize=4)
def _counted(vault: Path, stamps: object) -> tuple[int, int, int | None, int]:
    """Values, different keys, the shortest seal, different keys over them: every value is looked at (5 us each), so once for each state of the file."""
    with closing(sqlite3.connect(f"{vault.as_uri()}?mode=ro", uri=True)) as connection:
        query = "select count(*), count(distinct wrapped), min(length(sealed)), count(distinct kek_id) from contacts"
        found: tuple[int, int, int | None, int] = connection.execute(query).fetchone()
    return found


def _keys(home: Home) -> tuple[bool | None, str]:
    is_here = (home.root / "keys" / "kek.key").exists()
    return not is_here, f"keys/kek.key {'lies in the home, beside what it opens' if is_here else 'is not in the home'}."


def _ledger(home: Home) -> tuple[bool | None, str]:
    if not has_ledger(home):
        return False, "There is no ledger yet."
    return True, f"{ledger_size(home)} events under a signed checkpoint (Ed25519), verified by every run."


def _tokens(home: Home) -> tuple[bool | None, str]:
    is_there = (home.root / "keys" / "token.key").exists()
    return is_there, f"keys/token.key {'is there' if is_there else 'is missing'}; HMAC-SHA-256."


def _flow(home: Home) -> tuple[bool | None, str]:
    found = kept(home)
    if found is None:
        return False, "No flow was checked in this home yet."
    said = "and held" if found.is_verified else f"with {len(found.findings) + len(found.faults)} findings"
    when = found.checked_at.isoformat(timespec="seconds")
    return found.is_verified, f"Checked {when} over {len(found.places)} columns and {len(found.uses)} uses, {said}."


def _standing(home: Home) -> tuple[bool | None, str]:
    receipts = len(list((home.root / "decisions").glob("*.note")))
    return True, f"Part of every answer; {receipts} signed receipts of exports, trainings and segments are kept."


def _roles(home: Home) -> tuple[bool | None, str]:
    found = accounts.accounts(home)
    count = Counter(role for account in found for role in account.roles)
    told = ", ".join(f"{number} {ROLES[role].title.lower()}" for role, number in sorted(count.items()) if role in ROLES)
    provider = (home.root / "keys" / "console_oidc.json").exists()
    others = "; an identity provider signs others in" if provider else ""
    return bool(found) or provider, f"{len(found)} accounts{f' ({told})' if told else ''}{others}."


def _callers(home: Home) -> tuple[bool | None, str]:
    found = keys.callers(home)
    oidc = " and tokens of an identity provider" if (home.root / "keys" / "oidc.json").exists() else ""
    return bool(found) or bool(oidc), f"{len(found)} keys{oidc}; hashes alone are kept."


def _log(file_name: str) -> Callable[[Home], tuple[bool | None, str]]:
    def look(home: Home) -> tuple[bool | None, str]:
        path = home.root / "logs" / file_name
        if not path.exists():
            return True, f"logs/{file_name} begins with the first; nothing is answered that cannot be written down."
        with path.open("rb") as file:
            lines = sum(1 for _ in file)
        return True, f"logs/{file_name}: {lines} lines in the newest file, kept {read_log.KEPT.days} days."

    return look


def _rights(home: Home) -> tuple[bool | None, str]:
    certificates = len(list((home.root / "rights").glob("*/certificate.note")))
    is_there = (home.root / RIGHTS_FILE).exists()
    return True, f"{certificates} certificates of erasure{'' if is_there else '; no request was received yet'}."
