"""People who come twice: a second account after a forgotten password, a second membership after a lost card.

Everything that draws or writes knows shoppers by number. Numbers below the count of people are the people; each number
above is a *guise*: one of them again, under a later account or card, which acts in the person's place from its day on.
"""

from dataclasses import dataclass

import numpy as np

from simulator.scale import Scale
from simulator.spelling import fractions

NEVER = 32_000  # a day that does not come
DURING_SHARE = 0.3  # duplicates made while we watch; the others are older
FIRST_ACCOUNT_SHARE = 0.2  # days on which somebody is still signed in under the first account
NEW_DEVICE_SHARE = 0.5  # second accounts made on another phone


@dataclass(frozen=True)
class Duplicates:
    """Arrays by number, persons first."""

    person: np.ndarray
    parent: np.ndarray  # the number a guise was before; its own for a person
    heir: np.ndarray  # the guise that follows; -1 for none
    since: np.ndarray  # day from which it acts
    account: np.ndarray  # the number that opened the account this one uses
    card: np.ndarray  # the number that was given the card this one shows
    device: np.ndarray  # the number whose devices these are
    unlinked_day: np.ndarray  # of a card: the day its account moved to the card that replaced it

    def __len__(self) -> int:
        return len(self.person)

    @property
    def owns_account(self) -> np.ndarray:
        return np.asarray(self.account == np.arange(len(self)))

    @property
    def owns_card(self) -> np.ndarray:
        return np.asarray(self.card == np.arange(len(self)))

    def acting(self, person: np.ndarray, day: int) -> np.ndarray:
        """The number under which each goes about on a day; nobody (negative) stays nobody. A lost card never comes back, a first account
        may."""
        for _ in range(2):
            heir = np.where(person < 0, -1, self.heir[person])
            follows = (heir >= 0) & (self.since[heir] <= day)
            last = self.heir[heir] < 0
            back = last & self.owns_account[heir] & (fractions(61, person, day) < FIRST_ACCOUNT_SHARE)
            person = np.where(follows & ~back, heir, person)
        return person


def repeated(rng: np.random.Generator, scale: Scale, account_day: np.ndarray, member_day: np.ndarray) -> Duplicates:
    """Who comes twice: second accounts first, then second memberships (of the second account where there is one)."""
    count = len(account_day)
    dice = rng.random((2, count))
    forgot, forgot_day = _later(rng, scale, np.flatnonzero(dice[0] < scale.duplicate_account_rate), account_day)
    lost, lost_day = _later(rng, scale, np.flatnonzero(dice[1] < scale.duplicate_membership_rate), member_day)
    before = np.arange(count)
    before[forgot] = count + np.arange(len(forgot))
    since = np.r_[np.full(count, -NEVER), forgot_day]
    lost_day = np.maximum(lost_day, since[before[lost]] + 1)
    lost_day[lost_day == 0] = 1  # what was before the first day is history; the day itself opens nothing
    lost, lost_day = lost[lost_day < scale.days], lost_day[lost_day < scale.days]
    people, accounts = np.arange(count), count + np.arange(len(forgot))
    cards = count + len(forgot) + np.arange(len(lost))
    parent = np.r_[people, forgot, before[lost]]
    heir = np.full(len(parent), -1)
    heir[forgot] = accounts
    heir[before[lost]] = cards
    moved = rng.random(len(lost)) < scale.transferred_link_share
    unlinked = np.full(len(parent), NEVER)
    unlinked[lost[moved]] = lost_day[moved]
    device = np.r_[people, np.where(rng.random(len(forgot)) < NEW_DEVICE_SHARE, accounts, forgot)]
    return Duplicates(
        person=np.r_[people, forgot, lost], parent=parent, heir=heir, since=np.r_[since, lost_day],
        account=np.r_[people, accounts, before[lost]], card=np.r_[people, forgot, cards],
        device=np.r_[device, device[before[lost]]], unlinked_day=unlinked,
    )  # fmt: skip


def _later(
    rng: np.random.Generator, scale: Scale, person: np.ndarray, first_day: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Of these persons those who have a first day, and a later one: in the years before, or while we watch."""
    first = first_day[person]
    now = (rng.random(len(person)) < DURING_SHARE) | (first >= -1)
    low = np.where(now, np.maximum(1, first + 1), first + 1)
    room = np.where(now, scale.days, 0) - low
    day = low + (rng.random(len(person)) * room).astype(np.int64)
    return person[room > 0], day[room > 0]
