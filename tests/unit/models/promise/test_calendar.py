from datetime import UTC, date, datetime, time, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.promise.calendar import Calendar, Departures
from models.promise.lanes import slot
from models.promise.loads import NO_LOADS
from models.promise.network import promised_days
from models.promise.rules import Hours
from tests.unit.models.promise.high_street import NETWORK, network, rules

NEW_YORK = "America/New_York"


def calendar(opens: str = "09:00", closes: str = "21:00", hours: Hours | None = None) -> Calendar:
    opening = [(time.fromisoformat(opens), time.fromisoformat(closes))]
    return Calendar(["SHOP"], [NEW_YORK], opening, [True], hours or Hours())


def window(of: Calendar, day: date) -> tuple[datetime, datetime] | None:
    found = of.window(0, day.toordinal())
    return None if found is None else (datetime.fromtimestamp(found[0], UTC), datetime.fromtimestamp(found[1], UTC))


def test_a_day_opens_by_the_wall_clock_before_and_after_the_clocks_are_changed() -> None:
    shop = calendar()
    assert window(shop, date(2026, 3, 7)) == (datetime(2026, 3, 7, 14, tzinfo=UTC), datetime(2026, 3, 8, 2, tzinfo=UTC))
    assert window(shop, date(2026, 3, 8)) == (datetime(2026, 3, 8, 13, tzinfo=UTC), datetime(2026, 3, 9, 1, tzinfo=UTC))


@pytest.mark.parametrize(("day", "hours"), [(date(2026, 3, 7), 4), (date(2026, 10, 31), 6), (date(2026, 6, 6), 5)])
def test_a_night_shop_is_open_as_long_as_the_night_is(day: date, hours: int) -> None:
    found = window(calendar("22:00", "03:00"), day)
    assert found is not None
    assert found[1] - found[0] == timedelta(hours=hours)


def test_a_time_that_a_spring_night_skips_is_as_much_later() -> None:
    found = window(calendar("02:30", "09:00"), date(2026, 3, 8))
    assert found is not None
    assert found[0] == datetime(2026, 3, 8, 7, 30, tzinfo=UTC)  # 03:30, for 02:30 never was


def test_a_date_of_a_place_counts_before_its_weekday_and_that_before_holidays_and_weekdays_of_all() -> None:
    said = Hours(
        weekdays={"sun": "11:00-17:00"},
        holidays={"07-04": "closed", "2026-07-05": "12:00-16:00"},
        locations={"SHOP": {"sat": "08:00-10:00", "2026-07-11": "closed"}},
    )
    shop = calendar(hours=said)
    opened = {day: found and found[0].hour - 4 for day in range(4, 14) for found in (window(shop, date(2026, 7, day)),)}
    assert opened == {4: 8, 5: 12, 6: 9, 7: 9, 8: 9, 9: 9, 10: 9, 11: None, 12: 11, 13: 9}


@given(st.datetimes(datetime(2026, 1, 1), datetime(2026, 12, 31)))
def test_a_slot_lies_within_opening_hours_and_begins_after_the_store_had_time_to_react(wall: datetime) -> None:
    now = int(wall.replace(tzinfo=UTC).timestamp())
    place = NETWORK.at["HARLEM"]
    starts, _ = slot(NETWORK, NO_LOADS, place, 1, now)
    assert starts is not None
    rules = NETWORK.rules.pickup
    day = NETWORK.calendar.local_day(place, starts)
    opening = NETWORK.calendar.window(place, day)
    assert opening is not None
    assert opening[0] <= starts < starts + rules.slot_minutes * 60 <= opening[1]
    assert starts >= now + rules.reaction_minutes * 60
    assert (starts - opening[0]) % (rules.slot_minutes * 60) == 0


def test_on_christmas_nobody_hands_over() -> None:
    place = NETWORK.at["HARLEM"]
    starts, reason = slot(NETWORK, NO_LOADS, place, 1, int(datetime(2026, 12, 25, 15, tzinfo=UTC).timestamp()))
    assert (starts, reason) == (int(datetime(2026, 12, 26, 14, tzinfo=UTC).timestamp()), "closed")


@given(st.lists(st.datetimes(datetime(2026, 1, 1), datetime(2026, 12, 31)), min_size=1, max_size=6))
def test_what_is_remembered_of_departures_is_what_would_be_found_anew(walls: list[datetime]) -> None:
    shop = calendar()
    remembering = Departures(shop, ["mon", "wed", "fri"], "14:00")
    for wall in walls:
        at = int(wall.replace(tzinfo=UTC).timestamp())
        found = remembering.after(0, at)
        assert found == Departures(shop, ["mon", "wed", "fri"], "14:00").after(0, at)
        assert found[0][0] >= at
        assert all(date.fromordinal(day).weekday() in (0, 2, 4) for _, day in found)


def test_after_the_cut_off_goods_leave_on_the_next_day_that_sends() -> None:
    centre = Departures(calendar(), ["mon", "tue", "wed", "thu", "fri"], "17:00")
    friday = datetime(2026, 6, 19, 21, 0, tzinfo=UTC)  # 17:00
    assert centre.after(0, int(friday.timestamp()))[0][1] == date(2026, 6, 19).toordinal()
    assert centre.after(0, int(friday.timestamp()) + 1)[0][1] == date(2026, 6, 22).toordinal()


def test_a_carrier_counts_the_days_it_works() -> None:
    ground = NETWORK.services[0]
    saturday = date(2026, 6, 20).toordinal()
    assert date.fromordinal(ground.arrival_day(saturday, 1)) == date(2026, 6, 22)
    assert date.fromordinal(ground.arrival_day(date(2026, 12, 24).toordinal(), 2)) == date(2026, 12, 28)
    weekdays = network(rules(("days: [mon, tue, wed, thu, fri, sat]\n    delivers_by", "days: [mon]\n    delivers_by")))
    assert date.fromordinal(weekdays.services[0].arrival_day(saturday, 2)) == date(2026, 6, 29)


def test_the_day_promised_is_the_first_by_which_enough_arrive() -> None:
    days = {2: 0.25, 3: 0.4, 4: 0.27, 5: 0.06, 6: 0.02}
    assert promised_days(days, 0.9) == (4, pytest.approx(0.92))
    assert promised_days(days, 0.25) == (2, 0.25)
    assert promised_days(days, 1) == (6, pytest.approx(1))
