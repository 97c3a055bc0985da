"""Why not: for each way and item the first sieve that let no place through, and for the basket what kept its items from coming together."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.promise.asking import Ask, Refusal
from models.promise.lanes import Closed, Open, Target, methods_of, pickup_places, shipping_places
from models.promise.network import Network
from models.promise.rules import Method
from models.promise.sight import Sight

Mask = NDArray[np.bool_]


def refusals(
    network: Network, ask: Ask, where: Target, sight: Sight, shut: Closed, opened: Open, methods: Sequence[Method], otherwise: str | None,
    of: Sequence[int] | None = None,
) -> list[Refusal]:  # fmt: skip
    """Why these ways cannot give the basket: by item; `split` where every item could come, but not from one place.

    `otherwise`: what to say of a way that could give it all and yet is not offered; None: it is only worse. `of`: these lines alone.
    """
    found: list[Refusal] = []
    allowed = methods_of(network, ask)
    for method in methods:
        if method not in allowed:
            found.append(Refusal(method=method, reason_code="not_asked"))
            continue
        if not sight.is_usable:
            found.append(Refusal(method=method, reason_code="stale_evidence"))
            continue
        reasons, comes_whole = _by_line(network, ask, where, sight, shut, opened, method)
        lines = [
            Refusal(method=method, sku=sight.lines[line].sku, reason_code=reason)
            for line in (range(len(sight.lines)) if of is None else of)
            if (reason := reasons[line]) is not None
        ]
        if not lines and not comes_whole:
            lines = [Refusal(method=method, reason_code="split")]
        elif not lines and otherwise is not None:
            lines = [Refusal(method=method, reason_code=otherwise)]
        found += lines
    return found


def hopeless(opened: Open) -> list[int]:
    """Lines that no lane at all can take."""
    lost: list[int] = np.flatnonzero(~opened.arrays.serves.any(axis=0)).tolist()
    return lost


def _by_line(
    network: Network, ask: Ask, where: Target, sight: Sight, shut: Closed, opened: Open, method: Method
) -> tuple[list[str | None], bool]:
    """For each item the first sieve that lets no place through, None where it could come this way if it were alone; and whether one
    place has them all."""
    is_chosen = method == "click_and_collect" and ask.store is not None
    if method == "click_and_collect":
        kind = near = pickup_places(network, ask, where)
        kind = near if is_chosen else network.is_store
    else:
        near = shipping_places(network, method, where)
        kind = network.is_store == (method == "ship_from_store")
    left = np.asarray(sight.is_known & kind)
    sieves = [("not_sold_here", left)]
    for name, mask in shut.methods[method]:
        left = left & ~mask
        sieves.append((f"rule:{name}", left))
    left = left & near
    sieves.append(("beyond_distance", left))
    left = left & (sight.available >= sight.units[:, None])
    sieves.append(("no_stock", left))
    mine = np.array([lane.method == method for lane in opened.lanes], dtype=np.bool_)
    can_come = np.asarray(opened.arrays.serves[mine].any(axis=0))
    found: list[str | None] = []
    for line, each in enumerate(sight.lines):
        if can_come[line]:
            found.append(None)
        elif each.sku not in network.products and not sight.is_known[line].any():
            found.append("unknown_sku")
        else:
            stopped_by = next((name for name, passed in sieves if not passed[line].any()), None)
            found.append(stopped_by or _late(network, shut, opened, method, left[line], line))
    return found, bool(left.all(axis=0).any())


def _late(network: Network, shut: Closed, opened: Open, method: Method, left: Mask, line: int) -> str | None:
    """Why an item that is there cannot come: no time, no hands, or no carrier that may or can go so far. None: not every place was weighed."""
    if method in opened.late:
        return opened.late[method]
    if not set(np.flatnonzero(left).tolist()) <= opened.weighed:
        return None
    closing = {network.services[number].name for number, mask in shut.carriers.items() if mask[line][left].all()}
    return next(
        (f"rule:{rule.name}" for rule in network.rules.rules if closing & set(rule.carriers)), "beyond_distance"
    )
