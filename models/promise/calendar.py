"""When places are open and parcels leave: wall clocks, weekdays and holidays as seconds since 1970.

A day of 23 or 25 hours is what the time zone says it is: windows are made of wall times, slots of elapsed time from opening.
"""

from collections.abc import Mapping, Sequence
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from models.promise.rules import DAYS, Day, Hours, clock_of, hours_of

ALWAYS = (time(0), time(0))
_MOST_REMEMBERED = 50_000


class Calendar:
    """Opening windows and working days of places, worked out once and remembered. Threads may share it."""

    def __init__(
        self,
        codes: Sequence[str],
        zones: Sequence[str],
        opening: Sequence[tuple[time, time]],
        is_store: Sequence[bool],
        hours: Hours,
    ) -> None:
        self._codes, self._opening, self._is_store = codes, opening, is_store
        self._zones = [ZoneInfo(name) for name in zones]
        self._weekdays, self._holidays, self._own = hours.weekdays, hours.holidays, hours.locations
        self._windows: dict[tuple[int, int], tuple[int, int] | None] = {}

    def zone(self, place: int) -> ZoneInfo:
        return self._zones[place]

    def local_day(self, place: int, at: int) -> int:
        """The day of the wall clock as its ordinal."""
        return datetime.fromtimestamp(at, self._zones[place]).toordinal()

    def window(self, place: int, day: int) -> tuple[int, int] | None:
        """Seconds from and to which a place is open on the day of its wall clock; None where it stays closed."""
        key = (place, day)
        if key not in self._windows:
            if len(self._windows) > _MOST_REMEMBERED:
                self._windows = {}
            self._windows[key] = self._window(place, date.fromordinal(day))
        return self._windows[key]

    def is_holiday(self, day: date) -> bool:
        """A day on which nobody works: closed for all."""
        return _of_day(self._holidays, day) == "closed"

    def _window(self, place: int, day: date) -> tuple[int, int] | None:
        opens, closes = self._opening[place]
        text = self._said(place, day)
        if text is not None:
            found = hours_of(text)
            if found is None:
                return None
            opens, closes = found
        zone = self._zones[place]
        until = day if closes > opens else day + timedelta(1)
        start, end = seconds(day, opens, zone), seconds(until, closes, zone)
        return (start, end) if start < end else None

    def _said(self, place: int, day: date) -> str | None:
        """What is said of a day: of this place and date, of this place and weekday, of the date, of the weekday."""
        own = self._own.get(self._codes[place], {})
        weekday = DAYS[day.weekday()]
        for said in (_of_day(own, day), own.get(weekday), _of_day(self._holidays, day)):
            if said is not None:
                return said
        return self._weekdays.get(weekday) if self._is_store[place] else None


class Departures:
    """Days on which a kind of place sends, and until when of the wall clock an order goes the same day."""

    def __init__(self, calendar: Calendar, days: Sequence[Day], cut_off: str) -> None:
        self._calendar, self._cut_off = calendar, clock_of(cut_off, "cut_off")
        self._days = {DAYS.index(day) for day in days}
        self._known: dict[int, tuple[int, list[tuple[int, int]]]] = {}

    def after(self, place: int, at: int, count: int = 10) -> list[tuple[int, int]]:
        """The next departures: (second of the cut-off, ordinal of the day), first the one an order of now still makes."""
        before, known = self._known.get(place, (at, []))
        # What was found holds from the cut-off before its first one to that first one.
        if not known or not before < at <= known[0][0]:
            self._known[place] = before, known = self._find(place, at, count)
        return known

    def _find(self, place: int, at: int, count: int) -> tuple[int, list[tuple[int, int]]]:
        zone = self._calendar.zone(place)
        day = self._calendar.local_day(place, at) - 1
        before, found = at - 1, []
        for ordinal in range(day, day + 40):
            on = date.fromordinal(ordinal)
            if on.weekday() not in self._days or self._calendar.is_holiday(on):
                continue
            second = seconds(on, self._cut_off, zone)
            if second < at:
                before = second
            else:
                found.append((second, ordinal))
                if len(found) == count:
                    break
        return before, found


def seconds(day: date, wall: time, zone: ZoneInfo) -> int:
    """Seconds since 1970 of a wall time. One that a spring night skips is as much later as the clock was put on."""
    return int(datetime.combine(day, wall, zone).timestamp())


def working_days(days: Sequence[Day], calendar: Calendar, first: date, count: int) -> list[int]:
    """Ordinals of the days a carrier works, from a date on."""
    numbers = {DAYS.index(day) for day in days}
    all_days = (first + timedelta(n) for n in range(count))
    return [day.toordinal() for day in all_days if day.weekday() in numbers and not calendar.is_holiday(day)]


def _of_day(said: Mapping[str, str], day: date) -> str | None:
    return said.get(day.isoformat()) or said.get(day.isoformat()[5:])
