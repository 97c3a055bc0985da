"""Holds one unit after the other and prints the key of each when it was acknowledged: arguments place, SKUs, tries, prefix.

With tries of 0 it goes on until it is killed.
"""

import itertools
import sys

from models.stock.holds.words import Hold
from tests.integration.held import AT, basket, closing, opened


def main() -> None:
    place, skus, tries, prefix = sys.argv[1:]
    with closing(opened(place)) as store:
        for n in itertools.islice(itertools.count(), int(tries) or None):
            for sku in skus.split(","):
                key = f"{prefix}-{sku}-{n}"
                if isinstance(store.hold(basket(key, ("mitte", sku, 1)), AT), Hold):
                    print(key, flush=True)


if __name__ == "__main__":
    main()
