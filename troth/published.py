"""Immutable Parquet versions of tables, switched atomically by a pointer: what serving, pages and auditors read.

A version is named by the hash of its bytes, so publishing the same content twice changes nothing.
"""

from pathlib import Path

from troth.errors import TrothError
from troth.home import Home, write_atomically
from troth.ids import file_hash

POINTER = "CURRENT"


def current(home: Home, table: str) -> Path:
    """The Parquet file a table's pointer names. Raises: TrothError when nothing has been published."""
    pointer = home.published / table / POINTER
    if not pointer.exists():
        raise TrothError(
            f"published table {table}: expected a version in this home, found none. Run `troth run` first."
        )
    return pointer.parent / pointer.read_text().strip()


def publish(home: Home, table: str, draft: Path) -> bool:
    """Move a finished Parquet file in as the table's version and switch the pointer. True when the content is new."""
    version = f"{file_hash(draft)[:32]}.parquet"
    pointer = home.published / table / POINTER
    if pointer.exists() and pointer.read_text().strip() == version:
        draft.unlink()
        return False
    pointer.parent.mkdir(parents=True, exist_ok=True)
    draft.replace(pointer.parent / version)
    write_atomically(pointer, version.encode())
    return True
