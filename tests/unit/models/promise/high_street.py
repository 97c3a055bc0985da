"""A retailer of four places around Amsterdam Avenue: one plain default, named changes."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import numpy as np
import polars as pl

from models.promise.asking import Ask, Line, Promise, Spot
from models.promise.loads import NO_LOADS, Loads
from models.promise.network import Network, build
from models.promise.promising import Grounds, promise
from models.promise.rules import DEFAULT, Rules, parse
from models.stock.board.layout import CELL, FULL, MOST_FOUND, Cells, Known

TUESDAY = datetime(2026, 6, 16, 14, 5, tzinfo=UTC)  # 10:05 in New York
HERE = Spot(latitude=40.78, longitude=-73.97)
# code, type, latitude, longitude, region, opens, closes, zone
PLACES = (
    ("BROADWAY", "store", 40.79, -73.97, "NY", "09:00", "21:00", "America/New_York"),
    ("HARLEM", "store", 40.81, -73.95, "NY", "09:00", "21:00", "America/New_York"),
    ("BOSTON", "store", 42.36, -71.06, "MA", "09:00", "21:00", "America/New_York"),
    ("NEWARK", "distribution_center", 40.73, -74.17, "NJ", None, None, "America/New_York"),
)
# sku, category, cents, grams
ITEMS = (
    ("TEAPOT", "kitchen", 4_500, 900),
    ("KETTLE", "kitchen", 6_900, 1_400),
    ("SPRAY", "aerosols", 2_500, 300),
    ("ANVIL", "tools", 9_900, 25_000),
)
Stock = Mapping[tuple[str, str], int | Mapping[str, int]]


class Shelf:
    """A board in memory: units on hand, or parts, by (location, SKU)."""

    def __init__(
        self, stock: Stock, found: Mapping[tuple[str, str], Sequence[float]] | None = None, known_at: datetime | None = TUESDAY
    ) -> None:  # fmt: skip
        self.codes = sorted({code for code, _ in stock})
        self._stock, self._found, self._known_at = stock, found or {}, known_at

    def known(self) -> Known:
        return Known(41, self._known_at, self._known_at, None)

    def rows(self, skus: Sequence[str]) -> tuple[Cells, Sequence[str]]:
        data = np.zeros((len(skus), len(self.codes)), dtype=CELL)
        is_known = np.zeros(data.shape, dtype=np.bool_)
        for row, sku in enumerate(skus):
            for column, code in enumerate(self.codes):
                told = self._stock.get((code, sku))
                if told is None:
                    continue
                is_known[row, column] = True
                cell = data[row, column]
                for part, units in ({"on_hand_units": told} if isinstance(told, int) else told).items():
                    cell[part] = units
                cell["last_event_at"] = int(TUESDAY.timestamp() * 1e6)
                chances = list(self._found.get((code, sku), ()))
                if chances:
                    padded = chances + [chances[-1]] * (MOST_FOUND - len(chances))
                    cell["found"] = np.rint(np.array(padded) * FULL)
        return Cells(data, is_known), self.codes


def rules(*changes: tuple[str, str]) -> Rules:
    """The rules that come with the platform, with passages of their text changed."""
    text = DEFAULT.read_text(encoding="utf-8")
    for before, after in changes:
        assert before in text, before
        text = text.replace(before, after, 1)
    return parse(text)


def network(of: Rules | None = None, places: Sequence[tuple[object, ...]] = PLACES) -> Network:
    names = (
        "location_code",
        "location_type",
        "latitude",
        "longitude",
        "region_code",
        "opens_at",
        "closes_at",
        "timezone_name",
    )
    locations = pl.DataFrame([dict(zip(names, place, strict=True)) for place in places], infer_schema_length=None).with_columns(
        country_code=pl.lit("US"), location_name=pl.col("location_code").str.to_titlecase()
    )  # fmt: skip
    products = pl.DataFrame(ITEMS, schema=["sku", "category_name", "price_cents", "weight_grams"], orient="row")
    return build(locations, products, of or rules(), "test")


NETWORK = network()


def grounds(stock: Stock, *, of: Network = NETWORK, loads: Loads = NO_LOADS, found: Mapping[tuple[str, str], Sequence[float]] | None = None, known_at: datetime | None = TUESDAY) -> Grounds:  # fmt: skip
    return Grounds(Shelf(stock, found, known_at), of, loads)


def ask(*lines: tuple[str, int], **changes: object) -> Ask:
    return Ask(**({"lines": tuple(Line(*line) for line in lines or (("TEAPOT", 1),)), "spot": HERE} | changes))  # type: ignore[arg-type]


def codes(answer: Promise, method: str | None = None) -> set[tuple[str, str | None, str]]:
    """(way, SKU, reason) of what was refused."""
    return {
        (each.method, each.sku, each.reason_code) for each in answer.refusals if method is None or each.method == method
    }


def promised(
    stock: Stock, *lines: tuple[str, int], at: datetime = TUESDAY, of: Network = NETWORK, **changes: object
) -> Promise:
    return promise(ask(*lines, **changes), at, grounds(stock, of=of))
