"""Feast's offline store over the point-in-time join: `get_historical_features` at DuckDB's speed, no entity row lost.

A personal view is read for a feature service of the catalogue, under consent (`reading.py`); Feast hands a store features, not the
service, so what is asked for must be all the features of one, and no others. All that is not historical is Feast's own file store.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal
from urllib.parse import urlparse

from feature_repo.catalogue import SERVICES, VIEWS, Service, View
from feature_repo.errors import FeatureError
from feature_repo.feast_import import feast
from feature_repo.historical.joining import Engine, EntityRows, Joinable
from feature_repo.historical.reading import TrainingRows, read, services_of
from troth.clock import SystemClock
from troth.home import Home

feast()  # first, so that what follows does not import Feast the slow way

from feast.feature_view import DUMMY_ENTITY_ID  # noqa: E402
from feast.infra.offline_stores.dask import (  # noqa: E402
    DaskOfflineStore,
    DaskOfflineStoreConfig,
    DaskRetrievalJob,
)
from feast.infra.offline_stores.file_source import FileSource  # noqa: E402
from feast.infra.offline_stores.offline_store import RetrievalMetadata  # noqa: E402
from feast.on_demand_feature_view import OnDemandFeatureView  # noqa: E402

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_TIME = "event_timestamp"


class AsofOfflineStoreConfig(DaskOfflineStoreConfig):  # type: ignore[misc]
    """`home`: whose consent ledger is asked; without one personal views are refused. `answer_at`: ISO time until which standing
    must still hold; null is now. `memory_limit` (as DuckDB writes it), `temp_directory`, `threads`: what a join may use."""

    type: Literal["feature_repo.historical.offline_store.AsofOfflineStore"] = (
        "feature_repo.historical.offline_store.AsofOfflineStore"
    )
    home: str | None = None
    answer_at: str | None = None
    memory_limit: str = Engine.memory_limit
    temp_directory: str | None = None
    threads: int | None = None


class AsofRetrievalJob(DaskRetrievalJob):  # type: ignore[misc]
    """A read that happens when its rows are asked for, each time anew. `told` says what came of the last one, refusals by reason."""

    def __init__(self, reading: Callable[[], TrainingRows], **told_by_feast: Any) -> None:
        super().__init__(reading, **told_by_feast)
        self.told: TrainingRows | None = None

    def _to_arrow_internal(self, timeout: int | None = None) -> "pa.Table":
        self.told = self.evaluation_function()
        return self.told.rows

    def _to_df_internal(self, timeout: int | None = None) -> "pd.DataFrame":
        frame: pd.DataFrame = self._to_arrow_internal(timeout).to_pandas()
        return frame


class AsofOfflineStore(DaskOfflineStore):  # type: ignore[misc]
    """Parquet sources joined by DuckDB. `views` and `services` say what is personal, and for what it may be read."""

    supports_filter_by_created_timestamp = False
    views: ClassVar[Sequence[View]] = VIEWS
    services: ClassVar[Sequence[Service]] = SERVICES

    @classmethod
    def get_historical_features(
        cls,
        config: Any,
        feature_views: list[Any],
        feature_refs: list[str],
        entity_df: Any,
        registry: Any,
        project: str,
        full_feature_names: bool = False,
        **given: Any,
    ) -> AsofRetrievalJob:
        """As Feast's: newest row at or before each row's time and within the time to live, null where there is none.

        `entity_df`: a pandas frame, anything that Arrow reads as a table, or a query for DuckDB that may name the views' sources;
        rows come out in its order, those of personal views without the refused. Times without a zone are UTC.
        Raises: FeatureError for a personal view outside a service, or what does not fit; TrothError where consent is unreadable.
        """
        uses = cls._uses(feature_views, feature_refs)
        sources = [
            _joinable(config, view, names, full_feature_names) for view, names in _asked(feature_views, feature_refs)
        ]
        settings = config.offline_store
        spill = Path(settings.temp_directory) if settings.temp_directory else None
        engine = Engine(settings.memory_limit, spill, settings.threads)
        table = _entity_table(entity_df, sources, engine)
        entities = EntityRows(table, _time_column(table))

        def reading() -> TrainingRows:
            home = Home(Path(settings.home)) if settings.home else None
            at = datetime.fromisoformat(settings.answer_at) if settings.answer_at else None
            return read(home, uses, entities, sources, SystemClock(), at=at, engine=engine)

        return AsofRetrievalJob(
            reading,
            full_feature_names=full_feature_names,
            repo_path=str(config.repo_path),
            on_demand_feature_views=OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry),
            metadata=_metadata(entities, feature_refs),
        )

    @classmethod
    def _uses(cls, feature_views: Sequence[Any], feature_refs: Sequence[str]) -> list[Service]:
        """The services that personal views are read for; none where nothing is personal. Raises: FeatureError."""
        known = {view.name: view for view in cls.views}
        unknown = sorted(view.name for view in feature_views if view.name not in known)
        if unknown:
            raise FeatureError(
                f"feature views: expected views of the catalogue, found {unknown}. "
                "Add them there: it says whether they are personal."
            )
        personal = sorted(view.name for view in feature_views if known[view.name].is_personal)
        if not personal:
            return []
        uses = services_of(feature_refs, cls.services)
        if not uses:
            raise FeatureError(
                f"feature view {', '.join(personal)}: expected all features of a feature service of the catalogue, "
                "found features asked for in another way. Ask for such a service: it names the purpose."
            )
        return uses


def _asked(feature_views: Sequence[Any], feature_refs: Sequence[str]) -> list[tuple[Any, list[str]]]:
    """Each view with the features that are asked of it; on-demand views are made by Feast of what comes out."""
    asked: list[tuple[Any, list[str]]] = []
    for view in feature_views:
        named = f"{view.projection.name_to_use()}:"
        asked.append((view, [ref.removeprefix(named) for ref in feature_refs if ref.startswith(named)]))
    return asked


def _joinable(config: Any, view: Any, names: Sequence[str], is_full: bool) -> Joinable:
    """A Feast view as the join takes it: names of its source's columns, keys by the entity rows' names."""
    source, projection = view.batch_source, view.projection
    theirs = {ours: column for column, ours in source.field_mapping.items()}
    keys = [column.name for column in view.entity_columns if column.name != DUMMY_ENTITY_ID]
    prefix = f"{projection.name_to_use()}__" if is_full else ""
    return Joinable(
        name=view.name,
        files=_files(config, view.name, source),
        keys={projection.join_key_map.get(key, key): theirs.get(key, key) for key in keys},
        event_column=theirs.get(source.timestamp_field, source.timestamp_field),
        created_column=theirs.get(source.created_timestamp_column, source.created_timestamp_column) or None,
        features={f"{prefix}{name}": theirs.get(name, name) for name in names},
        time_to_live=view.ttl or timedelta(),
    )


def _files(config: Any, name: str, source: Any) -> tuple[Path, ...]:
    """The Parquet files of a source: one, or all of a folder in the order of their names. Raises: FeatureError."""
    uri = source.path if isinstance(source, FileSource) else ""
    path = Path(urlparse(uri).path if uri.startswith("file://") else uri)
    if isinstance(source, FileSource) and "://" not in uri.removeprefix("file://"):
        path = path if path.is_absolute() else Path(config.repo_path or ".") / path
        files = tuple(sorted(path.rglob("*.parquet"))) if path.is_dir() else (path,)
        if files and all(each.is_file() for each in files):
            return files
    raise FeatureError(
        f"feature view {name}: expected a source of Parquet files of this machine, found none there. "
        "Publish its table, or register it again: `troth run` does both."
    )


def _entity_table(given: Any, sources: Sequence[Joinable], engine: Engine) -> "pa.Table":
    """Entity rows as Arrow, whatever they came as. Raises: FeatureError for none."""
    import pyarrow as pa

    if given is None:
        raise FeatureError("historical read: expected entity rows, found none. Hand in whom to read, and as of when.")
    if isinstance(given, str):
        with engine.opened() as connection:
            for source in sources:
                connection.read_parquet([str(path) for path in source.files]).create_view(source.name)
            return connection.sql(given).to_arrow_table()
    if isinstance(given, pa.Table):
        return given
    if hasattr(given, "iloc"):  # pandas, whose index is no column
        return pa.Table.from_pandas(given, preserve_index=False)
    return pa.table(given)


def _time_column(table: "pa.Table") -> str:
    """`event_timestamp`, or the only column that holds times. Raises: FeatureError where that cannot be told."""
    import pyarrow as pa

    times = [each.name for each in table.schema if pa.types.is_timestamp(each.type)]
    if _TIME in table.column_names or len(times) != 1:
        return _TIME
    return str(times[0])


def _metadata(entities: EntityRows, feature_refs: list[str]) -> Any:
    import pyarrow.compute as pc

    span = pc.min_max(entities.table.column(entities.time_column)).as_py()
    keys = [name for name in entities.table.column_names if name != entities.time_column]
    return RetrievalMetadata(feature_refs, keys, span["min"], span["max"])
