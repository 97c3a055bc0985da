"""Our offline store over the views of the benchmark, with consent and without. Apart, because Feast is imported with it."""

from dataclasses import replace
from typing import ClassVar, Literal

from benchmarks.historical import SERVICE, VIEWS
from feature_repo.historical.offline_store import AsofOfflineStore, AsofOfflineStoreConfig


class ConsentedOfflineStoreConfig(AsofOfflineStoreConfig):
    type: Literal["benchmarks.historical_stores.ConsentedOfflineStore"] = (  # type: ignore[assignment]
        "benchmarks.historical_stores.ConsentedOfflineStore"
    )


class ConsentedOfflineStore(AsofOfflineStore):
    """The views are personal, and read for one service."""

    views: ClassVar = VIEWS
    services: ClassVar = (SERVICE,)


class OpenOfflineStoreConfig(AsofOfflineStoreConfig):
    type: Literal["benchmarks.historical_stores.OpenOfflineStore"] = (  # type: ignore[assignment]
        "benchmarks.historical_stores.OpenOfflineStore"
    )


class OpenOfflineStore(AsofOfflineStore):
    """The same views as if nobody were in them."""

    views: ClassVar = tuple(replace(view, is_personal=False) for view in VIEWS)
    services: ClassVar = ()
