"""Readers hear what the ledger took since standing was published: at once, exactly, and without waiting for one another."""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from consent.errors import LedgerError
from consent.events import Event, Recorded
from consent.ledger.ledger import Ledger
from consent.ledger.opening import open_ledger
from consent.rule.policy import read_policy
from consent.rule.standing import standing_frame
from feature_repo.heard import Heard
from models.tables import write
from tests.unit.consent.builders import MONDAY, event, subject
from troth.clock import FixedClock
from troth.home import Home
from troth.published import current

NOW = MONDAY + timedelta(days=10)
PEOPLE = [f"cus_{number:03}" for number in range(12)]
YES, NO = (True, "granted"), (False, "withdrawn")


def says(number: int, event_type: str = "grant") -> Event:
    return event(NOW, event_type=event_type, subject_id=subject(number), signal_id=f"{event_type}-{number}")


class Shop:
    """A home in which everybody granted; their standing and identities are published."""

    def __init__(self, root: Path) -> None:
        self.home = Home(root)
        self.owners = dict(enumerate(PEOPLE))
        self.say([says(number) for number in self.owners])
        self.publish()

    def ledger(self) -> Ledger:
        return open_ledger(self.home, FixedClock(NOW))

    def say(self, events: Sequence[Event]) -> int:
        with self.ledger() as ledger:
            ledger.append(events)
            return ledger.size

    def publish(self, size: int | None = None) -> None:
        links = pl.DataFrame(
            [(who, subject(number), "hub") for number, who in self.owners.items()],
            schema=["customer_id", "identity_ref", "link_type"],
            orient="row",
        )
        with self.ledger() as ledger:
            rows = standing_frame(ledger.frame(size), links, read_policy(), NOW)
        write(self.home, "consent_standing", rows)
        write(self.home, "customer_identities", links)

    def ask(self, heard: Heard, who: str, size: int) -> tuple[bool, str] | None:
        return heard.answer(who, size, NOW, "personalization", "*")


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path / "home")


def in_thread(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_a_withdrawal_is_refused_at_once_and_everybody_else_is_answered(shop: Shop) -> None:
    heard = Heard(shop.home)
    for number, who in enumerate(PEOPLE[:4]):
        before = shop.say([])
        assert shop.ask(heard, who, before) == YES
        size = shop.say([says(number, "withdraw")])
        assert shop.ask(heard, who, size) == NO
        assert shop.ask(heard, PEOPLE[-1], size) == YES
        assert shop.ask(heard, who, before) is None  # it was a yes then, and is not told any more
        assert shop.ask(heard, PEOPLE[-1], before) == YES


def test_under_withdrawals_one_after_the_other_no_reader_hears_a_yes_asked_for_after_the_acknowledgement(
    shop: Shop,
) -> None:
    heard, size, gone, is_done = Heard(shop.home), [shop.say([])], [0], threading.Event()
    leaked: list[str] = []
    answered = [0, 0]

    def read(reader: int) -> None:
        while not is_done.is_set():
            acknowledged, now = gone[0], size[0]  # in this order: whoever is gone is in a ledger of this size
            for number, who in enumerate(PEOPLE):
                found = shop.ask(heard, who, now)
                answered[reader] += found == YES
                if number < acknowledged and found is not None and found[0]:
                    leaked.append(who)

    readers = [in_thread(lambda reader=reader: read(reader)) for reader in range(2)]  # type: ignore[misc]
    for number in range(len(PEOPLE) - 1):
        size[0] = shop.say([says(number, "withdraw")])
        gone[0] = number + 1
        assert shop.ask(heard, PEOPLE[number], size[0]) == NO
    is_done.set()
    for reader in readers:
        reader.join()
    assert leaked == []
    assert min(answered) > 0


def test_what_is_published_anew_is_asked_by_the_next_reader(shop: Shop) -> None:
    heard, size = Heard(shop.home), shop.say([says(0, "withdraw")])
    assert shop.ask(heard, PEOPLE[0], size) == NO
    assert shop.ask(heard, PEOPLE[1], size) == YES
    shop.owners[0] = PEOPLE[1]  # it was the other's address all along
    shop.publish()
    assert shop.ask(heard, PEOPLE[1], size) == NO
    assert shop.ask(heard, PEOPLE[0], size) == (False, "never_asked")


def test_while_a_gate_is_built_readers_are_answered_and_withdrawals_heard_by_the_one_before(shop: Shop) -> None:
    may_end, has_begun = threading.Event(), threading.Event()

    class Slow(Heard):
        def _read(self) -> object:  # type: ignore[override]
            found = super()._read()
            if self._known is not None:
                has_begun.set()
                assert may_end.wait(30)
            return found

    heard, size = Slow(shop.home), shop.say([])
    assert shop.ask(heard, PEOPLE[0], size) == YES
    shop.owners[2] = PEOPLE[3]
    shop.publish()
    builder = in_thread(lambda: shop.ask(heard, PEOPLE[0], size))
    assert has_begun.wait(30)
    size = shop.say([says(1, "withdraw")])
    assert shop.ask(heard, PEOPLE[1], size) == NO
    assert shop.ask(heard, PEOPLE[2], size) == YES
    may_end.set()
    builder.join()
    assert shop.ask(heard, PEOPLE[1], size) == NO
    assert shop.ask(heard, PEOPLE[2], size) == (False, "never_asked")


def test_what_cannot_be_told_is_not_told(shop: Shop, tmp_path: Path) -> None:
    heard, size = Heard(shop.home), shop.say([])
    assert shop.ask(heard, PEOPLE[0], size + 1) is None  # a ledger that is not there yet
    assert shop.ask(heard, PEOPLE[0], size - 1) is None  # standing was published under more
    assert shop.ask(heard, PEOPLE[0], size) == YES
    assert shop.ask(Heard(Home(tmp_path / "empty")), PEOPLE[0], size) is None


def test_who_asked_before_a_no_was_said_does_not_settle_that_it_was_not(shop: Shop) -> None:
    heard, later = Heard(shop.home), NOW + timedelta(seconds=1)
    with shop.ledger() as ledger:
        said = [replace(says(0, "withdraw"), occurred_at=later, recorded_at=later, received_at=later)]
        ledger.append(said)
        size = ledger.size
    assert shop.ask(heard, PEOPLE[0], size) == NO  # asked at NOW, answered when the no was there
    assert heard.answer(PEOPLE[0], size, later + timedelta(seconds=1), "personalization", "*") == NO
    size = shop.say([says(0, "expire")])  # something else that touches them, from before
    assert shop.ask(heard, PEOPLE[0], size) == NO


def test_standing_published_as_of_a_time_does_not_claim_to_have_heard_what_came_after_it(shop: Shop) -> None:
    heard, later = Heard(shop.home), NOW + timedelta(seconds=1)
    before = shop.say([])
    size = shop.say([replace(says(0, "withdraw"), occurred_at=later, recorded_at=later, received_at=later)])
    shop.publish()  # as of NOW
    rows = pl.read_parquet(current(shop.home, "consent_standing"))
    assert rows["ledger_size"].unique().to_list() == [before]
    assert shop.ask(heard, PEOPLE[0], size) == NO
    assert shop.ask(heard, PEOPLE[1], size) == YES


def test_a_gate_that_could_not_read_the_ledger_once_is_built_again(shop: Shop) -> None:
    class Failing:
        """A ledger of which one subject cannot be read, once."""

        def __init__(self, ledger: Ledger) -> None:
            self.ledger, self.has_failed = ledger, False

        def events(self, start: int, stop: int) -> Iterator[Recorded]:
            return self.ledger.events(start, stop)

        def events_of(self, subject_id: str) -> list[Recorded]:
            if self.has_failed:
                return self.ledger.events_of(subject_id)
            self.has_failed = True
            raise LedgerError("ledger: expected to read it, found it gone. Try again.")

    class Unlucky(Heard):
        def _opened(self) -> Ledger:
            if self._ledger is None:
                self._ledger = Failing(super()._opened())  # type: ignore[assignment]
            return self._ledger  # type: ignore[return-value]

    heard, size = Unlucky(shop.home), shop.say([])
    assert shop.ask(heard, PEOPLE[0], size) == YES
    size = shop.say([says(0, "withdraw")])
    assert shop.ask(heard, PEOPLE[1], size) is None
    assert shop.ask(heard, PEOPLE[1], size) == YES
    assert shop.ask(heard, PEOPLE[0], size) == NO


def test_tables_that_cannot_be_read_are_a_refusal_and_no_fault(shop: Shop) -> None:
    heard, size = Heard(shop.home), shop.say([])
    table = current(shop.home, "consent_standing")
    whole = table.read_bytes()
    table.write_bytes(b"half a table")
    assert shop.ask(heard, PEOPLE[0], size) is None
    table.write_bytes(whole)
    assert shop.ask(heard, PEOPLE[0], size) == YES
