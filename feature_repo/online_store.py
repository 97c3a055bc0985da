"""Feast's online store interface over the packed stores: `get_online_features`, `push` and `materialize` work on them.

Consent is asked here too: a personal view is read for a feature service of the catalogue, which names its purpose, or
not at all. A service that a caller makes up does not count, whatever purpose it claims.
Where Feast as it comes answers wrongly (time to live ignored online, refusals unknown), this answers right.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from functools import partial as bind
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from feature_repo.catalogue import SERVICES, SUBJECT_GATE, SUBJECT_STANDING, Service, View
from feature_repo.errors import FeatureError
from feature_repo.feast_import import feast
from feature_repo.feast_views import Bound, Told, Views, key_texts, key_values
from feature_repo.heard import Heard
from feature_repo.packed import from_microseconds, to_microseconds
from feature_repo.reads import Source, decided, readable_size
from feature_repo.store import OnlineStore as PackedStore
from feature_repo.store import Written, entity_key, entity_keys
from troth.clock import SystemClock
from troth.home import Home

feast()  # first, so that what follows does not import Feast the slow way

from feast import utils  # noqa: E402
from feast.feature_service import FeatureService  # noqa: E402
from feast.feature_view import DUMMY_ENTITY_NAME  # noqa: E402
from feast.infra.online_stores.online_store import OnlineStore  # noqa: E402
from feast.online_response import TIMESTAMP_POSTFIX, OnlineResponse  # noqa: E402
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus, GetOnlineFeaturesResponse  # noqa: E402
from feast.repo_config import FeastConfigBaseModel  # noqa: E402
from feast.type_map import python_values_to_proto_values  # noqa: E402
from feast.value_type import ValueType  # noqa: E402

if TYPE_CHECKING:
    import pyarrow as pa

    from feature_repo.compat import Copy

# Feast knows 'found' and 'not found'; a third outcome travels as a time that no row can have.
_REFUSED_AT = datetime(1, 1, 1, tzinfo=UTC)
_PRESENT, _NOT_FOUND, _TOO_OLD, _REFUSED = FieldStatus.PRESENT, FieldStatus.NOT_FOUND, FieldStatus.OUTSIDE_MAX_AGE, FieldStatus.INVALID  # fmt: skip
_MOST_PLANS = 1_000
_use: ContextVar[Service | None] = ContextVar("use", default=None)


class PackedSqliteOnlineStoreConfig(FeastConfigBaseModel):  # type: ignore[misc]
    """`path`: the SQLite file. `home`: whose consent ledger is asked; without one no personal view is read. `answer_at`: ISO time to
    answer as of; null is now. `compat`: views told in Feast's own layout too, true for all that are not personal; in the file
    `compat_path`, null is `feast.db` beside `path`."""

    type: Literal["feature_repo.online_store.PackedSqliteOnlineStore"] = (
        "feature_repo.online_store.PackedSqliteOnlineStore"
    )
    path: str
    home: str | None = None
    answer_at: str | None = None
    compat: bool | list[str] = False
    compat_path: str | None = None


class PackedRedisOnlineStoreConfig(FeastConfigBaseModel):  # type: ignore[misc]
    """`address`: as `redis_store` takes it; null is what `TROTH_ONLINE` names. Else as for SQLite."""

    type: Literal["feature_repo.online_store.PackedRedisOnlineStore"] = "feature_repo.online_store.PackedRedisOnlineStore"  # fmt: skip
    address: str | None = None
    home: str | None = None
    answer_at: str | None = None
    compat: bool | list[str] = False


class PackedOnlineStore(OnlineStore):  # type: ignore[misc]
    """One packed row per entity and view. What is common to the stores: `_opened` says which, and `_place` where."""

    def __init__(self) -> None:
        self._sources: dict[tuple[str, str], Source] = {}
        self._views = Views()
        self._plans: dict[Any, tuple[Any, _Plan]] = {}
        self._copies: dict[str, Copy] = {}

    @abstractmethod
    def _opened(self, config: Any) -> PackedStore: ...

    @abstractmethod
    def _place(self, config: Any) -> str: ...

    @abstractmethod
    def _copied(self, config: Any) -> "Copy": ...

    def write_arrow(self, config: Any, view: Any, table: "pa.Table") -> Written:
        """Write a table with the view's keys, event column and features: no row passes through Python objects.

        `view`: a Feast view, or the name of one of the catalogue.
        """
        bound = self.bound(config, view)
        copy, rows = self.copy(config, bound.view), bound.table(table.combine_chunks())
        written = self.store(config).write_frame(writable(bound.view), rows)
        if copy:
            from feature_repo.columns import keys_of

            copy.follow(view, [key.decode() for key in keys_of(bound.view.entity, rows).to_pylist()])
        return written

    def copy_all(self, config: Any, table: Any) -> None:
        """Make the copy of a view in Feast's own layout what the view is: after `compat` was set, or the copy was lost."""
        if copy := self.copy(config, self.bound(config, table).view):
            copy.put_right(table)

    def online_write_batch(
        self,
        config: Any,
        table: Any,
        data: list[tuple[Any, dict[str, Any], datetime, datetime | None]],
        progress: Callable[[int], Any] | None,
    ) -> None:
        bound = self.bound(config, table)
        view = writable(bound.view)
        copy = self.copy(config, view)
        rows = [
            (
                key_values(view, key),
                to_microseconds(at),
                {name: bound.told[name].plain(each) for name, each in values.items() if name in bound.told},
            )
            for key, values, at, _ in sorted(data, key=lambda row: to_microseconds(row[3]) if row[3] else 0)
        ]
        self.store(config).write_rows(view, rows)
        if copy:
            copy.follow(table, [entity_key(view.entity, values) for values, _, _ in rows])
        if progress:
            progress(len(rows))

    def delete_entities(self, config: Any, table: Any, entities: Sequence[Mapping[str, Any]], at: datetime) -> int:
        """Forget entities in every view that has the keys of one; how many rows went. A late write of what was true before `at` does
        not bring them back."""
        view = self.bound(config, table).view
        keys = [entity_key(view.entity, key_texts([each.get(name) for name in view.entity.join_keys])) for each in entities]  # fmt: skip
        removed = self.store(config).erase(view.entity, keys, to_microseconds(at))
        if copy := self.copy(config):
            copy.forget(view.entity, keys)
        return removed

    def online_read(
        self, config: Any, table: Any, entity_keys: list[Any], requested_features: list[str] | None = None
    ) -> list[tuple[datetime | None, dict[str, Any] | None]]:
        """Feast's rows: features; no features and a time when too old; no features and year 1 when refused."""
        bound = self.bound(config, table)
        keys = [entity_key(bound.view.entity, key_values(bound.view, key)) for key in entity_keys]
        names = list(bound.told) if requested_features is None else [each for each in requested_features if each in bound.told]  # fmt: skip
        part = _Part(bound, names, names)
        use = _gate(bound.view, config)
        answers: list[tuple[datetime | None, dict[str, Any] | None]] = []
        (found,) = self._read(config, [part], keys, use)
        for number, (status, at) in enumerate(zip(found.statuses, found.times, strict=True)):
            if status == _PRESENT:
                row = zip(names, found.columns, strict=True)
                answers.append(
                    (from_microseconds(at), {name: bound.told[name].proto(column[number]) for name, column in row})
                )
            else:
                when = _REFUSED_AT if status == _REFUSED else from_microseconds(at)
                answers.append((None, None) if status == _NOT_FOUND else (when, {}))
        return answers

    def get_online_features(self, config: Any, features: Any, *arguments: Any, **options: Any) -> Any:
        """As Feast's; statuses OUTSIDE_MAX_AGE for rows too old, INVALID for subjects refused, values null for both.

        Features come in the order of their definition. What Feast works out as it reads (on-demand views) takes Feast's own way.
        """
        given = dict(zip(("entity_rows", "registry", "project", "full_feature_names"), arguments, strict=False)) | options  # fmt: skip
        plan = self._plan(config, features, given["registry"], given["project"], given.get("full_feature_names", False))
        if plan is None or options.get("include_feature_view_version_metadata"):
            return self._as_feast_does(config, features, *arguments, **options)
        return plan.answer(self, config, given["entity_rows"])

    def _as_feast_does(self, config: Any, features: Any, *arguments: Any, **options: Any) -> Any:
        token = _use.set(_service_of(features))
        try:
            response = super().get_online_features(config, features, *arguments, **options)
        finally:
            _use.reset(token)
        for vector in response.proto.results:
            for place, at in enumerate(vector.event_timestamps):
                if vector.statuses[place] == _NOT_FOUND and at.seconds:
                    is_refused = at.ToDatetime(UTC) == _REFUSED_AT
                    vector.statuses[place] = _REFUSED if is_refused else _TOO_OLD
                    if is_refused:
                        at.Clear()
        return response

    def update(
        self,
        config: Any,
        tables_to_delete: Sequence[Any],
        tables_to_keep: Sequence[Any],
        entities_to_delete: Sequence[Any],
        entities_to_keep: Sequence[Any],
        partial: bool,
    ) -> None:
        store, copy = self.store(config), self.copy(config)
        kept, gone = ([table for table in tables if hasattr(table, "entity_columns")] for tables in (tables_to_keep, tables_to_delete))  # fmt: skip
        if copy:
            copy.check(kept, is_all=not partial)
        store.keep(self.bound(config, table).view for table in kept)
        store.drop(self.bound(config, table).view for table in gone)
        if copy:
            copy.update(gone, kept)

    def teardown(self, config: Any, tables: Sequence[Any], entities: Sequence[Any]) -> None:
        if copy := self.copy(config):
            copy.teardown([table for table in tables if hasattr(table, "entity_columns")])
        self.store(config).destroy()

    def copy(self, config: Any, view: View | None = None) -> "Copy | None":
        """Where what is written is told in Feast's own layout; None where `compat` asks for nothing, or not for this view.

        Raises: FeatureError for a personal view that is asked for.
        """
        if not config.online_store.compat:
            return None
        from feature_repo.compat import is_copied

        if view and not is_copied(view, config.online_store.compat):
            return None
        place = self._place(config)
        if place not in self._copies:
            self._copies[place] = self._copied(config)
        return self._copies[place]

    def store(self, config: Any) -> PackedStore:
        """The packed store of a configuration."""
        return self._source(config).store

    def bound(self, config: Any, view: Any) -> Bound:
        """A Feast view, or the name of one of the catalogue, as we keep it."""
        if isinstance(view, str):
            from feature_repo import catalogue

            return Bound(catalogue.view(view), {})
        return self._views.of(config.project, view)

    def _source(self, config: Any) -> Source:
        place = (self._place(config), config.online_store.home or "")
        source = self._sources.get(place)
        if source is None:
            home = Home(Path(place[1])) if place[1] else None
            source = Source(self._opened(config), _ledger_size(home), Heard(home) if home else None)
            self._sources[place] = source
        return source

    def _read(self, config: Any, parts: "Sequence[_Part]", keys: Sequence[str], use: Service | None) -> "list[_Column]":
        """For each part of an answer: by key status and event time in microseconds, and the features asked for, column by column."""
        source, at = self._source(config), _answer_at(config)
        views = [part.bound.view for part in parts]
        fetched = source.store.fetch([*views, SUBJECT_GATE] if use else views, keys)
        size = readable_size(source) if use else None
        allowed = None
        if use:
            decisions = decided(use, source, size, at, fetched.standings[-1], keys, fetched.rows[-1])
            allowed = [is_allowed for is_allowed, _, _ in decisions]
        now = to_microseconds(at)
        return [
            _answered(part, rows, allowed, now, source.store.layout)
            for part, rows in zip(parts, fetched.rows, strict=False)
        ]

    def _plan(self, config: Any, features: Any, registry: Any, project: str, full_names: bool) -> "_Plan | None":
        """How some features are read, worked out once for each state of the registry; None where Feast does it its own way."""
        is_service = isinstance(features, FeatureService)
        key = (project, full_names, id(features) if is_service else tuple(features), config.online_store.home)
        stamp = getattr(registry, "cached_registry_proto_created", None)
        known = self._plans.get(key)
        if known is not None and stamp is not None and known[0] == stamp and registry.is_cache_valid():
            return known[1]
        plan = _planned(self, config, features, registry, project, full_names)
        if plan is not None:
            if len(self._plans) > _MOST_PLANS:
                self._plans.clear()
            self._plans[key] = getattr(registry, "cached_registry_proto_created", None), plan
        return plan


class PackedSqliteOnlineStore(PackedOnlineStore):
    """In one SQLite file."""

    def _place(self, config: Any) -> str:
        return str(config.online_store.path)

    def _opened(self, config: Any) -> PackedStore:
        from feature_repo.sqlite_store import SqliteStore

        return SqliteStore(Path(config.online_store.path))

    def _copied(self, config: Any) -> "Copy":
        from feature_repo.compat_sqlite import SqliteCopy

        return SqliteCopy(self.store(config), config, bind(self.bound, config), config.online_store.compat_path)


class PackedRedisOnlineStore(PackedOnlineStore):
    """In Redis."""

    def _place(self, config: Any) -> str:
        return config.online_store.address or ""

    def _opened(self, config: Any) -> PackedStore:
        from feature_repo.redis_store import redis_store
        from troth.settings import given_online

        address = config.online_store.address or given_online()
        if address is None:
            raise FeatureError(
                "online store: expected the address of a Redis, found none. Give `address`, or set TROTH_ONLINE."
            )
        return redis_store(address, config.project)

    def _copied(self, config: Any) -> "Copy":
        from feature_repo.compat_redis import RedisCopy

        return RedisCopy(self.store(config), config, bind(self.bound, config))


class _Part:
    """What is read of one view: names of features, and as what they are told."""

    def __init__(self, bound: Bound, names: Sequence[str], told_as: Sequence[str]) -> None:
        self.bound, self.names, self.told_as = bound, tuple(names), tuple(told_as)
        self.told: list[Told] = [bound.told[name] for name in names]
        self._fields = bound.view.online_fields
        self._places = [[each.name for each in self._fields].index(name) for name in names]
        self._written_as = tuple(each.name for each in self._fields)
        self.pythons = [None if told.is_as_stored else told.python for told in self.told]
        self.lives_us = int(bound.view.time_to_live.total_seconds() * 1e6)

    def columns(self, layout: Any, values: Sequence[bytes]) -> list[Sequence[Any]]:
        """The features asked for; one that the rows were not written with is null."""
        found = layout.columns(values)
        if layout.names == self._written_as:
            return [found[place] for place in self._places]
        by_name = dict(zip(layout.names, found, strict=True))
        return [by_name.get(name, [None] * len(values)) for name in self.names]


@dataclass(frozen=True)
class _Column:
    """What was read of one view: by key a status and an event time; for each feature the values by key."""

    statuses: Sequence[Any]
    times: Sequence[int]
    columns: Sequence[Sequence[Any]]


def _answered(
    part: _Part, rows: Sequence[tuple[int, bytes] | None], allowed: Sequence[bool] | None, now: int, layout_of: Callable[[bytes], Any]
) -> _Column:  # fmt: skip
    """Rows of one view as statuses and columns; null where there is nothing to tell."""
    oldest = now - part.lives_us
    if rows and None not in rows and (allowed is None or all(allowed)):  # as nearly always: no look at each
        every, values = zip(*rows, strict=True)
        if min(every) >= oldest and len({value[:4] for value in values}) == 1:
            return _Column([_PRESENT] * len(rows), every, part.columns(layout_of(values[0]), values))
    statuses, times, shown, places = [], [], [], []
    for number, row in enumerate(rows):
        if allowed is not None and not allowed[number]:
            status, at = _REFUSED, 0
        elif row is None:
            status, at = _NOT_FOUND, 0
        else:
            at, value = row
            status = _TOO_OLD if at < oldest else _PRESENT
            if status == _PRESENT:
                shown.append(value)
                places.append(number)
        statuses.append(status)
        times.append(at)
    by_schema: dict[bytes, list[int]] = {}
    for number, value in enumerate(shown):
        by_schema.setdefault(value[:4], []).append(number)
    columns: list[list[Any]] = [[None] * len(rows) for _ in part.names]
    for numbers in by_schema.values():
        found = part.columns(layout_of(shown[numbers[0]]), [shown[each] for each in numbers])
        for column, values in zip(columns, found, strict=True):
            for number, value in zip(numbers, values, strict=True):
                column[places[number]] = value
    return _Column(statuses, times, columns)


@dataclass(frozen=True)
class _Plan:
    """How one request is answered. `kept`: the feature service, so that nothing else takes its identity."""

    parts: Sequence[_Part]
    join_keys: Sequence[str]
    key_types: Mapping[str, Any]
    use: Service | None
    kept: Any

    @cached_property
    def feature_types(self) -> dict[str, Any]:
        """Feast's type of each feature, by the name it is told as."""
        return {
            name: told.value_type for part in self.parts for name, told in zip(part.told_as, part.told, strict=True)
        }

    def answer(self, store: PackedOnlineStore, config: Any, entity_rows: Any) -> "PackedResponse":
        columns = _columns(entity_rows, self.join_keys)
        entity = self.parts[0].bound.view.entity
        keys = entity_keys(entity, [key_texts(columns[name]) for name in entity.join_keys])
        return PackedResponse(self, columns, store._read(config, self.parts, keys, self.use))


class PackedResponse(OnlineResponse):  # type: ignore[misc]
    """Feast's response, of columns; its protobuf is made when it is asked for."""

    def __init__(self, plan: _Plan, keys: Mapping[str, list[Any]], parts: Sequence[_Column]) -> None:
        self._plan, self._keys, self._parts = plan, keys, parts
        self._feature_types = plan.feature_types
        self._proto: Any = None

    @property
    def proto(self) -> Any:
        """`GetOnlineFeaturesResponse`."""
        if self._proto is None:
            self._proto = self._made()
        return self._proto

    def to_dict(self, include_event_timestamps: bool = False) -> dict[str, Any]:
        found: dict[str, Any] = {name: list(values) for name, values in self._keys.items()}
        if include_event_timestamps:
            found |= {name + TIMESTAMP_POSTFIX: [0] * len(values) for name, values in self._keys.items()}
        for part, read in zip(self._plan.parts, self._parts, strict=True):
            for name, python, column in zip(part.told_as, part.pythons, read.columns, strict=True):
                found[name] = list(column) if python is None else [python(each) for each in column]
                if include_event_timestamps:
                    found[name + TIMESTAMP_POSTFIX] = [at // 1_000_000 for at in read.times]
        return found

    def _made(self) -> Any:
        from google.protobuf.timestamp_pb2 import Timestamp  # type: ignore[import-untyped]

        proto = GetOnlineFeaturesResponse()
        for name, values in self._keys.items():
            proto.metadata.feature_names.val.append(name)
            vector = proto.results.add()
            vector.values.extend(python_values_to_proto_values(list(values), self._plan.key_types.get(name, ValueType.UNKNOWN)))  # fmt: skip
            vector.statuses.extend([_PRESENT] * len(values))
            vector.event_timestamps.extend([Timestamp()] * len(values))
        for part, read in zip(self._plan.parts, self._parts, strict=True):
            times = []
            for at in read.times:
                times.append(Timestamp())
                if at:
                    times[-1].FromDatetime(from_microseconds(at))
            for name, told, column in zip(part.told_as, part.told, read.columns, strict=True):
                proto.metadata.feature_names.val.append(name)
                vector = proto.results.add()
                vector.values.extend([told.proto(each) for each in column])
                vector.statuses.extend(read.statuses)
                vector.event_timestamps.extend(times)
        return proto


def _planned(
    store: PackedOnlineStore, config: Any, features: Any, registry: Any, project: str, full_names: bool
) -> _Plan | None:
    (
        _, on_demand, _, key_types, _, grouped, _, needed, entityless,
    ) = utils._get_cached_request_context(registry, project, features, full_names)  # fmt: skip
    if on_demand or needed or entityless or getattr(features, "precompute_online", False):
        return None
    use = _service_of(features)
    # Feast groups by sets; what is asked for comes in the order in which it was defined, or asked for.
    refs = features if not isinstance(features, FeatureService) else [
        f"{projection.name_to_use()}:{feature.name}" for projection in features.feature_view_projections for feature in projection.features
    ]  # fmt: skip
    order = {ref: place for place, ref in enumerate(refs)}
    parts = []
    for table, names in grouped:
        projection = table.projection
        if (
            projection.join_key_map
            or getattr(projection, "version_tag", None) is not None
            or DUMMY_ENTITY_NAME in table.entities
        ):
            return None
        bound = store.bound(config, table)
        shown = projection.name_to_use()
        asked = sorted(names, key=lambda name: order.get(f"{shown}:{name}", len(order)))
        parts.append(_Part(bound, asked, [f"{shown}__{name}" if full_names else name for name in asked]))
        _gate(bound.view, config, use)
    parts.sort(key=lambda part: min((order.get(f"{part.bound.view.name}:{name}", len(order)) for name in part.names), default=0))  # fmt: skip
    if len({part.bound.view.entity.join_keys for part in parts}) != 1:
        return None
    is_personal = any(part.bound.view.is_personal for part in parts)
    return _Plan(parts, parts[0].bound.view.entity.join_keys, key_types, use if is_personal else None, features)


def _columns(rows: Any, join_keys: Sequence[str]) -> dict[str, list[Any]]:
    """Values of the join keys, column by column, of rows or columns as Feast takes them."""
    if isinstance(rows, list):
        try:
            return {name: [row[name] for row in rows] for name in join_keys}
        except KeyError as fault:
            raise FeatureError(f"entity rows: expected {list(join_keys)} in each, found one without {fault}. Add it.") from None  # fmt: skip
    given = {name: getattr(values, "val", values) for name, values in rows.items()}
    missing = [name for name in join_keys if name not in given]
    if missing:
        raise FeatureError(f"entity rows: expected {list(join_keys)}, found none of {missing}. Add them.")
    found = {}
    for name in join_keys:
        values = list(given[name])
        if values and hasattr(values[0], "WhichOneof"):
            values = [getattr(each, each.WhichOneof("val") or "null_val") for each in values]
        found[name] = values
    return found


def _service_of(features: Any) -> Service | None:
    """The service of the catalogue that features are asked for by; None for any other way."""
    name = getattr(features, "name", None)
    return next((each for each in SERVICES if each.name == name), None)


def _gate(view: View, config: Any, given: Service | None = None) -> Service | None:
    """The service a personal view is being read for; None for what is not personal."""
    if not view.is_personal:
        return None
    use = given or _use.get()
    if use is None or view not in use.views or not config.online_store.home:
        raise FeatureError(
            f"feature view {view.name}: expected a feature service of the catalogue that has it, "
            f"found features asked for in another way. Ask for such a service: it names the purpose."
        )
    return use


def writable(view: View) -> View:
    """Standing is decided from the ledger and projected whole; nobody pushes it."""
    if view is SUBJECT_STANDING:
        raise FeatureError(
            f"feature view {view.name}: expected rows from the ledger alone, found a write. "
            f"Record the person's choice in the ledger; `troth run` projects it."
        )
    return view


def _answer_at(config: Any) -> datetime:
    given = config.online_store.answer_at
    return datetime.fromisoformat(given) if given else SystemClock().now()


def _ledger_size(home: Home | None) -> Callable[[], int]:
    def size() -> int:
        from consent.ledger import opening

        if home is None:
            raise FeatureError("online store: expected the home whose ledger is asked, found none. Give `home`.")
        return opening.ledger_size(home)

    return size
