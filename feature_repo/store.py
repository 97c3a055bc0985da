"""What an online store is to the rest of the house: rows by view and entity, one packed value each, under an event-time guard.

Where rows are kept is `sqlite_store.py` (a file of the home) or `redis_store.py`. Whose rows may be read, and for what, is decided in
`reads.py`; nothing else hands rows to anybody. Knows nothing of Feast.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from feature_repo.catalogue import Entity, View
from feature_repo.errors import FeatureError
from feature_repo.packed import Layout, Row, layout_of
from troth.settings import given_online

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

    from feature_repo.columns import Encoded

FILE_NAME = "online.db"
_TEXT = {str}


@dataclass(frozen=True)
class Written:
    """What became of a batch: `written` are new or changed, `skipped` older than what is there, `unchanged` equal."""

    written: int = 0
    skipped: int = 0
    unchanged: int = 0
    removed: int = 0

    def __add__(self, other: "Written") -> "Written":
        return Written(
            self.written + other.written, self.skipped + other.skipped, self.unchanged + other.unchanged, self.removed + other.removed
        )  # fmt: skip


@dataclass(frozen=True)
class StoredRow:
    """A row as stored: when it was true, what it says, and the published version its view stands at."""

    event_us: int
    values: Row
    version: str | None


@dataclass(frozen=True, slots=True)
class Standing:
    """A published version that a view stands at: its name, its newest event time in microseconds, how many rows it has, and a number its
    publisher gave it: of standing, how many events of the ledger it was decided under.

    All None, or nought, for a view that nothing was published of.
    """

    version: str | None = None
    as_of_us: int | None = None
    rows: int = 0
    mark: int | None = None


@dataclass(frozen=True, slots=True)
class Fetched:
    """What was asked for at once: by view, then by key, event time in microseconds and value, or None; and what each view stands at, as far as a row of it was found."""

    rows: Sequence[Sequence[tuple[int, bytes] | None]]
    standings: Sequence[Standing]


def entity_key(entity: Entity, values: Sequence[Any]) -> str:
    """The text an entity is stored under. All parts but the last carry their length, so no two entities share one."""
    if len(values) != len(entity.join_keys) or any(value is None for value in values):
        raise FeatureError(
            f"entity {entity.name}: expected values of {list(entity.join_keys)}, found others. Give each of them."
        )
    if len(values) == 1:
        return str(values[0])
    *head, last = [str(value) for value in values]
    return "".join([f"{len(part.encode())}:{part}" for part in head]) + last


def entity_keys(entity: Entity, columns: Sequence[Sequence[Any]]) -> Sequence[str]:
    """The same for many, given the values of each join key."""
    texts = [column if are_texts(column) else None if None in column else [str(each) for each in column] for column in columns]  # fmt: skip
    if len(columns) != len(entity.join_keys) or None in texts:
        raise FeatureError(
            f"entity {entity.name}: expected values of {list(entity.join_keys)}, found others. Give each of them."
        )
    *head, last = cast(list[Sequence[str]], texts)
    for column in reversed(head):
        last = [f"{len(part) if part.isascii() else len(part.encode())}:{part}{rest}" for part, rest in zip(column, last, strict=True)]  # fmt: skip
    return last


def are_texts(column: Sequence[Any]) -> bool:
    """Whether all of it is text already, as it mostly is."""
    return set(map(type, column)) <= _TEXT


def entity_values(entity: Entity, key: str) -> list[str]:
    """The parts of a stored key: the inverse of `entity_key`."""
    values = []
    rest = key.encode()
    for _ in entity.join_keys[1:]:
        length, _, rest = rest.partition(b":")
        values.append(rest[: int(length)].decode())
        rest = rest[int(length) :]
    return [*values, rest.decode()]


class Refresh(ABC):
    """A published version on its way in. Nothing of it is read before it is whole: leave the context, and all of it is.

    `written` so far, and keys that were `skipped`, for what is there is newer. A fault leaves what was there before.
    """

    def __init__(self) -> None:
        self.written = Written()
        self.skipped: list[str] = []

    @abstractmethod
    def write(self, rows: "Encoded", follows: "Sequence[bool] | None" = None) -> None:
        """Rows of the version that are new or changed. `follows`: which of them go on being true with each later version that does
        not name them again; None: none."""

    @abstractmethod
    def remove(self, keys: Sequence[str]) -> None:
        """Entities the version no longer has. What came later over the near-time path stays."""


class OnlineStore(ABC):
    """Rows of a project, by view and entity. Threads share it."""

    def __init__(self) -> None:
        self._layouts: dict[int, Layout] = {}

    def exists(self) -> bool:
        """Whether anything was ever kept."""
        return True

    @abstractmethod
    def fetch(self, views: Sequence[View], keys: Sequence[str]) -> Fetched:
        """Values of several views of one entity, in one round trip."""

    @abstractmethod
    def scan(self, view: View, prefix: str = "") -> Iterator[tuple[str, StoredRow]]:
        """All rows of a view whose key begins so, in no order."""

    @abstractmethod
    def standings(self, views: Sequence[View]) -> list[Standing]:
        """The published version each view stands at."""

    @abstractmethod
    def write(self, view: View, rows: "Encoded") -> Written:
        """Write rows at once, each under the guard: an older one never wins, an equal one is left alone."""

    @abstractmethod
    def refresh(
        self, view: View, version: str, as_of_us: int, rows: int, mark: int | None = None
    ) -> AbstractContextManager[Refresh]:
        """Bring a view to a published version. `rows`: how many it has; `mark`: as of `Standing`."""

    @abstractmethod
    def touched(self, view: View) -> set[str]:
        """Entities written over the near-time path since the last published version."""

    @abstractmethod
    def keep(self, views: Iterable[View]) -> None:
        """Make room for views, so that an empty store answers 'not found' instead of failing."""

    @abstractmethod
    def drop(self, views: Iterable[View]) -> None:
        """Forget views and all their rows."""

    @abstractmethod
    def erase(self, entity: Entity | None, keys: Sequence[str], erased_us: int) -> int:
        """Remove entities from every view; how many rows went. Without an entity: from every one, and rows of others that name them.

        A late write of what was true before does not bring them back: a tombstone keeps it out.
        """

    @abstractmethod
    def erasures(self) -> int:
        """A number that changes with every erasure: what was published before may have to be offered again."""

    @abstractmethod
    def destroy(self) -> None:
        """Remove all that is kept for the project."""

    @abstractmethod
    def close(self) -> None:
        """Close connections of this thread."""

    @abstractmethod
    def _definition(self, schema_id: int) -> str | None:
        """The definition of a layout values were written under."""

    def read(self, views: Iterable[View], keys: Iterable[str]) -> dict[tuple[str, str], StoredRow]:
        """Rows by (view, key). What is not there is not in the answer."""
        asked, wanted = list(views), list(dict.fromkeys(keys))
        found = self.fetch(asked, wanted)
        return {
            (view.name, key): StoredRow(row[0], self.decoded(row[1]), standing.version)
            for view, rows, standing in zip(asked, found.rows, found.standings, strict=True)
            for key, row in zip(wanted, rows, strict=True)
            if row is not None
        }

    def sample(self, view: View) -> tuple[int, bytes] | None:
        """Some row of a view, or None: enough to see what a projection has seen."""
        key = next((key for key, _ in self.scan(view)), None)
        return None if key is None else self.fetch([view], [key]).rows[0][0]

    def layout(self, value: bytes) -> Layout:
        """The layout a value was written under. Raises: FeatureError when the store does not know it."""
        schema_id = int.from_bytes(value[:4], "little")
        layout = self._layouts.get(schema_id)
        if layout is None:
            definition = self._definition(schema_id)
            if definition is None:
                raise FeatureError(
                    f"online store: expected the layout {schema_id}, found none. Empty it and run `troth run`."
                )
            layout = self._layouts[schema_id] = Layout.of_definition(definition)
        return layout

    def decoded(self, value: bytes) -> Row:
        return self.layout(value).decode(value)

    def write_frame(self, view: View, frame: "pl.DataFrame | pa.Table") -> Written:
        """Write rows with the view's keys, event column and features: the newest of each entity."""
        from feature_repo.columns import encoded, few

        if (one_by_one := few(view, frame)) is not None:
            return self.write_rows(view, one_by_one)
        rows = encoded(view, frame)
        given = frame.num_rows if hasattr(frame, "num_rows") else frame.height
        return self.write(view, rows) + Written(skipped=given - len(rows))

    def write_rows(self, view: View, rows: Sequence[tuple[Sequence[Any], int, Mapping[str, Any]]]) -> Written:
        """Write (key values, event microseconds, features): for small batches.

        Of several rows of one entity the newest is kept; at the same time, the last given.
        """
        import numpy as np
        import pyarrow as pa

        from feature_repo.columns import Encoded

        layout = layout_of(view.online_fields)
        newest: dict[str, tuple[int, bytes]] = {}
        for values, event_us, features in rows:
            key = entity_key(view.entity, values)
            if key not in newest or newest[key][0] <= event_us:
                newest[key] = (event_us, layout.encode(features))
        batch = Encoded(
            pa.array([key.encode() for key in newest], pa.binary()), np.array([at for at, _ in newest.values()], dtype=np.int64),
            pa.array([value for _, value in newest.values()], pa.binary()),
        )  # fmt: skip
        return self.write(view, batch) + Written(skipped=len(rows) - len(newest))


def online_store(features: Path) -> OnlineStore:
    """The store of a home, given its `features` folder: the file there, or the Redis that `TROTH_ONLINE` names."""
    address = given_online()
    if address is None:
        from feature_repo.sqlite_store import SqliteStore

        return SqliteStore(features / FILE_NAME)
    from feature_repo.redis_store import redis_store

    return redis_store(address)
