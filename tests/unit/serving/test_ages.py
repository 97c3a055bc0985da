"""The age of stock at answer time: counted in memory, added up in a file by whoever runs, told by kind and bucket."""

import sqlite3
import threading
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from serving.promising.ages import BOUNDS, KEPT, Ages, bucket_of, read_ages
from troth.home import Home

NOON = datetime(2026, 3, 2, 12, 5, tzinfo=UTC)
HOUR = NOON.replace(minute=0)


@dataclass
class Answer:
    age_seconds: float | None


def counted(home: Home) -> Counter[str]:
    found: Counter[str] = Counter()
    for each in read_ages(home):
        found[each.kind] += each.answers
    return found


def test_an_answer_is_counted_once_by_hour_kind_and_bucket_when_the_service_stops(tmp_path: Path) -> None:
    home, ages = Home(tmp_path), Ages(Home(tmp_path))
    ages.note("promise", NOON, [Answer(2.55)])
    ages.note("promise", NOON + timedelta(minutes=50), [Answer(2.6)])
    ages.note("promise", NOON + timedelta(minutes=55), [Answer(2.6)])
    ages.note("availability", NOON, [Answer(None), Answer(700.0), Answer(900.0)])
    assert read_ages(home) == []
    ages.close()
    bucket = next(number for number, bound in enumerate(BOUNDS) if bound >= 2.6)
    found = {(each.hour, each.kind, each.bucket): each for each in read_ages(home)}
    assert found[HOUR, "promise", bucket].answers == 2
    assert abs(found[HOUR, "promise", bucket].seconds - 5.15) < 1e-9
    assert found[HOUR + timedelta(hours=1), "promise", bucket].answers == 1
    assert counted(home) == {"promise": 3, "availability": 1}


def test_what_nobody_knows_the_age_of_is_not_counted_and_makes_no_file(tmp_path: Path) -> None:
    ages = Ages(Home(tmp_path))
    ages.note("availability", NOON, [Answer(None)])
    ages.note("promisable", NOON, [])
    ages.close()
    assert list(tmp_path.iterdir()) == []


def test_services_add_to_one_file_and_threads_to_one_service(tmp_path: Path) -> None:
    home = Home(tmp_path)
    services = [Ages(home, pause_seconds=0.001) for _ in range(2)]

    def ask(service: Ages) -> None:
        for _ in range(500):
            service.note("availability", NOON, [Answer(1.0)])

    threads = [threading.Thread(target=ask, args=(service,)) for service in services for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for service in services:
        service.close()
    ((hour, kind, _, answers, seconds),) = read_ages(home)
    assert (hour, kind, answers, seconds) == (HOUR, "availability", 3_000, 3_000.0)


def test_what_cannot_be_written_is_kept_until_it_can(tmp_path: Path) -> None:
    home, ages = Home(tmp_path), Ages(Home(tmp_path))
    home.stock.write_text("no folder")
    ages.note("promise", NOON, [Answer(1.0)])
    ages.flush()
    home.stock.unlink()
    ages.note("promise", NOON, [Answer(1.0)])
    ages.close()
    assert counted(home) == {"promise": 2}


def test_what_is_older_than_two_years_is_forgotten_and_a_file_nobody_wrote_to_says_nothing(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.stock.mkdir()
    with closing(sqlite3.connect(home.stock / "answer_ages.db")):
        assert read_ages(home) == []
    for at in (NOON, NOON + KEPT + timedelta(days=1)):
        ages = Ages(home)
        ages.note("promise", at, [Answer(1.0)])
        ages.close()
    assert [each.hour for each in read_ages(home)] == [HOUR + KEPT + timedelta(days=1)]


@given(age=st.floats(0, 1e9))
def test_the_upper_end_of_a_bucket_is_never_below_an_age_in_it_and_at_most_a_quarter_above(age: float) -> None:
    bucket = bucket_of(age)
    if bucket < len(BOUNDS):
        assert age <= BOUNDS[bucket]
        assert bucket == 0 or age > BOUNDS[bucket] / 1.26
    else:
        assert age > BOUNDS[-1]
