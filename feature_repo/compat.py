"""What is written is told in Feast's own layout too, so that readers of stock Feast go on reading. Feast's own store class writes it.

A copy says what our store keeps of an entity now, not what was written: an older row, a deletion, a late write come out in it as they
do in ours, and what a crash left undone the next write of the row puts right, changed or not. It is looked at again after it was told,
until nothing changed meanwhile, so that of two writers neither leaves the older row. Personal views are never copied: who reads a copy
asks nobody for consent.
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from feature_repo.catalogue import Entity, View
from feature_repo.errors import FeatureError
from feature_repo.feast_import import feast
from feature_repo.feast_views import Bound, Told, key_values
from feature_repo.packed import from_microseconds
from feature_repo.store import OnlineStore as PackedStore
from feature_repo.store import entity_key, entity_values

feast()  # first, so that what follows does not import Feast the slow way

from feast.infra.key_encoding_utils import deserialize_entity_key, serialize_entity_key  # noqa: E402
from feast.infra.online_stores.helpers import compute_versioned_name  # noqa: E402
from feast.protos.feast.types.EntityKey_pb2 import EntityKey  # noqa: E402
from feast.protos.feast.types.Value_pb2 import Value  # noqa: E402
from feast.type_map import NULL_TIMESTAMP_INT_VALUE  # noqa: E402
from feast.value_type import ValueType  # noqa: E402

ROWS_AT_A_TIME = 2_000
KEY_VERSION = 3  # of Feast's entity keys: the one that says where each part ends
COPIED, CLEARED = "copied", "cleared"
_PARTS: Mapping[Any, tuple[str, Callable[[str], Any]]] = {
    ValueType.STRING: ("string_val", str),
    ValueType.INT64: ("int64_val", int),
    ValueType.INT32: ("int32_val", int),
    ValueType.BYTES: ("bytes_val", bytes.fromhex),
    ValueType.UNIX_TIMESTAMP: ("unix_timestamp_val", int),
}


def is_copied(view: View, asked: bool | Sequence[str]) -> bool:
    """Whether a view is told in Feast's layout, given the setting `compat`. Raises: FeatureError for a personal one that is named."""
    is_named = not isinstance(asked, bool) and view.name in asked
    if is_named and view.is_personal:
        raise FeatureError(
            f"compat: expected views that are not personal, found {view.name}. Take it off the list: who reads stock Feast asks nobody for consent."
        )
    return is_named or (asked is True and not view.is_personal)


@dataclass(frozen=True)
class Settings:
    """As much of a Feast configuration as its online stores ask for."""

    project: str
    online_store: Any
    registry: Any
    entity_key_serialization_version: int = KEY_VERSION
    repo_path: Path | None = None


class Copy(ABC):
    """Some views of a project as Feast's own store keeps them. Threads share it."""

    faults: tuple[type[Exception], ...]

    def __init__(self, kept: PackedStore, config: Any, bound: Callable[[Any], Bound], online_store: Any) -> None:
        """`kept`: what is copied; `bound`: a Feast view, as we keep it; `online_store`: settings of Feast's own store."""
        if config.entity_key_serialization_version != KEY_VERSION:
            raise FeatureError(
                f"compat: expected entity_key_serialization_version {KEY_VERSION}, "
                f"found {config.entity_key_serialization_version}. Set it, and apply."
            )
        self._kept, self._config, self._bound = kept, config, bound
        self._lock = threading.Lock()
        self._stock: Any = None
        self._settings = Settings(config.project, online_store, config.registry)

    def follow(self, table: Any, keys: Iterable[str]) -> None:
        """Tell what is kept of some entities. `table`: a Feast view, or its name; what Feast does not know is not told."""
        table = self._known(table)
        if table is None or not is_copied(self._bound(table).view, self._asked):
            return
        with self._told():
            self._mark(table, COPIED)
            self._make_room([table])
        rest = iter(keys)
        while some := list(dict.fromkeys(islice(rest, ROWS_AT_A_TIME))):
            self._follow(table, some)

    def put_right(self, table: Any) -> None:
        """Tell a whole view, and take away what is there of entities of which nothing is kept. `table`: as for `follow`."""
        table = self._known(table)
        if table is None:
            return
        view = self._bound(table).view
        self.follow(table, (key for key, _ in self._kept.scan(view)))
        rest = self._there(table)
        while some := self._next(rest):
            keys = [
                entity_key(view.entity, key_values(view, deserialize_entity_key(each, KEY_VERSION))) for each in some
            ]
            (rows,) = self._kept.fetch([view], keys).rows
            self._follow(table, [key for key, row in zip(keys, rows, strict=True) if row is None])

    def _next(self, names: Iterator[bytes]) -> list[bytes]:
        with self._told():
            return list(islice(names, ROWS_AT_A_TIME))

    def _known(self, table: Any) -> Any:
        """A view, given it or its name; None where Feast does not know it."""
        if not isinstance(table, str):
            return table
        return next((each for each in self._registered(allow_cache=True) if each.name == table), None)

    def _follow(self, table: Any, keys: Sequence[str]) -> None:
        bound, left = self._bound(table), keys
        told: dict[str, Any] = {}
        while left:
            (rows,) = self._kept.fetch([bound.view], left).rows
            changed = {key: row for key, row in zip(left, rows, strict=True) if key not in told or told[key] != row}
            gone = [key for key, row in changed.items() if row is None]
            there = [(key, *row) for key, row in changed.items() if row is not None]
            with self._told():
                if there:
                    data = [
                        (_entity_key(table, bound.view, key), self._values(bound, value), from_microseconds(at), None)
                        for key, at, value in there
                    ]
                    self._stock.online_write_batch(self._settings, table, data, None)
                if gone:
                    self._remove(table, self._names(table, gone))
            told, left = changed, list(changed)

    def forget(self, entity: Entity, keys: Sequence[str]) -> None:
        """Entities that were erased, out of every view of their kind: out of those, too, that are no longer copied."""
        for table in self._registered():
            view = self._bound(table).view
            if view.entity.join_keys == entity.join_keys:
                if is_copied(view, self._asked):
                    self.follow(table, keys)
                else:
                    with self._told():
                        self._remove(table, self._names(table, keys))

    def check(self, kept: Sequence[Any], *, is_all: bool) -> None:
        """Raises: FeatureError when `compat` names a view that is personal or, should these be all, that is not there."""
        names = {table.name for table in kept if is_copied(self._bound(table).view, self._asked)}
        if is_all and not isinstance(self._asked, bool) and (unknown := sorted(set(self._asked) - names)):
            raise FeatureError(f"compat: expected names of feature views, found {unknown}. Correct the list.")

    def update(self, gone: Sequence[Any], kept: Sequence[Any]) -> None:
        """Make room for views that are copied; take away those that are gone, were copied, or became personal."""
        with self._told():
            marks = self._marks()
            left = [table for table in kept if self._is_left(table, marks.get(self._name(table)))]
            gone = [table for table in gone if marks.get(self._name(table)) != CLEARED]
            self._drop([*gone, *left])
            for table in (*gone, *left):
                self._mark(table, CLEARED)
            self._make_room([table for table in kept if is_copied(self._bound(table).view, self._asked)])

    def _is_left(self, table: Any, mark: str | None) -> bool:
        """Whether there may be rows of a view that are not to be there: ours; or Feast's, from before the view was known as personal."""
        view = self._bound(table).view
        return not is_copied(view, self._asked) and (mark == COPIED or (mark is None and view.is_personal))

    @property
    def _asked(self) -> bool | Sequence[str]:
        asked: bool | list[str] = self._config.online_store.compat
        return asked

    @abstractmethod
    def teardown(self, tables: Sequence[Any]) -> None:
        """Remove all copies."""

    @abstractmethod
    def _make_room(self, tables: Sequence[Any]) -> None: ...

    @abstractmethod
    def _remove(self, table: Any, names: Sequence[bytes]) -> None:
        """Rows of a view, by Feast's keys."""

    @abstractmethod
    def _there(self, table: Any) -> Iterator[bytes]:
        """Feast's keys of the entities of a view; in Redis of all views of their kind."""

    @abstractmethod
    def _drop(self, tables: Sequence[Any]) -> None:
        """All rows of views."""

    @abstractmethod
    def _marks(self) -> dict[str, str]:
        """What is known of each view: that it was copied, or taken away."""

    @abstractmethod
    def _mark(self, table: Any, mark: str) -> None: ...

    def _name(self, table: Any) -> str:
        return str(compute_versioned_name(table, self._config.registry.enable_online_feature_view_versioning))

    def _names(self, table: Any, keys: Sequence[str]) -> list[bytes]:
        view = self._bound(table).view
        return [serialize_entity_key(_entity_key(table, view, key), KEY_VERSION) for key in keys]

    def _values(self, bound: Bound, value: bytes) -> dict[str, Any]:
        row = self._kept.decoded(value)
        return {name: _proto(told, row.get(name)) for name, told in bound.told.items()}

    def _registered(self, *, allow_cache: bool = False) -> list[Any]:
        """The views of the registry."""
        found = self._registry.list_all_feature_views(self._config.project, allow_cache=allow_cache)
        return [each for each in found if hasattr(each, "entity_columns")]

    @cached_property
    def _registry(self) -> Any:
        store = feast().FeatureStore(config=self._config)
        store.repo_path = self._config.repo_path or store.repo_path
        return store.registry

    @contextmanager
    def _told(self) -> Iterator[None]:
        """One at a time. Raises: FeatureError when the store of the copy does not take it."""
        try:
            with self._lock:
                yield
        except self.faults as fault:
            raise FeatureError(
                f"copy in Feast's layout: expected a store that takes it, found {type(fault).__name__}. "
                f"Write the rows again: the packed store has them."
            ) from None


def _entity_key(table: Any, view: View, key: str) -> Any:
    """Feast's key of an entity of ours. Raises: FeatureError for a type Feast has no keys of."""
    types = {each.name: each.dtype.to_value_type() for each in table.entity_columns}
    values = []
    for name, text in zip(view.entity.join_keys, entity_values(view.entity, key), strict=True):
        if types[name] not in _PARTS:
            raise FeatureError(f"view {view.name}: expected keys that Feast can keep, found {types[name].name}. Leave it out of `compat`.")  # fmt: skip
        attribute, made = _PARTS[types[name]]
        values.append(Value(**{attribute: made(text)}))
    return EntityKey(join_keys=list(view.entity.join_keys), entity_values=values)


def _proto(told: Told, stored: Any) -> Any:
    """The value as Feast writes it, which has a time of its own for no time."""
    if stored is None and told.value_type is ValueType.UNIX_TIMESTAMP:
        return Value(unix_timestamp_val=NULL_TIMESTAMP_INT_VALUE)
    return told.proto(stored)
