"""The catalogue as Feast objects, and their registration. Imports Feast only when asked to.

Sources point at the current published version, so they depend on the home: `definitions(home)` builds them.
"""

import hashlib
import json
from typing import Any

from feature_repo.catalogue import SERVICES, VIEWS, FieldType, Service, View
from feature_repo.feast_import import feast
from feature_repo.store import FILE_NAME
from troth import published
from troth.errors import TrothError
from troth.home import Home, write_atomically
from troth.settings import given_online

PROJECT = "troth"
ONLINE_STORE = "feature_repo.online_store.PackedSqliteOnlineStore"
OFFLINE_STORE = "feature_repo.historical.offline_store.AsofOfflineStore"
REDIS_STORE = "feature_repo.online_store.PackedRedisOnlineStore"
ENGINE = "feature_repo.engine.PackedComputeEngine"
# Feast has one join key per entity: an item at a location is a product and a location.
_ENTITIES = {"customer_id": "customer", "sku": "product", "location_code": "location"}
_REGISTRY = "registry.db"
_APPLIED = "applied.json"
_DTYPES: dict[FieldType, str] = {
    "text": "String",
    "integer": "Int64",
    "decimal": "Float64",
    "boolean": "Bool",
    "timestamp": "UnixTimestamp",
}


def definitions(home: Home) -> list[Any]:
    """Entities, sources, views and services of a home."""
    f = feast()
    entities = {
        key: f.Entity(name=name, join_keys=[key], value_type=f.ValueType.STRING, description=f"Known by {key}.")
        for key, name in _ENTITIES.items()
    }
    views = {view.name: _view(home, view, [entities[key] for key in view.entity.join_keys]) for view in VIEWS}
    sources = [view.stream_source or view.batch_source for view in views.values()]
    return [*entities.values(), *sources, *views.values(), *(_service(use, views) for use in SERVICES)]


def apply(home: Home) -> bool:
    """Register the definitions in the home's Feast registry. True when they differ from what was registered.

    A table that is not published yet is registered under the path of its pointer's folder.
    """
    digest = hashlib.sha256(json.dumps([_description(home), PROJECT, ONLINE_STORE]).encode()).hexdigest()
    mark = home.features / _APPLIED
    if mark.exists() and (home.features / _REGISTRY).exists() and json.loads(mark.read_bytes())["digest"] == digest:
        return False
    home.features.mkdir(parents=True, exist_ok=True)
    store = feature_store(home)
    wanted = definitions(home)
    kept = {(type(each).__name__, each.name) for each in wanted}
    held = [*store.list_feature_services(), *store.list_feature_views(), *store.list_entities()]
    gone = [each for each in held if (type(each).__name__, each.name) not in kept and not each.name.startswith("__")]
    store.apply(wanted, objects_to_delete=gone, partial=False)
    write_atomically(mark, json.dumps({"digest": digest}).encode())
    return True


def feature_store(home: Home) -> Any:
    """Feast's `FeatureStore` of a home: registry, SDK, `get_online_features` and `push` over our online store."""
    f = feast()
    from feast.repo_config import RepoConfig

    kept = {"type": ONLINE_STORE, "path": str(home.features / FILE_NAME)}
    online = ({"type": REDIS_STORE} if given_online() else kept) | {"home": str(home.root)}
    return f.FeatureStore(
        config=RepoConfig(
            project=PROJECT,
            provider="local",
            registry={"path": str(home.features / _REGISTRY)},
            online_store=online,
            batch_engine={"type": ENGINE},
            offline_store={"type": OFFLINE_STORE, "home": str(home.root)},
            entity_key_serialization_version=3,
        )
    )


def _path(home: Home, view: View) -> str:
    try:
        return str(published.current(home, view.table))
    except TrothError:
        return str(home.published / view.table)


def _description(home: Home) -> list[Any]:
    """All that the registered objects are made of."""
    return [[repr(view), _path(home, view)] for view in VIEWS] + [[repr(use)] for use in SERVICES]


def _view(home: Home, view: View, entities: list[Any]) -> Any:
    f = feast()
    from feast import types

    batch = f.FileSource(
        name=view.table, path=_path(home, view), timestamp_field=view.event_column, description=view.description
    )
    return f.FeatureView(
        name=view.name,
        entities=entities,
        ttl=view.time_to_live,
        schema=[
            *(f.Field(name=key, dtype=types.String) for key in view.entity.join_keys),
            *(
                f.Field(name=each.name, dtype=getattr(types, _DTYPES[each.type]), description=each.description)
                for each in view.fields
            ),
        ],
        source=f.PushSource(
            name=f"{view.name}_push", batch_source=batch, description=f"Near-time rows of {view.name}."
        ),
        description=view.description,
        tags={"personal": str(view.is_personal).lower(), "table": view.table},
    )


def _service(use: Service, views: dict[str, Any]) -> Any:
    tags = {
        "purpose": use.purpose_code or "none",
        "channel": use.channel_code,
        "personal": str(use.is_personal).lower(),
    }
    return feast().FeatureService(
        name=use.name, features=[views[view.name] for view in use.views], description=use.description, tags=tags
    )
