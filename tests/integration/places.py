"""Reaching into a ledger's database past everything that keeps it whole, as somebody with the database's password could."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg

Run = Callable[..., list[Any]]


@contextmanager
def raw(place: str) -> Iterator[Run]:
    """Statements on the database of a place, `?` for a value; committed on leaving."""
    if place.startswith("postgresql://"):
        with psycopg.connect(place) as connection:

            def run(statement: str, values: tuple[object, ...] = ()) -> list[Any]:
                cursor = connection.execute(statement.replace("?", "%s"), values)
                return cursor.fetchall() if cursor.description else []

            yield run
    else:
        with closing(sqlite3.connect(Path(place) / "ledger.db")) as file, file:
            yield lambda statement, values=(): file.execute(statement, values).fetchall()


@contextmanager
def by_hand(place: str) -> Iterator[Run]:
    """The same without the triggers that let the ledger only grow."""
    with raw(place) as run:
        if place.startswith("postgresql://"):
            for table in ("batches", "tiles", "checkpoints"):
                run(f"drop trigger {table}_only_grow on {table}")
        else:
            for (trigger,) in run("select name from sqlite_master where type = 'trigger'"):
                run(f"drop trigger {trigger}")
        yield run


def change_by_hand(place: str, table: str, column: str, where: str, change: Callable[[Any], object]) -> None:
    """Replace one value."""
    with by_hand(place) as run:
        ((found,),) = run(f"select {column} from {table} where {where}")  # noqa: S608
        value = found if isinstance(found, str | int) else bytes(found)
        run(f"update {table} set {column} = ? where {where}", (change(value),))  # noqa: S608
