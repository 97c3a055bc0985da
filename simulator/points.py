"""Points as they are earned and spent: the ledger of a day and everybody's balance."""

import numpy as np
import polars as pl

from simulator.formats import loyalty
from simulator.formats.loyalty import ADJUST, EXPIRE, REDEEM
from simulator.world import World

REDEEMED = 500


class Points:
    """Entries of the day, and balances that are nothing but their sum."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.balance = np.zeros(world.people.numbers, np.int64)
        self._clear()

    def _clear(self) -> None:
        self._person: list[np.ndarray] = []
        self._at: list[np.ndarray] = []
        self._kind: list[np.ndarray] = []
        self._points: list[np.ndarray] = []
        self._reference: list[pl.Series] = []

    def add(
        self, person: np.ndarray, at: np.ndarray, kind: np.ndarray, points: np.ndarray, reference: pl.Series
    ) -> None:
        """Entries for whoever was given the card that each number shows."""
        if len(person):
            person = self.world.people.duplicates.card[person]
            self._person.append(person)
            self._at.append(at)
            self._kind.append(kind)
            self._points.append(points)
            self._reference.append(reference.cast(pl.String))
            np.add.at(self.balance, person, points)

    def spend(self, day: int) -> None:
        """Some who earned today and have plenty redeem; a few old points expire."""
        if not self._person:
            return
        rng, world = self.world.random(80, day), self.world
        today = np.unique(np.concatenate(self._person))
        rich = today[(self.balance[today] >= 800) & (rng.random(len(today)) < 0.15)]
        at = world.epoch(world.people.home[rich], day, 23 * 3600 + 1_800)
        nothing = pl.Series([None], dtype=pl.String).new_from_index(0, len(rich))
        self.add(rich, at, np.full(len(rich), REDEEM), np.full(len(rich), -REDEEMED), nothing)
        faded = today[(self.balance[today] > 40) & (rng.random(len(today)) < 0.01)]
        at = world.epoch(world.people.home[faded], day, 23 * 3600 + 2_400)
        nothing = pl.Series([None], dtype=pl.String).new_from_index(0, len(faded))
        self.add(faded, at, np.full(len(faded), EXPIRE), np.full(len(faded), -25), nothing)

    def carry_over(self) -> None:
        """What members had before the first day, as one adjusting entry each."""
        world = self.world
        member = np.flatnonzero(world.people.duplicates.owns_card & (world.people.member_day < 0))
        points = (world.random(81, 0).gamma(0.8, 350.0, len(member))).astype(np.int64)
        member, points = member[points > 0], points[points > 0]
        at = np.full(len(member), world.day_start(0) + 4 * 3600)
        nothing = pl.Series([None], dtype=pl.String).new_from_index(0, len(member))
        self.add(member, at, np.full(len(member), ADJUST), points, nothing)

    def write(self, day: int) -> None:
        """Entries of the day, and every member who is new, whose balance moved or whose account went to another card, as they stand
        at the night's export."""
        world, people = self.world, self.world.people
        joined = people.member_day if day else np.where(people.member_day < 0, 0, people.member_day)
        is_new = people.duplicates.owns_card & (joined == day)
        enrolled = np.flatnonzero(is_new | (people.duplicates.unlinked_day == day))
        entries = pl.Series([], dtype=pl.String)
        moved = enrolled
        if self._person:
            person, points = np.concatenate(self._person), np.concatenate(self._points)
            entries = loyalty.points_text(
                people, person, np.concatenate(self._at), np.concatenate(self._kind), points, pl.concat(self._reference),
                world.take("points", len(person)),
            )  # fmt: skip
            moved = np.union1d(enrolled, person)
        self._clear()
        exported = np.full(len(moved), world.day_start(day + 1) + 9 * 3600)
        joined = world.day_start(0) + people.member_day[moved].astype(np.int64) * 86_400 + 19 * 3600
        members = loyalty.members_text(people, world.places, moved, joined, exported, self.balance[moved], day)
        loyalty.write(world.landing, day, members, entries)
