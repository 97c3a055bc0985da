"""A desk over a small retailer's published tables, with a recommendation model. One plain default, named changes."""

import asyncio
import io
from collections.abc import Callable
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any

import httpx
import polars as pl
from starlette.applications import Starlette

from feature_repo.publish import publish
from feature_repo.reads import Source
from feature_repo.store import online_store
from models import registry
from serving.answers import Desk
from tests.unit.feature_repo.published_home import AS_OF, LEDGER_SIZE, home_with_tables
from troth.home import Home

AT = AS_OF.replace(tzinfo=UTC) + timedelta(hours=1)
NEIGHBOURS = (
    ("SKU-00001", "SKU-00002", 0.9),  # out of stock at S001
    ("SKU-00001", "SKU-00004", 0.5),
    ("SKU-00001", "SKU-00005", 0.4),
    ("SKU-00003", "SKU-00005", 0.3),
    ("SKU-00003", "SKU-00001", 0.8),  # just bought
)
STOCK = (
    ("SKU-00001", "S001", 10, 2, 1, 7),
    ("SKU-00001", "DC1", 50, 0, 5, 45),
    ("SKU-00002", "S001", 0, 0, 1, 0),
    ("SKU-00002", "DC1", 9, 0, 1, 8),
    ("SKU-00004", "S001", 3, 0, 0, 3),
    ("SKU-00005", "S001", 6, 0, 0, 6),
    ("SKU-00003", "S001", 4, 0, 1, 3),
)


def availability() -> pl.DataFrame:
    columns = ["sku", "location_code", "on_hand_units", "committed_units", "safety_units", "available_units"]
    moved = {"last_movement_at": pl.lit(AS_OF - timedelta(hours=9)), "as_of_at": pl.lit(AS_OF)}
    return pl.DataFrame(STOCK, schema=columns, orient="row").with_columns(**moved)


def train(home: Home, neighbours: tuple[tuple[str, str, float], ...] = NEIGHBOURS) -> str:
    """Put a model in use, as training does."""
    data = io.BytesIO()
    pl.DataFrame(neighbours, schema=["sku", "neighbour_sku", "score"], orient="row").write_parquet(data)
    version = registry.save(
        home, "recommendations", {"neighbours.parquet": data.getvalue()}, {"model": "recommendations"}
    )
    registry.promote(home, "recommendations", version)
    return version


def open_shop(root: Path, ledger_size: Callable[[], int] = lambda: LEDGER_SIZE, **tables: pl.DataFrame) -> Desk:
    home = home_with_tables(root, **({"availability": availability()} | tables))
    publish(home)
    return Desk(home, Source(online_store(home.features), ledger_size))


class Caller:
    """Asks the service as a client does, without a socket. A sync face, so that a test reads as a list of requests."""

    def __init__(self, app: Starlette, key: str | None = None) -> None:
        self._app = app
        self.headers = {"Authorization": f"Bearer {key}"} if key else {}

    def request(self, method: str, path: str, **content: Any) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self._app, raise_app_exceptions=False)
            async with httpx.AsyncClient(
                transport=transport, base_url="http://shop.test", headers=self.headers
            ) as client:
                return await client.request(method, path, **content)

        return asyncio.run(ask())

    def get(self, path: str, **content: Any) -> httpx.Response:
        return self.request("GET", path, **content)

    def post(self, path: str, **content: Any) -> httpx.Response:
        return self.request("POST", path, **content)
