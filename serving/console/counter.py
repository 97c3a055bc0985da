"""What the pages for one customer, one order and goods need at hand: answers, promises, the ledger, the vault, links. Opened when first needed."""

import threading
from collections import Counter as Counted
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from consent.rule.policy import Policy, read_policy
from serving import answers
from serving.console.searches import Searches
from serving.hub.links import Links
from serving.promising.shop import Shop
from troth.clock import Clock
from troth.home import Home
from troth.ids import tokeniser
from troth.published import current

if TYPE_CHECKING:
    from consent.ledger.ledger import Ledger
    from consent.vault import Vault


class Place(NamedTuple):
    """A location as it is named to people; without coordinates it is nowhere."""

    code: str
    name: str
    kind: str
    latitude: float | None
    longitude: float | None

    @property
    def is_store(self) -> bool:
        return self.kind == "store"


class Item(NamedTuple):
    """An item as it is named to people."""

    sku: str
    name: str
    category: str
    cents: int | None


class Counter:
    """One home's things for whoever serves people. Threads share it."""

    def __init__(self, home: Home, clock: Clock) -> None:
        self.home, self._clock = home, clock
        self.answers = answers.desk(home)
        self.shop = Shop(home)
        self.searches = Searches(home.root / "serving" / "console.db")
        self.policy: Policy = read_policy()
        self._opening = threading.Lock()
        self._ledger: Ledger | None = None
        self._vault: Vault | None = None

    @property
    def ledger(self) -> "Ledger":
        """The home's ledger, kept open. Raises: LedgerError."""
        from consent.ledger.opening import open_ledger

        with self._opening:
            if self._ledger is None:
                self._ledger = open_ledger(self.home, self._clock)
            return self._ledger

    @property
    def vault(self) -> "Vault":
        """The home's vault, kept open. Raises: ConsentError."""
        from consent.vault import open_vault

        with self._opening:
            if self._vault is None:
                self._vault = open_vault(self.home)
            return self._vault

    @property
    def links(self) -> Links:
        return Links(self.home.key("links"))

    def token(self, identifier_type: str, value: str) -> str | None:
        """The token of an identifier as somebody gave it; None for nothing."""
        return tokeniser(self.home.key("token"))(identifier_type, value)

    def places(self) -> Mapping[str, Place]:
        """Locations by code, stores first. Raises: TrothError when none were published."""
        return _places(current(self.home, "locations"))

    def items(self) -> Mapping[str, Item]:
        """Items by SKU. Raises: TrothError when none were published."""
        return _items(current(self.home, "products"))

    def close(self) -> None:
        """Close what was opened; it opens again when needed."""
        with self._opening:
            for each in (self._ledger, self._vault, self.searches, self.shop):
                if each is not None:
                    each.close()
            self._ledger = self._vault = None


def _columns(path: Path, *names: str) -> list[tuple[Any, ...]]:
    import polars as pl

    found = pl.read_parquet(path, columns=[name for name in names if name in pl.read_parquet_schema(path)])
    missing = [pl.lit(None).alias(name) for name in names if name not in found.columns]
    return found.with_columns(missing).select(names).rows()


@lru_cache(maxsize=4)
def _places(path: Path) -> Mapping[str, Place]:
    """Of a published version, which never changes. Where several are called alike, the code tells them apart."""
    rows = _columns(path, "location_code", "location_name", "location_type", "latitude", "longitude")
    often = Counted(name for _, name, *_ in rows)
    found = [
        Place(code, f"{name} {code}" if name and often[name] > 1 else name or code, kind, north, east)
        for code, name, kind, north, east in rows
    ]
    return {place.code: place for place in sorted(found, key=lambda each: (not each.is_store, each.code))}


@lru_cache(maxsize=4)
def _items(path: Path) -> Mapping[str, Item]:
    """Of a published version, which never changes."""
    rows = _columns(path, "sku", "product_name", "category_name", "price_cents")
    return {sku: Item(sku, name or sku, category or "", cents) for sku, name, category, cents in rows}
