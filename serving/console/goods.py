"""Where goods are, near a store or a postal code, how sure, how old that knowledge is; and what may be promised of a basket. No person in it.

A postal code is used for the answer alone: it stands in no address, and of where to look only a store does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import quote, urlencode

import numpy as np
import polars as pl
from starlette.responses import Response

from feature_repo.reads import PRESENT
from models.promise import words as promise_words
from models.promise.asking import Ask, Line, PromiseError, Refusal
from models.promise.asking import Promise as Promised
from models.promise.places import distances_km, postal_codes
from models.promise.promising import promise
from serving.answers import Availability, ask_availabilities, ask_availability
from serving.console.counter import Counter, Item, Place
from serving.console.frame import ROOT, Area, Page, Visit
from serving.order_words import METHODS
from serving.promising.shapes import spot_of
from troth.errors import TrothError
from troth.published import current

MOST_FOUND, MOST_NEAR, LINES = 20, 12, 4
MOST_UNITS = 999
BASIS = {
    "books alone": "recorded, nobody has looked",
    "counted": "counted",
    "pick failed": "a picker did not find it",
    "left": "a picker found it",
}
NO_CODE = "near: expected a postal code we know, found another. Correct it, or choose a store."


@dataclass(frozen=True)
class Near:
    """An item at a location: what may be promised there, how likely a piece is found, on what word, how far away."""

    place: Place
    units: int | None
    probability: float | None
    basis: str
    km: float | None
    answer: Availability


def area(counter: Counter) -> Area:
    return Area(
        "goods", "Goods", "/goods", "stock",
        [
            Page("/goods", "stock", partial(_goods, counter)),
            Page("/goods", "stock", partial(_near, counter), "POST"),
            Page("/goods/found", "stock", partial(_live, counter), "POST"),
            Page("/goods/promise", "stock", partial(_promise_form, counter)),
            Page("/goods/promise", "stock", partial(_promise, counter), "POST"),
            Page("/goods/{sku:path}", "stock", partial(_item, counter)),
        ],
    )  # fmt: skip


def _goods(counter: Counter, visit: Visit) -> Response:
    return _list(counter, visit, visit.text("find"), _store(counter, visit))


def _list(
    counter: Counter, visit: Visit, find: str, store: str, status: int = 200, wrong: str | None = None
) -> Response:
    values = _found(counter, visit, find, store)
    return visit.show("goods.html", "Goods", status, store=store, places=counter.places(), wrong=wrong, **values)


def _live(counter: Counter, visit: Visit) -> Response:
    """What is found so far, while somebody types."""
    return visit.fragment("goods_found.html", **_found(counter, visit, visit.text("find"), _store(counter, visit)))


def _found(counter: Counter, visit: Visit, find: str, store: str) -> dict[str, Any]:
    found = matching(counter.items(), find) if find else []
    shown, places = found[:MOST_FOUND], counter.places()
    here = ask_availabilities(counter.answers, [(item.sku, store) for item in shown], visit.at) if store else []
    stock = {each.sku: each.available_units if each.status == PRESENT else None for each in here}
    rows = [{"address": _address(item.sku, store), "item": item, "units": stock.get(item.sku)} for item in shown]
    return {
        "find": find,
        "here": places[store].name if store else None,
        "rows": rows,
        "count": len(found),
        "most": MOST_FOUND,
    }


def _near(counter: Counter, visit: Visit) -> Response:
    """From a postal code, which goes no further than here, to the store nearest to it."""
    find, near = visit.text("find"), visit.text("near")
    if not near:
        return visit.go(_path(counter, find, _store(counter, visit)))
    store = nearest(counter.places(), near)
    if store is None:
        return _list(counter, visit, find, _store(counter, visit), 422, NO_CODE)
    return visit.go(_path(counter, find, store), f"Nearest store: {counter.places()[store].name}.")


def _path(counter: Counter, find: str, store: str) -> str:
    """Where to go on: straight to an item where its SKU was typed."""
    if (sku := sku_of(counter.items(), find)) is not None:
        return _address(sku, store).removeprefix(ROOT)
    return f"/goods?{urlencode({'find': find, 'store': store})}"


def _item(counter: Counter, visit: Visit) -> Response:
    items, places, sku = counter.items(), counter.places(), visit.text("sku")
    if sku not in items:
        visit.refuse(404, "no_such_item", "item: expected one of the catalogue, found another. Look for it by name.")
    store, shows_all = _store(counter, visit), visit.choice("all", ("no", "yes")) == "yes"
    found = ask_availability(counter.answers, sku, None, visit.at)
    near = by_distance(found, places, _belief(counter, sku), store)
    mine = next((each for each in near if each.place.code == store), None)
    with_stock = [each for each in near if each.units]
    shown = near if shows_all else [each for each in near if each.units or each is mine][:MOST_NEAR]
    return visit.show(
        "good.html",
        items[sku].name,
        item=items[sku],
        store=store,
        places=places,
        mine=mine,
        here=places[store].name if store else None,
        near=shown,
        left_out=len(near) - len(shown),
        total=sum(each.units or 0 for each in near),
        with_stock=len(with_stock),
        closest=next((each for each in with_stock if each.place.code != store and each.place.is_store), None),
        ages=_ages(found),
    )


def _promise_form(counter: Counter, visit: Visit) -> Response:
    lines = [(visit.text("sku"), "1")] if visit.text("sku") else []
    return _asked(counter, visit, lines, None)


def _promise(counter: Counter, visit: Visit) -> Response:
    """What a shop would be promised: nothing is set aside and nothing kept."""
    lines = [
        (sku_of(counter.items(), sku) or sku, visit.text(f"units{n}", 10) or "1")
        for n in range(1, LINES + 1)
        if (sku := visit.text(f"sku{n}"))
    ]
    store, near = _store(counter, visit), visit.text("near", 40)
    try:
        if not lines:
            raise PromiseError("basket: expected an item, found none. Type its SKU.")
        if any(not (units.isascii() and units.isdigit() and 0 < int(units) <= MOST_UNITS) for _, units in lines):
            raise PromiseError(f"pieces: expected a whole number from 1 to {MOST_UNITS}, found another. Correct it.")
        if not near and not store:
            raise PromiseError("near: expected a postal code or a store, found none. Choose one.")
        place = counter.places()[store] if store else None
        spot = spot_of(near or f"{place.latitude},{place.longitude}" if place else near)
        ask = Ask(
            lines=tuple(Line(sku, int(units)) for sku, units in lines),
            spot=spot,
            allow_partial=bool(visit.text("partial")),
        )
        found = promise(ask, visit.at, counter.shop.grounds())
    except PromiseError as error:
        return _asked(counter, visit, lines, None, str(error))
    return _asked(counter, visit, lines, found)


def _asked(
    counter: Counter,
    visit: Visit,
    lines: Sequence[tuple[str, str]],
    found: Promised | None,
    wrong: str | None = None,
) -> Response:
    items = counter.items()
    return visit.show(
        "goods_promise.html",
        "What may be promised",
        422 if wrong else 200,
        lines=[*lines, *[("", "1")] * (LINES - len(lines))],
        names={sku: items[sku].name for sku, _ in lines if sku in items},
        store=_store(counter, visit),
        near=visit.text("near", 40),
        partial=bool(visit.text("partial")),
        places=counter.places(),
        items=items,
        found=found,
        options=[option for option in ((found.chosen, *found.runners_up) if found else ()) if option],
        refusals=[_refused(each, items) for each in found.refusals] if found else [],
        moment=promise_words.moment,
        told=promise_words.told,
        methods=METHODS,
        wrong=wrong,
    )


def matching(items: Mapping[str, Item], find: str) -> list[Item]:
    """Items whose SKU it is, else those whose name, brand and category have all words of it; by name."""
    if (sku := sku_of(items, find)) is not None:
        return [items[sku]]
    wanted = find.casefold().split()
    return sorted(
        (
            item
            for item in items.values()
            if all(word in f"{item.name} {item.category} {item.sku}".casefold() for word in wanted)
        ),
        key=lambda item: (item.name, item.sku),
    )


def sku_of(items: Mapping[str, Item], typed: str) -> str | None:
    """The SKU that was typed, in whatever case; None where it is none."""
    return next((sku for sku in (typed, typed.upper(), typed.lower()) if sku in items), None)


def nearest(places: Mapping[str, Place], postal_code: str) -> str | None:
    """The store nearest to a postal code; None for a code nobody knows."""
    spot = postal_codes().find(postal_code)
    stores = [place for place in places.values() if place.is_store and place.latitude is not None]
    if spot is None or not stores:
        return None
    return stores[int(np.argmin(_km(spot[0], spot[1], stores)))].code


def by_distance(
    found: Sequence[Availability], places: Mapping[str, Place], belief: Mapping[str, tuple[float, str]], store: str
) -> list[Near]:
    """Locations that have a record of the item, the nearest to a store first; without one, those with most of it."""
    here = places.get(store)
    known = [each for each in found if each.location_code in places]
    if here is None or here.latitude is None or here.longitude is None:
        kms: list[float | None] = [None] * len(known)
    else:
        measured = _km(here.latitude, here.longitude, [places[each.location_code] for each in known])
        kms = [None if np.isnan(km) else float(km) for km in measured]
    near = []
    for each, km in zip(known, kms, strict=True):
        probability, basis = belief.get(each.location_code, (None, ""))
        near.append(
            Near(
                place=places[each.location_code],
                units=each.available_units if each.status == PRESENT else None,
                probability=each.found_probability or probability,
                basis=BASIS.get(basis, basis),
                km=km,
                answer=each,
            )
        )
    far = float("inf")
    if here is None:
        return sorted(near, key=lambda each: (-(each.units or 0), each.place.code))
    return sorted(near, key=lambda each: (each.km if each.km is not None else far, each.place.code))


def _km(latitude: float, longitude: float, places: Sequence[Place]) -> Any:
    north, east = (
        np.array([getattr(place, name) if getattr(place, name) is not None else np.nan for place in places], float)
        for name in ("latitude", "longitude")
    )
    return distances_km(latitude, longitude, north, east)


def _belief(counter: Counter, sku: str) -> dict[str, tuple[float, str]]:
    """By location, how likely a first piece is found and on whose word; empty while nothing was believed."""
    try:
        path = current(counter.home, "pred_stock_belief")
    except TrothError:
        return {}
    rows = pl.scan_parquet(path).filter(pl.col("sku") == sku).select("location_code", "p_found_1", "evidence").collect()
    return {code: (share, str(evidence)) for code, share, evidence in rows.iter_rows()}


def _ages(found: Sequence[Availability]) -> dict[str, float | None]:
    """How old what is told is: of the stock, and since the newest movement anywhere."""
    known = [each.age_seconds for each in found if each.age_seconds is not None]
    moved = [each.last_movement_age_seconds for each in found if each.last_movement_age_seconds is not None]
    return {"known": max(known, default=None), "moved": min(moved, default=None)}


def _store(counter: Counter, visit: Visit) -> str:
    asked = visit.text("store")
    return asked if asked in counter.places() else ""


def _address(sku: str, store: str) -> str:
    return f"{ROOT}/goods/{quote(sku)}" + (f"?{urlencode({'store': store})}" if store else "")


def _refused(each: Refusal, items: Mapping[str, Item]) -> str:
    """Why not by a way, for staff."""
    why = promise_words.CANNOT.get(each.reason_code, promise_words.CANNOT_BY_RULE)
    of = f", {items[each.sku].name if each.sku in items else each.sku}" if each.sku else ""
    return f"{METHODS.get(each.method, each.method)}{of}: {why}"
