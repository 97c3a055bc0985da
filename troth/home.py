"""Where everything at rest lives. Paths only; what is in the files belongs to other rooms."""

import fcntl
import fnmatch
import os
import re
import secrets
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from troth.errors import TrothError

_DRAFT_SECONDS = 3600.0  # nobody is as long between the last byte of a draft and its place


@dataclass(frozen=True)
class Home:
    """One retailer's data on disk (`TROTH_HOME`, default `var/`)."""

    root: Path

    @property
    def landing(self) -> Path:
        """Files as received, `landing/<source>/<trading day>/...`; never edited."""
        return self.root / "landing"

    @property
    def log(self) -> Path:
        """The durable event log of the near-time path; empty where `TROTH_LOG` names another database."""
        return self.root / "log"

    @property
    def raw(self) -> Path:
        """Typed rows, `raw/<table>/day=<trading day>/data.parquet`."""
        return self.root / "raw"

    @property
    def quarantine(self) -> Path:
        """Rows set aside, `quarantine/<table>/day=<trading day>/data.parquet`."""
        return self.root / "quarantine"

    @property
    def taken(self) -> Path:
        """What was read, `taken/<source>/<trading day>.json`: file hashes and counts."""
        return self.root / "taken"

    @property
    def warehouse(self) -> Path:
        """The DuckDB file. One writer at a time; nobody reads it but dbt."""
        return self.root / "warehouse.duckdb"

    @property
    def published(self) -> Path:
        """Immutable Parquet versions of marts and features, with a pointer each."""
        return self.root / "published"

    @property
    def ledger(self) -> Path:
        """The consent ledger's SQLite file; not there where `TROTH_LEDGER` names another database."""
        return self.root / "ledger.db"

    @property
    def vault(self) -> Path:
        return self.root / "vault.db"

    @property
    def stock(self) -> Path:
        """Stock as it is online: `stock.db` with cells and holds, where `TROTH_STOCK` names no other database, and the board."""
        return self.root / "stock"

    @property
    def features(self) -> Path:
        """Feast's registry and the online store."""
        return self.root / "features"

    @property
    def artifacts(self) -> Path:
        return self.root / "artifacts"

    @property
    def exports(self) -> Path:
        return self.root / "exports"

    @property
    def dagster(self) -> Path:
        return self.root / "dagster"

    @property
    def reports(self) -> Path:
        """Run summaries and Great Expectations results and data docs."""
        return self.root / "reports"

    @property
    def truth(self) -> Path:
        """The simulator's physical truth, where the retailer is simulated. Never read by the platform."""
        return self.root / "truth"

    def key(self, name: str) -> bytes:
        """The 32-byte secret `keys/<name>.key`, made on first use, readable by its owner only."""
        path = self.root / "keys" / f"{name}.key"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            draft = path.with_suffix(f".{secrets.token_hex(8)}.draft")
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(secrets.token_bytes(32))
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(draft, path)
            except FileExistsError:
                pass
            finally:
                draft.unlink()
            sync(path.parent)  # a key that a power cut takes away orphans what was made under it
        secret = path.read_bytes()
        if len(secret) != 32:
            raise TrothError(
                f"key {name}: expected 32 bytes, found {len(secret)}. "
                f"Restore {path.name} from a backup: a new key would orphan everything made under the old one."
            )
        return secret

    def keks(self) -> list[bytes]:
        """Key-encryption keys: the first wraps, all of them open.

        Those given by the environment, then `keys/kek.next.key` while a rotation is under way, then `keys/kek.key`, which
        is made on first use where none is given.
        """
        from troth.settings import given_keks  # it builds on this module

        given = given_keks()
        files = [name for name in ("kek.next", "kek") if (self.root / "keys" / f"{name}.key").exists()]
        if not given and "kek" not in files:
            files.append("kek")
        return [*given, *(self.key(name) for name in files)]


def files_below(folder: Path, name: str = "*", without: Collection[str] = ()) -> Iterator[Path]:
    """Files whose name fits a pattern, below a folder and any folder in it but those named, in no order.

    Below a file there is nothing. What goes away while it is looked through is passed over; `Path.rglob` ends with an error there. Raises: OSError for what cannot be read.
    """

    def missed(fault: OSError) -> None:
        if not isinstance(fault, FileNotFoundError | NotADirectoryError):
            raise fault

    for place, inner, names in os.walk(folder, onerror=missed):
        inner[:] = [each for each in inner if each not in without]
        yield from (Path(place, each) for each in fnmatch.filter(names, name))


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Nobody else is at a folder meanwhile, in whichever process: whoever comes waits. Made where it is not there, for its owner only."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file's content so that a reader, or a crash, sees the old bytes or the new, never half.

    Drafts that a kill left of this file are removed an hour later, by the next who writes it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}.draft")
    try:
        with draft.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    with suppress(OSError):  # the content is written, whatever is left lying beside it
        _clear_drafts(path)


def _clear_drafts(path: Path) -> None:
    """By the times of files alone. A younger draft may be that of somebody who is writing now."""
    draft = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{16}}\.draft")
    since = path.stat().st_mtime - _DRAFT_SECONDS
    with os.scandir(path.parent) as found:
        for each in found:
            if draft.fullmatch(each.name) and each.stat().st_mtime < since:
                os.unlink(each.path)
