"""Where a postal code lies: latitude, longitude, region. And distances on the globe."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

EARTH_KM = 6_371.0
KNOWN_COUNTRY = "US"


class PostalCodes:
    """Postal codes of the United States and their middles. Reading them takes a second, once."""

    def __init__(self) -> None:
        import zipcodes

        rows = [
            (each["zip_code"], each["state"], float(each["lat"]), float(each["long"]))
            for each in zipcodes.list_all()
            if each["lat"] and each["long"]
        ]
        rows.sort(key=lambda row: row[2])
        self._regions: list[str] = [row[1] for row in rows]
        self._latitude = np.array([row[2] for row in rows])
        self._longitude = np.array([row[3] for row in rows])
        self._at = {row[0]: number for number, row in enumerate(rows)}

    def find(self, postal_code: str) -> tuple[float, float, str] | None:
        """Latitude, longitude and region; of nine digits the first five count."""
        number = self._at.get(postal_code.strip().partition("-")[0])
        if number is None:
            return None
        return float(self._latitude[number]), float(self._longitude[number]), self._regions[number]

    def region_of(self, latitude: float, longitude: float) -> str:
        """Region of the nearest postal code; of those within a degree north or south, where there are any."""
        first, last = np.searchsorted(self._latitude, (latitude - 1, latitude + 1))
        near = slice(first, last) if last > first else slice(None)
        east = (self._longitude[near] - longitude) * np.cos(np.radians(latitude))
        nearest = np.argmin((self._latitude[near] - latitude) ** 2 + east**2)
        return self._regions[int(nearest) + int(near.start or 0)]


@lru_cache(maxsize=1)
def postal_codes() -> PostalCodes:
    return PostalCodes()


def distances_km(
    latitude: float, longitude: float, latitudes: NDArray[np.float64], longitudes: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Great-circle distances from one spot (haversine); what has no coordinates is nowhere (NaN)."""
    a, b = np.radians(latitude), np.radians(latitudes)
    half = np.sin((b - a) / 2) ** 2 + np.cos(a) * np.cos(b) * np.sin(np.radians(longitudes - longitude) / 2) ** 2
    distances: NDArray[np.float64] = 2 * EARTH_KM * np.arcsin(np.sqrt(half))
    return distances
