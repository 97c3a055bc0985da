"""Changing the key-encryption key: every wrapped key under the new one, then the old one destroyed.

From then on the wrapped keys in older backups open nothing, so that what was erased is erased there, too. A rotation that is
interrupted at any instant leaves everything readable, and the next call finishes it.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from consent.ledger.databases import refuse_in_use
from consent.ledger.keyring import kek_id
from consent.ledger.opening import open_ledger
from consent.vault import open_vault
from troth.clock import Clock
from troth.home import Home, sync
from troth.settings import given_keks


@dataclass(frozen=True)
class Rotated:
    """What a rotation did. `kek_id` names the key that wraps from now on and says nothing about it."""

    kek_id: str
    ledger_keys: int
    vault_keys: int
    destroyed: tuple[str, ...]


def rotate_kek(home: Home, clock: Clock) -> Rotated:
    """Wrap every key of the ledger and the vault anew, and destroy the key-encryption keys that are kept in files.

    The new key is `TROTH_KEK` where the environment gives one (whoever holds the old one destroys it), else a new file.
    Raises: LedgerError while another process has ledger or vault open, for it would go on wrapping under the old key.
    """
    given = given_keks()
    keys = home.root / "keys"
    if not given:
        home.key("kek")
        home.key("kek.next")  # from here on both open, and this one wraps
    refuse_in_use(home.vault)
    current = home.keks()[0]
    with open_ledger(home, clock, alone=True) as ledger:
        ledger_keys = ledger.rewrap_keys()
    with open_vault(home) as vault:
        vault_keys = vault.rewrap_keys()
    old = ["vault", "kek", *(["kek.next"] if given else [])]  # vault: of a vault made before its values had keys
    destroyed = [name for name in old if (keys / f"{name}.key").exists()]
    for name in destroyed:
        _overwrite(keys / f"{name}.key")
        if name != "kek" or given:
            (keys / f"{name}.key").unlink()
    if not given:
        (keys / "kek.next.key").replace(keys / "kek.key")
    sync(keys)
    return Rotated(kek_id(current).hex(), ledger_keys, vault_keys, tuple(destroyed))


def _overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
        file.flush()
        os.fsync(file.fileno())
