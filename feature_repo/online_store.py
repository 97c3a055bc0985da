"""Feast's online store interface over the packed store: `get_online_features`, `push` and `materialize` work on it.

Consent is asked here too: a personal view is read for a feature service of the catalogue, which names its purpose, or
not at all. A service that a caller makes up does not count, whatever purpose it claims.
Where Feast as it comes answers wrongly (time to live ignored online, refusals unknown), this answers right.
"""

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from feature_repo import catalogue
from feature_repo.catalogue import SERVICES, SUBJECT_STANDING, Field, Service, View
from feature_repo.errors import FeatureError
from feature_repo.feast_import import feast
from feature_repo.packed import from_microseconds, to_microseconds
from feature_repo.reads import Source, is_fresh, readable_size, standing
from feature_repo.store import PackedStore, StoredRow, Written, entity_key
from troth.clock import SystemClock
from troth.home import Home

feast()  # first, so that what follows does not import Feast the slow way

from feast.infra.online_stores.online_store import OnlineStore  # noqa: E402
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus  # noqa: E402
from feast.protos.feast.types.Value_pb2 import Value  # noqa: E402
from feast.repo_config import FeastConfigBaseModel  # noqa: E402

if TYPE_CHECKING:
    import pyarrow as pa

_VALUE_FIELDS = {
    "text": "string_val",
    "integer": "int64_val",
    "decimal": "double_val",
    "boolean": "bool_val",
    "timestamp": "unix_timestamp_val",  # whole seconds: Feast's own resolution
}
# Feast knows 'found' and 'not found'; a third outcome travels as a time that no row can have.
_REFUSED_AT = datetime(1, 1, 1, tzinfo=UTC)
_use: ContextVar[Service | None] = ContextVar("use", default=None)


class PackedSqliteOnlineStoreConfig(FeastConfigBaseModel):  # type: ignore[misc]
    """`path`: the SQLite file. `home`: whose consent ledger is asked. `answer_at`: ISO time to answer as of; null is now."""

    type: Literal["feature_repo.online_store.PackedSqliteOnlineStore"] = (
        "feature_repo.online_store.PackedSqliteOnlineStore"
    )
    path: str
    home: str
    answer_at: str | None = None


class PackedSqliteOnlineStore(OnlineStore):  # type: ignore[misc]
    """One packed row per entity and view."""

    def __init__(self) -> None:
        self._stores: dict[str, PackedStore] = {}

    def write_arrow(self, config: Any, view_name: str, table: "pa.Table") -> Written:
        """Write a table with the view's keys, event column and features: no row passes through Python objects."""
        import polars as pl

        frame = pl.DataFrame(pl.from_arrow(table.combine_chunks()))
        return self._store(config).write_frame(_writable(catalogue.view(view_name)), frame)

    def online_write_batch(
        self,
        config: Any,
        table: Any,
        data: list[tuple[Any, dict[str, Any], datetime, datetime | None]],
        progress: Callable[[int], Any] | None,
    ) -> None:
        view = _writable(catalogue.view(table.name))
        rows = [
            (
                _key_values(view, key),
                to_microseconds(at),
                {name: _plain(each) for name, each in values.items()},
            )
            for key, values, at, _ in data
        ]
        self._store(config).write_rows(view, rows)
        if progress:
            progress(len(rows))

    def online_read(
        self, config: Any, table: Any, entity_keys: list[Any], requested_features: list[str] | None = None
    ) -> list[tuple[datetime | None, dict[str, Any] | None]]:
        """Feast's rows: features; no features and a time when too old; no features and year 1 when refused."""
        view = catalogue.view(table.name)
        store = self._store(config)
        at = _answer_at(config)
        keys = [entity_key(view.entity, _key_values(view, key)) for key in entity_keys]
        rows = store.read(dict.fromkeys([view.name, SUBJECT_STANDING.name] if view.is_personal else [view.name]), keys)
        use = _gate(view)
        size = readable_size(Source(store, _ledger_size(config))) if use else None
        answers: list[tuple[datetime | None, dict[str, Any] | None]] = []
        for key in keys:
            row = rows.get((view.name, key))
            if use and not _stands(use, rows.get((SUBJECT_STANDING.name, key)), size, at):
                answers.append((_REFUSED_AT, {}))
            elif row is None:
                answers.append((None, None))
            elif not is_fresh(view, row.event_us, at):
                answers.append((from_microseconds(row.event_us), {}))
            else:
                answers.append((from_microseconds(row.event_us), _values(view, row, requested_features)))
        return answers

    def get_online_features(self, config: Any, features: Any, *arguments: Any, **options: Any) -> Any:
        """As Feast's; statuses OUTSIDE_MAX_AGE for rows too old, INVALID for subjects refused, values null for both."""
        name = getattr(features, "name", None)
        token = _use.set(next((each for each in SERVICES if each.name == name), None))
        try:
            response = super().get_online_features(config, features, *arguments, **options)
        finally:
            _use.reset(token)
        for vector in response.proto.results:
            for place, at in enumerate(vector.event_timestamps):
                if vector.statuses[place] == FieldStatus.NOT_FOUND and at.seconds:
                    is_refused = at.ToDatetime(UTC) == _REFUSED_AT
                    vector.statuses[place] = FieldStatus.INVALID if is_refused else FieldStatus.OUTSIDE_MAX_AGE
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
        store = self._store(config)
        store.keep(table.name for table in tables_to_keep)
        store.drop(table.name for table in tables_to_delete)

    def teardown(self, config: Any, tables: Sequence[Any], entities: Sequence[Any]) -> None:
        self._store(config).destroy()

    def _store(self, config: Any) -> PackedStore:
        path = config.online_store.path
        return self._stores.setdefault(path, PackedStore(Path(path)))


def _gate(view: View) -> Service | None:
    """The service a personal view is being read for; None for what is not personal."""
    if not view.is_personal:
        return None
    use = _use.get()
    if use is None or view not in use.views:
        raise FeatureError(
            f"feature view {view.name}: expected a feature service of the catalogue that has it, "
            f"found features asked for in another way. Ask for such a service: it names the purpose."
        )
    return use


def _stands(use: Service, row: StoredRow | None, ledger_size: int | None, at: datetime) -> bool:
    return standing(use.purpose_code or "", use.channel_code, row, ledger_size, at)[0]


def _writable(view: View) -> View:
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


def _ledger_size(config: Any) -> Callable[[], int]:
    def size() -> int:
        from consent.ledger import opening

        return opening.ledger_size(Home(Path(config.online_store.home)))

    return size


def _key_values(view: View, key: Any) -> list[Any]:
    """The parts of a Feast entity key in the order of the view's join keys."""
    given = dict(zip(key.join_keys, key.entity_values, strict=True))
    found = {name: getattr(value, value.WhichOneof("val") or "null_val") for name, value in given.items()}
    return [found.get(name) for name in view.entity.join_keys]


def _plain(value: Any) -> Any:
    """The Python value of a Feast value."""
    kind = value.WhichOneof("val")
    if kind is None or kind == "null_val":
        return None
    plain = getattr(value, kind)
    is_time = kind == "unix_timestamp_val"
    return from_microseconds(plain * 1_000_000) if is_time else plain


def _values(view: View, row: StoredRow, names: Sequence[str] | None) -> dict[str, Any]:
    """Feast values of a row's features."""
    wanted = view.fields if names is None else [each for each in view.fields if each.name in names]
    return {each.name: _value(each, row.values.get(each.name)) for each in wanted}


def _value(field: Field, plain: Any) -> Any:
    if plain is None:
        return Value()
    if field.type == "timestamp":
        plain = to_microseconds(plain) // 1_000_000
    return Value(**{_VALUE_FIELDS[field.type]: plain})
