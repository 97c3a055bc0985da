"""Where the retailer that never was stands: stores and distribution centres on the real map of the United States."""

import math
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl

from simulator.scale import Scale
from simulator.spelling import COMPANY_PREFIX, with_check_digit

# The contiguous states and the District: one calendar day ends everywhere before 10:00 UTC of the next.
OUTSIDE = ("AK", "HI", "PR", "VI", "GU", "AS", "MP", "PW", "FM", "MH", "AA", "AE", "AP")
UNTAXED = ("DE", "MT", "NH", "OR")
NEAR_KM = 40.0
EARTH_KM = 6_371.0


@dataclass(frozen=True)
class Places:
    """Distribution centres first, then stores. Arrays are by place, in that order."""

    master: pl.DataFrame
    code: pl.Series
    gln: pl.Series
    shop_id: pl.Series
    centers: int
    latitude: np.ndarray
    longitude: np.ndarray
    center_of: np.ndarray
    opens: np.ndarray  # seconds of the wall clock
    closes: np.ndarray  # may pass midnight
    tills: np.ndarray
    tax_rate: np.ndarray
    offset_minutes: np.ndarray  # place x day, at noon: no trading happens between midnight closing and 04:00
    writes_offset: np.ndarray
    is_unheard: np.ndarray  # the web shop never hears of picks here

    def __len__(self) -> int:
        return len(self.code)


@lru_cache(maxsize=1)
def postal_codes() -> pl.DataFrame:
    """Places where mail is delivered in the contiguous states: zip, city, state, county, time zone, latitude, longitude."""
    import zipcodes

    rows = [
        (z["zip_code"], z["city"], z["state"], z["county"], z["timezone"], float(z["lat"]), float(z["long"]))
        for z in zipcodes.list_all()
        if z["active"] and z["zip_code_type"] == "STANDARD" and z["state"] not in OUTSIDE and z["timezone"] and z["lat"]
    ]
    names = ["zip", "city", "state", "county", "timezone", "latitude", "longitude"]
    return pl.DataFrame(rows, schema=names, orient="row")


def distance_km(
    latitude: np.ndarray, longitude: np.ndarray, to_latitude: np.ndarray, to_longitude: np.ndarray
) -> np.ndarray:
    """Great-circle distance (haversine), one row per first pair and one column per second."""
    a, b = np.radians(latitude)[:, None], np.radians(to_latitude)[None, :]
    half = np.sin((b - a) / 2) ** 2
    half += np.cos(a) * np.cos(b) * np.sin(np.radians(to_longitude[None, :] - longitude[:, None]) / 2) ** 2
    kilometres: np.ndarray = 2 * EARTH_KM * np.arcsin(np.sqrt(half))
    return kilometres


def found_places(scale: Scale, seed: int) -> Places:
    """Stores in towns of populous counties, and a distribution centre in the middle of each longitude band of stores."""
    rng = np.random.default_rng([seed, 1])
    towns = postal_codes()
    crowd = towns.with_columns(pl.len().over("state", "county").alias("crowd"))["crowd"].to_numpy().astype(np.float64)
    chosen = rng.choice(len(towns), scale.stores, replace=scale.stores > len(towns), p=crowd**2 / (crowd**2).sum())
    latitude, longitude = towns["latitude"].to_numpy(), towns["longitude"].to_numpy()
    west_to_east = np.argsort(longitude[chosen], kind="stable")
    center_of_store = np.empty(scale.stores, np.int64)
    center_towns = []
    for center, band in enumerate(np.array_split(west_to_east, scale.distribution_centers)):
        center_of_store[band] = center
        members = chosen[band] if len(band) else chosen[:1]
        middle = distance_km(
            latitude[members].mean(keepdims=True), longitude[members].mean(keepdims=True), latitude, longitude
        )[0]
        center_towns.append(int(np.argmin(middle)))
    return _places(scale, rng, towns[np.r_[np.array(center_towns), chosen]], center_of_store)


def _places(scale: Scale, rng: np.random.Generator, towns: pl.DataFrame, center_of_store: np.ndarray) -> Places:
    centers, stores = scale.distribution_centers, scale.stores
    count = centers + stores
    width = max(3, len(str(stores)))
    code = pl.Series([f"DC{n + 1}" for n in range(centers)] + [f"S{n + 1:0{width}d}" for n in range(stores)])
    opens = np.r_[np.zeros(centers, np.int64), rng.choice([8, 9, 10], stores, p=[0.3, 0.5, 0.2]) * 3600]
    closing = rng.choice([20.0, 21.0, 22.0, 24.5], stores, p=[0.3, 0.45, 0.21, 0.04])
    closes = np.r_[np.full(centers, 86_400), (closing * 3600).astype(np.int64)]
    gln = pl.Series(with_check_digit([f"{COMPANY_PREFIX}{n + 1:05d}" for n in range(count)]))
    shop_id = pl.Series([str(7_000_000_001 + n) for n in range(count)])
    states = towns["state"].to_list()
    rates = {
        state: 0.0 if state in UNTAXED else round(float(rng.uniform(0.04, 0.095)), 4) for state in sorted(set(states))
    }
    offset_minutes = _offset_minutes(towns["timezone"].to_list(), scale)
    per_store = scale.people / stores
    tills = np.r_[np.zeros(centers, np.int64), np.full(stores, min(12, max(2, math.ceil(per_store / 250))))]
    unheard = np.zeros(count, bool)
    unheard[centers + rng.choice(stores, math.ceil(stores * scale.unheard_store_share), replace=False)] = True
    opened = [scale.first_day - timedelta(int(n)) for n in rng.integers(200, 6_000, count)]
    master = pl.DataFrame(
        {
            "location_code": code,
            "location_type": ["distribution_center"] * centers + ["store"] * stores,
            "location_name": [
                f"{city} {'Distribution Center' if n < centers else 'Store'}" for n, city in enumerate(towns["city"])
            ],
            "gln": gln,
            "pos_store_code": [None] * centers + [str(n + 1) for n in range(stores)],
            "ecommerce_location_id": shop_id,
            "timezone_name": towns["timezone"],
            "latitude": towns["latitude"],
            "longitude": towns["longitude"],
            "city": towns["city"],
            "region_code": towns["state"],
            "postal_code": towns["zip"],
            "country_code": ["US"] * count,
            "opens_at": [None] * centers + [_wall(s) for s in opens[centers:]],
            "closes_at": [None] * centers + [_wall(s) for s in closes[centers:]],
            "opened_date": opened,
            "updated_at": [f"{scale.first_day - timedelta(30)}T12:00:00Z"] * count,
        }
    )
    return Places(
        master=master, code=code, gln=gln, shop_id=shop_id, centers=centers,
        latitude=towns["latitude"].to_numpy(), longitude=towns["longitude"].to_numpy(),
        center_of=np.r_[np.arange(centers), center_of_store], opens=opens, closes=closes, tills=tills,
        tax_rate=np.array([rates[state] for state in states]), offset_minutes=offset_minutes,
        writes_offset=np.r_[np.zeros(centers, bool), rng.random(stores) < 0.15], is_unheard=unheard,
    )  # fmt: skip


def _wall(second: int) -> str:
    return f"{second // 3600 % 24:02d}:{second // 60 % 60:02d}"


def _offset_minutes(zones: list[str], scale: Scale) -> np.ndarray:
    """Place x day, with a margin of days after the last for what is still under way."""
    days = scale.days + 60
    by_zone = {}
    for name in set(zones):
        zone = ZoneInfo(name)
        noons = (datetime.combine(scale.first_day + timedelta(n), time(12), zone) for n in range(days))
        by_zone[name] = [int(noon.utcoffset().total_seconds()) // 60 for noon in noons]  # type: ignore[union-attr]
    return np.array([by_zone[name] for name in zones], np.int32)
