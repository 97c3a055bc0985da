"""A process that gives promises at a counter it shares with others: `python -m tests.integration.slot_taker HOME WORKER GIVEN WRITTEN`.

Some are given as the service gives them, with their stock held; many more are written to the book alone. Prints how many of each were.
"""

import random
import sys
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import msgspec

from models.promise.asking import Promise
from models.promise.book import Book, hands_of
from models.promise.keeping import Wish, give
from models.promise.promising import Grounds, promise
from models.stock.holds.sqlite import sqlite_holds
from tests.unit.models.promise.high_street import TUESDAY, Shelf, ask, network, rules

HANDS = 3
SLOTS = 40  # of a place of its own
STOCK = {("BROADWAY", "TEAPOT"): 10_000, ("HARLEM", "TEAPOT"): 10_000}
FEW_HANDS = network(rules(("lines_per_slot: 24", f"lines_per_slot: {HANDS}")))
ASKED = ask(("TEAPOT", 1), methods=("click_and_collect",))


def main(home: Path, worker: str, given: int, written: int) -> tuple[int, int]:
    with closing(sqlite_holds(home / "stock.db")) as holds, closing(Book(home / "promises.db")) as book:
        grounds = Grounds(Shelf(STOCK), FEW_HANDS, book)
        wishes = (Wish(key=f"{worker}/{number}") for number in range(given))
        promised = sum(give(ASKED, TUESDAY, grounds, wish, holds, book).is_promised for wish in wishes)
        one, chance = promise(ASKED, TUESDAY, Grounds(Shelf(STOCK), FEW_HANDS)), random.Random(worker)
        return promised, sum(_is_written(book, one, f"{worker}/{number}", chance) for number in range(written))


def _is_written(book: Book, one: Promise, number: str, chance: random.Random) -> bool:
    assert one.chosen is not None
    (parcel,) = one.chosen.parcels
    starts_at = parcel.starts_at + timedelta(hours=chance.randrange(SLOTS))
    parcel = msgspec.structs.replace(parcel, location_code="KIOSK", starts_at=starts_at)
    chosen = msgspec.structs.replace(one.chosen, parcels=(parcel,))
    asked = msgspec.structs.replace(one, promise_id=number, chosen=chosen)
    return isinstance(book.record(asked, None, {hands_of(parcel): HANDS}), Promise)


if __name__ == "__main__":
    told = main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    sys.stdout.write(" ".join(map(str, told)))
