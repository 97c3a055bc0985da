"""The home's holds: in its SQLite file, or in the database that `TROTH_STOCK` names."""

from models.stock.holds.sqlite import sqlite_holds
from models.stock.holds.store import Holds
from models.stock.holds.words import Limits
from troth.home import Home
from troth.settings import given_stock


def open_holds(home: Home, limits: Limits | None = None) -> Holds:
    """The home's holds, made on first use. Every process opens its own; threads share it.

    Raises: TrothError for an address that is none, HoldsError when the database cannot be used.
    """
    address = given_stock()
    if address is None:
        return sqlite_holds(home.stock / "stock.db", limits)
    if address.startswith("postgresql://"):
        from models.stock.holds.postgres import postgres_holds

        return postgres_holds(address, limits)
    from models.stock.holds.redis import redis_holds

    return redis_holds(address, limits)
