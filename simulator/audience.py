"""What shoppers tell about themselves: accounts, sessions on web and app, and consent given and taken back."""

import numpy as np
import polars as pl

from simulator.demand import MARKETPLACE, Trips, drawn_people, picked
from simulator.duplicates import NEVER
from simulator.formats import consent, ecommerce, events
from simulator.people import record_rows, tester_rows
from simulator.spelling import DAY
from simulator.world import World

BULK = 50_000  # people whose history is written to one file
BROAD_SHARE = 0.15


class Audience:
    """Which devices have seen the banner, and who has unsubscribed."""

    def __init__(self, world: World) -> None:
        self.world, people = world, world.people
        everyone = np.arange(people.numbers)
        self.seen = np.zeros((people.numbers, 3), bool)
        self.subscribed = consent.agrees(people, everyone, "marketing", "email", 0.66)
        self.left_at = np.zeros(people.numbers, np.int64)
        self.is_guest, self.is_relayed = np.zeros((2, people.numbers), bool)
        self.signals: dict[str, list[pl.Series]] = {}

    def _moment(self, day: np.ndarray, person: np.ndarray) -> np.ndarray:
        """UTC second of an afternoon, days from the first one."""
        return np.asarray(self.world.day_start(0) + day.astype(np.int64) * DAY + 18 * 3600 + person * 7 % 7_200)

    def open(self) -> None:
        """What was known before the first day: accounts, and consent given when members enrolled."""
        world, people = self.world, self.world.people
        landing, date_text = world.landing, world.date(0)
        old_accounts = np.flatnonzero(people.duplicates.owns_account & (people.account_day < 0))
        old_members = np.flatnonzero(people.duplicates.owns_card & (people.member_day < 0))
        for part, first in enumerate(range(0, len(old_accounts), BULK)):
            person = old_accounts[first : first + BULK]
            lines = self._accounts(person, self._moment(people.account_day[person], person))
            lines = lines if part else pl.concat([ecommerce.tester_accounts(world.scale), lines])
            name = f"customers_{date_text}{f'_{part + 1}' if part else ''}.jsonl"
            landing.write_records(ecommerce.CUSTOMERS, 0, name, lines)
        for part, first in enumerate(range(0, len(old_members), BULK)):
            person = old_members[first : first + BULK]
            lines = consent.enrolment(
                people, person, self._moment(people.member_day[person], person), world.take("signal", len(person))
            )
            landing.write_records(
                consent.BULK, 0, f"loyalty_enrolment_{date_text}{f'_{part + 1}' if part else ''}.jsonl", lines
            )

    def _accounts(self, person: np.ndarray, updated: np.ndarray) -> pl.Series:
        people = self.world.people
        created = self._moment(people.account_day[person], person)
        left = self.left_at[person] > 0
        return ecommerce.customers_text(
            people,
            person,
            created,
            updated,
            self.subscribed[person],
            left,
            np.where(left, self.left_at[person], created),
        )

    def trade(self, day: int, day_of_year: int, trips: Trips, orders: pl.DataFrame, lines: pl.DataFrame) -> None:
        """The day's sessions, banners, tablets, unsubscriptions and new accounts."""
        rng = self.world.random(100, day)
        self._notice_guests(orders)
        stream = self._sessions(day, day_of_year, rng, orders, lines)
        self._banners(day, stream)
        self._tablets(day, rng, trips)
        leavers = self._leave(day, rng)
        self._join(day, leavers)
        for place in ("web_banner", "till_tablet", "loyalty_enrolment", "unsubscribe"):
            if not (place == "loyalty_enrolment" and day == 0):
                consent.write(self.world.landing, day, place, self.signals.pop(place, []))

    def _sessions(
        self, day: int, day_of_year: int, rng: np.random.Generator, orders: pl.DataFrame, lines: pl.DataFrame
    ) -> pl.DataFrame:
        world, people = self.world, self.world.people
        person = drawn_people(rng, people, len(people) * world.scale.browse_sessions_per_person_day, day)
        device = (rng.random(len(person)) * people.device_count[person]).astype(np.int64)
        signed = (people.account_day[person] <= day) & (rng.random(len(person)) < 0.5)
        second = np.clip(rng.normal(17.0, 4.0, len(person)), 6.0, 23.7) * 3600
        at = world.epoch(people.home[person], day, second.astype(np.int64))
        browsing = events.browsing(
            rng, person, device, signed, at, picked(rng, people, world.products, person, day_of_year)
        )
        own = orders.filter((pl.col("source") < 2) & (pl.col("person") >= 0))
        buyer = own["person"].to_numpy()
        device = (rng.random(len(own)) * people.device_count[buyer]).astype(np.int64)
        buying = events.buying(own.with_columns(device=pl.Series(device)), lines)
        stream = pl.concat([browsing, buying]).sort("at", "person", "event", maintain_order=True)
        texts = events.text(
            stream, people, world.products, world.take("message", len(stream)), ecommerce.FIRST_ORDER_ID
        )
        events.write(world.landing, day, texts)
        return stream

    def _banners(self, day: int, stream: pl.DataFrame) -> None:
        first = stream.group_by("person", "device", maintain_order=True).agg(pl.col("at").min())
        person, device = first["person"].to_numpy(), first["device"].to_numpy()
        new = ~self.seen[person, device]
        self.seen[person[new], device[new]] = True
        if new.any():
            number = self.world.take("signal", int(new.sum()))
            lines = consent.banner(
                self.world.people, person[new], device[new], first["at"].to_numpy()[new] - 4, day, number
            )
            self.signals["web_banner"] = [lines]

    def _tablets(self, day: int, rng: np.random.Generator, trips: Trips) -> None:
        asked = np.flatnonzero(rng.random(len(trips.person)) < self.world.scale.tablet_rate)
        if len(asked):
            at = self.world.epoch(trips.place[asked], day, trips.second[asked] + 30)
            lines = consent.tablet(self.world.people, trips.person[asked], at, self.world.take("signal", len(asked)))
            self.signals["till_tablet"] = [lines]

    def _leave(self, day: int, rng: np.random.Generator) -> np.ndarray:
        """People who follow the unsubscribe link today."""
        people = self.world.people
        known = (np.minimum(people.member_day, people.account_day) < day) & self.subscribed & (self.left_at == 0)
        known[len(people) :] &= people.duplicates.owns_account[len(people) :]  # a second card has no e-mail of its own
        second = self.world.random(101, day).random(people.numbers - len(people))
        dice = np.r_[rng.random(len(people)), second]
        person = np.flatnonzero(known & (dice < self.world.scale.unsubscribe_rate))
        at = self.world.epoch(people.home[person], day, 8 * 3600 + person * 13 % 40_000)
        self.left_at[person] = at
        if len(person):
            number = self.world.take("signal", len(person))
            self.signals["unsubscribe"] = [
                consent.unsubscribe(people, person, at, number, rng.random(len(person)) < BROAD_SHARE)
            ]
        return person

    def _join(self, day: int, leavers: np.ndarray) -> None:
        """New accounts, changed accounts, and new members' consent."""
        world, people = self.world, self.world.people
        new = np.flatnonzero(people.duplicates.owns_account & (people.account_day == day))
        changed = leavers[(people.account_day[leavers] < min(day, NEVER))]
        person = np.r_[new, changed]
        updated = np.r_[self._moment(people.account_day[new], new), self.left_at[changed]]
        if len(person) and day > 0:
            world.landing.write_records(
                ecommerce.CUSTOMERS, day, f"customers_{world.date(day)}.jsonl", self._accounts(person, updated)
            )
        members = np.flatnonzero(people.duplicates.owns_card & (people.member_day == day))
        if len(members) and day > 0:
            number = world.take("signal", len(members))
            self.signals["loyalty_enrolment"] = [
                consent.enrolment(people, members, self._moment(people.member_day[members], members), number)
            ]

    def _notice_guests(self, orders: pl.DataFrame) -> None:
        """Who gave an e-mail and no account today: their own, or the marketplace's in their place."""
        guests = orders.filter(~pl.col("is_signed_in") & (pl.col("person") >= 0))
        number, relayed = guests["person"].to_numpy(), guests["source"].to_numpy() == MARKETPLACE
        people = self.world.people
        self.is_guest[people.typist[number[~relayed]]] = True
        self.is_relayed[people.duplicates.person[number[relayed]]] = True

    def finish(self) -> None:
        """The truth of every record by which a source knew somebody, testers last."""
        world, people = self.world, self.world.people
        for start in range(0, people.numbers, BULK):
            number = np.arange(start, min(start + BULK, people.numbers))
            is_open = people.account_day[number] < world.scale.days
            is_enrolled = people.member_day[number] < world.scale.days
            world.truth.append("records", pl.concat([
                record_rows(people, number[people.duplicates.owns_account[number] & is_open], "account"),
                record_rows(people, number[people.duplicates.owns_card[number] & is_enrolled], "member"),
                record_rows(people, number[self.is_guest[number]], "guest"),
                record_rows(people, number[self.is_relayed[number]], "relay"),
            ]))  # fmt: skip
        world.truth.append("records", tester_rows(ecommerce.tester_ids(world.scale)))
