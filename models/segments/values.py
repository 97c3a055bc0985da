"""Values of a text field to choose from: the most frequent ones, and none that fewer than ten people share."""

from datetime import datetime
from functools import lru_cache
from pathlib import Path

from models.segments.fields import EVENTS, SUBJECTS
from models.segments.sample import LEAST_ALIKE
from models.segments.sql import connected
from troth.home import Home
from troth.published import current

MOST_VALUES = 40
_MOST_ROWS = 200_000  # of an event: what is frequent shows in some of them
_LATEST = datetime(9999, 1, 1)  # the newest rows there are


def values(home: Home, of: str, field: str) -> list[str]:
    """Of a text field of a subject or an event, the most frequent first. Raises: TrothError where a table is not published."""
    known = SUBJECTS.get(of) or EVENTS[of]
    is_of_product = of in EVENTS and field in EVENTS[of].of_products
    tables = ("products",) if is_of_product else known.tables
    return list(_values(home, of, field, is_of_product, tuple(current(home, table) for table in tables)))


@lru_cache(maxsize=256)
def _values(home: Home, of: str, field: str, is_of_product: bool, versions: tuple[Path, ...]) -> tuple[str, ...]:
    """`versions` are what is read: another publication is asked anew. Field and subject are names of ours."""
    if is_of_product:
        tables: tuple[str, ...] = ("products",)
        sql = f"select {field}, count(*) as many from products where {field} is not null group by {field}"  # noqa: S608 - names of ours
    else:
        known = SUBJECTS.get(of) or EVENTS[of]
        tables, limit = known.tables, f" limit {_MOST_ROWS}" if of in EVENTS else ""
        sql = (
            f"select {field}, count(*) as many from (select {field}, customer_id from ({known.sql}) x{limit}) s "  # noqa: S608
            f"where {field} is not null group by {field} having count(distinct customer_id) >= {LEAST_ALIKE}"
        )
    with connected(home, tables) as connection:
        at = {"at": _LATEST} if "$at" in sql else {}
        rows = connection.execute(f"{sql} order by many desc, {field} limit {MOST_VALUES}", at).fetchall()
    return tuple(str(row[0]) for row in rows)
