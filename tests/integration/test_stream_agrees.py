"""The stream and the warehouse, over one log: what the board shows is what the warehouse computes once it has read the same events as files."""

import json
import random
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from feature_repo.catalogue import AVAILABILITY, SKU_LOCATION_AVAILABILITY
from feature_repo.store import entity_values, online_store
from models.stock.base import TABLES, announce
from models.stock.board.reader import Board
from models.stock.holds.opening import open_holds
from orchestration import stages, taking
from orchestration.catalog import SOURCES
from orchestration.near_time import known_offset, land_log
from orchestration.warehouse import publish_tables
from serving.event_log.events import NewEvent
from serving.event_log.log import Log, open_log
from serving.intake import plain, shopify
from serving.intake.drift import reports
from serving.intake.projector import Projector
from serving.operations.freshness import STREAMED
from serving.operations.freshness import shown as told_of
from simulator import TINY, simulate
from tests.builders import build_marts
from troth.clock import FixedClock
from troth.home import Home
from troth.published import current

SEED = 5
COUNTED_BY_THE_WAREHOUSE = ("sold_units_28d",)


class Shop:
    """A simulated retailer whose web shop and tills send events from the morning after its last files."""

    def __init__(self, home: Home, chance: random.Random) -> None:
        self.home, self.chance = home, chance
        simulate(home, TINY, SEED)
        self.take()
        known = stages.known_until(home)
        self.now = (known or datetime.now(UTC)) + timedelta(hours=1)
        stages.append_consents(home, FixedClock(self.now), lambda *_: None)
        self.compute()
        locations = pl.read_parquet(current(home, "locations"))
        self.shop_ids = dict(zip(locations["location_code"], locations["ecommerce_location_id"], strict=True))
        stores = locations.filter(pl.col("location_type") == "store")["location_code"]
        self.positions = (
            pl.read_parquet(current(home, "availability"))
            .filter(pl.col("location_code").is_in(stores.implode()))
            .select("location_code", "sku")
            .rows()
        )

    def take(self) -> None:
        for source in SOURCES:
            taking.take(self.home, taking.plan(self.home, source.name), workers=1)

    def compute(self) -> None:
        offset = known_offset(self.home)
        tables = [*TABLES, SKU_LOCATION_AVAILABILITY.table]
        build_marts(self.home.raw, self.home.root, self.now.isoformat(), tables)
        publish_tables(self.home, tables)
        announce(self.home, offset, self.now)

    def events(self, count: int) -> Iterator[NewEvent]:
        for number in range(1, count + 1):
            at = self.now - timedelta(seconds=2 * (count - number) + 10)
            location, sku = self.chance.choice(self.positions)
            if self.chance.random() < 0.4:
                units = -self.chance.randint(1, 3)
                yield self._plain("till", "movement", number, at, location, sku, movement_id=f"m{number}", movement_type="sale", units=units)  # fmt: skip
            else:
                yield from self._order(number, at, location, sku)

    def _order(self, number: int, at: datetime, location: str, sku: str) -> Iterator[NewEvent]:
        units, later = self.chance.randint(1, 4), at + timedelta(seconds=1)
        tell = self.chance.choice([self._told_plainly, self._told_by_the_shop])
        yield tell("orders/create", number, at, at, location, sku, units)
        fate = self.chance.choice(["waiting", "picked", "picked", "closed", "cancelled", "refunded"])
        if fate in ("picked", "closed"):
            yield self._plain(
                "wms", "pick", number, later, location, sku, pick_id=f"P{number}", order_ref=f"#N{number}", requested_units=units,
                picked_units=self.chance.randint(0, units),
            )  # fmt: skip
        if fate == "closed":
            status = self.chance.choice(["fulfilled", "partial"])
            yield tell("orders/updated", number, at, later, location, sku, units, fulfillment_status=status)
        elif fate == "cancelled":
            yield tell("orders/cancelled", number, at, later, location, sku, units, cancelled_at=later.isoformat())
        elif fate == "refunded":
            kind = self.chance.choice(["cancel", "return", "no_restock"])
            if self.chance.random() < 0.5:
                yield self._said(
                    "bazaar", "refund", number, later, refund_id=str(770_000_000 + number), order_id=str(990_000_000 + number),
                    currency_code="USD", paid_cents=0,
                    lines=[{"refund_line_id": str(660_000_000 + number), "line_id": str(880_000_000 + number), "sku": sku, "units": 1,
                            "restock_type": kind, "net_cents": 1000, "location_code": location}],
                )  # fmt: skip
                return
            line = {
                "id": 660_000_000 + number, "line_item_id": 880_000_000 + number, "line_item": {"id": 880_000_000 + number, "sku": sku},
                "quantity": 1, "restock_type": kind, "location_id": int(self.shop_ids[location]), "subtotal_set": _money(10),
                "total_tax_set": _money(0),
            }  # fmt: skip
            told = {"id": 770_000_000 + number, "order_id": 990_000_000 + number, "created_at": later.isoformat(),
                    "refund_line_items": [line], "transactions": []}  # fmt: skip
            yield self._webhook("refunds/create", told)

    def _body(
        self, number: int, at: datetime, updated: datetime, location: str, sku: str, units: int, **more: object
    ) -> dict[str, Any]:
        return {
            "id": 990_000_000 + number, "name": f"#N{number}", "created_at": at.isoformat(), "updated_at": updated.isoformat(), "cancelled_at": None,
            "currency": "USD", "email": f"shopper{number}@example.com", "source_name": "web", "financial_status": "paid", "fulfillment_status": None,
            "location_id": int(self.shop_ids[location]), "subtotal_price": f"{10 * units}.00", "total_discounts": "0.00", "total_tax": "0.00",
            "total_shipping_price_set": _money(0), "total_price": f"{10 * units}.00", "test": False,
            "shipping_lines": [{"code": "CLICK_AND_COLLECT", "price": "0.00"}],
            "line_items": [{"id": 880_000_000 + number, "sku": sku, "quantity": units, "price": "10.00", "total_discount": "0.00"}],
            **more,
        }  # fmt: skip

    def _told_by_the_shop(
        self, topic: str, number: int, at: datetime, updated: datetime, location: str, sku: str, units: int, **more: object
    ) -> NewEvent:  # fmt: skip
        return self._webhook(topic, self._body(number, at, updated, location, sku, units, **more))

    def _told_plainly(
        self, topic: str, number: int, at: datetime, updated: datetime, location: str, sku: str, units: int, **more: object
    ) -> NewEvent:  # fmt: skip
        return self._said(
            "bazaar", "order", f"{number}/{topic}", updated, order_id=str(990_000_000 + number), order_name=f"#N{number}",
            placed_at=at.isoformat(), currency_code="USD", location_code=location, fulfillment_method="click_and_collect",
            lines=[{"line_id": str(880_000_000 + number), "sku": sku, "units": units, "unit_price_cents": 1000}], **more,
        )  # fmt: skip

    def _webhook(self, topic: str, body: Mapping[str, Any]) -> NewEvent:
        told = json.dumps(body).encode()
        return shopify.read(shopify.Delivery(topic, "shop.example", f"{topic}/{body['id']}", self.now, told), self.now)

    def _plain(
        self, source: str, kind: str, number: int, at: datetime, location: str, sku: str, **more: object
    ) -> NewEvent:
        return self._said(source, kind, number, at, location_code=location, sku=sku, **more)

    def _said(self, source: str, kind: str, number: int | str, at: datetime, **more: object) -> NewEvent:
        told = {"event_type": kind, "event_id": f"{kind}{number}", "occurred_at": at.isoformat(), **more}
        event = plain.read(json.dumps(told).encode(), source, self.now)
        assert isinstance(event, NewEvent)
        return event


def _money(whole: int) -> dict[str, Any]:
    return {"shop_money": {"amount": f"{whole}.00", "currency_code": "USD"}}


def features(home: Home) -> dict[tuple[str, str], dict[str, Any]]:
    """What the stream wrote of positions, both views' rows as one."""
    store = online_store(home.features)
    keys = sorted(store.touched(SKU_LOCATION_AVAILABILITY))
    assert store.touched(AVAILABILITY) == set(keys)
    rows = store.read(STREAMED, keys)
    places = {key: entity_values(SKU_LOCATION_AVAILABILITY.entity, key) for key in keys}
    return {
        (location, sku): {name: value for view in STREAMED for name, value in rows[view.name, key].values.items()}
        for key, (sku, location) in places.items()
    }


def aware(value: object) -> object:
    return value.replace(tzinfo=UTC) if isinstance(value, datetime) else value


@pytest.mark.slow
def test_stream_and_batch_agree_to_the_piece_whatever_the_order_and_however_often_events_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.intake.projector._LOOK_SECONDS", 0)
    chance = random.Random(SEED)
    shop = Shop(Home(tmp_path), chance)
    events = list(shop.events(250))
    chance.shuffle(events)
    log: Log = open_log(shop.home)
    holds = open_holds(shop.home)
    with Projector(shop.home, log, holds, FixedClock(shop.now)) as projector:
        projector.catch_up()
        places = shop.positions
        before = Board(shop.home.stock / "board").cells(places).data
        for start in range(0, len(events), 40):
            log.take([*events[start : start + 40], *events[max(0, start - 5) : start]])
            projector.step()
        assert projector.tally.dead == 0
        shown = Board(shop.home.stock / "board").cells(places).data
        changed = (shown["on_hand_units"] != before["on_hand_units"]) | (
            shown["committed_units"] != before["committed_units"]
        )
        assert changed.sum() > 30
        while (told := told_of(shop.home)) is None or told.offset < log.head():
            projector.step()
        streamed = features(shop.home)
        assert len(streamed) > 30
        land_log(shop.home)
        shop.take()
        shop.compute()
        assert known_offset(shop.home) == log.head()
        recomputed = {view.name: pl.read_parquet(current(shop.home, view.table)) for view in STREAMED}
        for (location, sku), row in streamed.items():
            for view in STREAMED:
                (found,) = recomputed[view.name].filter(location_code=location, sku=sku).iter_rows(named=True)
                names = [each.name for each in view.fields if each.name not in COUNTED_BY_THE_WAREHOUSE]
                assert {name: row[name] for name in names} == {name: aware(found[name]) for name in names}, (
                    location,
                    sku,
                )
        while not projector.tally.rebases:
            projector.step()
        (report,) = reports(shop.home)
        assert report.offset == log.head()
        assert report.rows == []
        assert projector.pending == 0
    holds.close()
    log.close()
