"""Standing in process, for online use: the vectorised answers as arrays, and what the ledger has heard since.

A gate answers from the moment it was built (an earlier time is answered as that moment); a yes ends by itself. What it does not know
is a no. It decides nothing itself: `standing_frame` fills it, `standing` and `merged_groups` decide again whom an overlay touches.
"""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from consent.errors import ConsentError
from consent.events import Recorded
from consent.rule.identity import HUB, Joined, Readable, company, joined_of
from consent.rule.policy import EVERY, Policy
from consent.rule.standing import IDENTITIES, REASONS, Standing, merged_groups, proved_groups, standing

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
# One number for each row and asked pair, so that a change is one write: until when, in microseconds since 1970, and in the last
# eight bits why. Above _FOREVER a yes that does not end; below nought a no.
_NO, _FOREVER, _REASON = -(1 << 62), 1 << 62, 255
_LAST = (_FOREVER >> 8) - 1  # in the year 2540; a yes that ends later ends then
_CODES = {reason: number for number, reason in enumerate(REASONS)}
_NEVER_ASKED, _EXPIRED, _UNREADABLE = (_CODES[reason] for reason in ("never_asked", "expired", "ledger_unreadable"))
_UNREAD = Standing(False, "ledger_unreadable")
_YES, _BECAUSE = [(True, reason) for reason in REASONS], [(False, reason) for reason in REASONS]
_AHEAD, _LATEST = timedelta(days=1), datetime(2540, 1, 1, tzinfo=UTC)  # see Gate._near, which is never later than that
_ENDS = pl.col("expires_at").cast(pl.Datetime("us", "UTC")).to_physical().clip(upper_bound=_LAST) * 256
_CODE = pl.col("reason_code").replace_strict(_CODES, return_dtype=pl.Int64())
_ANSWER = pl.when("is_allowed").then(_ENDS.fill_null(_FOREVER)).otherwise(pl.lit(_NO)) + _CODE  # `_packed`, of a column

_Answers = npt.NDArray[np.int64]  # of one asked pair by position, and a last one for nobody


@dataclass(slots=True)
class Gate:
    """Who may be used for what, over which channel. `ledger_size` says under how much of the ledger it answers."""

    policy: Policy
    ledger_size: int
    positions: Mapping[str, int]
    _slots: dict[tuple[str, str], _Answers]
    _owned: "_Owned"
    _built_size: int  # of the ledger its rows were decided under
    _tail: dict[str, dict[int, Recorded]] = field(default_factory=lambda: defaultdict(dict))
    _changed: dict[str, int] = field(default_factory=dict)  # ledger size at which each customer was decided again last
    # A time, and what is larger than every packed yes that ends by then. To count a time out in microseconds costs as much
    # as the rest of a question; most are about a time before this one and somebody whose yes lasts beyond it. It moves on
    # with the questions, a day ahead of them.
    _near: tuple[datetime, int] = (_EPOCH, _REASON)
    _one_by_one: dict[str, dict[str, memoryview]] = field(init=False)  # the same bytes, read singly four times as fast

    def __post_init__(self) -> None:
        self._one_by_one = {purpose_code: {} for purpose_code, _ in self._slots}
        for (purpose_code, channel_code), answers in self._slots.items():
            self._one_by_one[purpose_code][channel_code] = answers.data

    @classmethod
    def build(cls, rows: pl.DataFrame, policy: Policy, links: pl.DataFrame | None = None) -> "Gate":
        """A gate of the rows of `standing_frame`; `links` are the identities they were made for, each customer its own where not given.

        Raises: ConsentError when the rows do not answer everything the policy asks, once for each customer.
        """
        customers = rows["customer_id"].unique().sort()
        answers = rows.sort("customer_id").select("purpose_code", "channel_code", "customer_id", answer=_ANSWER)
        parts = answers.partition_by("purpose_code", "channel_code", as_dict=True)
        slots: dict[tuple[str, str], _Answers] = {}
        for code, purpose in policy.purposes.items():
            for channel in purpose.channels:
                mine = parts.get((code, channel), answers.clear())
                if not mine["customer_id"].equals(customers):
                    raise ConsentError(
                        f"gate, {code} over {channel}: expected one answer for each of {customers.len()} customers, "
                        f"found {mine.height}. Build it from the rows of standing_frame."
                    )
                packed = np.append(mine["answer"].to_numpy(), _NO + _NEVER_ASKED).astype(np.int64)
                slots |= {(code, asked): packed for asked in (channel, *(policy.channels if channel == EVERY else ()))}
        positions = {customer_id: number for number, customer_id in enumerate(customers.to_list())}
        if links is None:
            links = pl.DataFrame({"customer_id": customers, "identity_ref": customers, "link_type": HUB})
        size = int(rows["ledger_size"].max() or 0)  # type: ignore[arg-type]  # a column of whole numbers
        return cls(policy, size, positions, slots, _Owned.of(links), size)

    def allows(self, subject_id: str, purpose_code: str, channel_code: str, at: datetime) -> tuple[bool, str]:
        """Whether, and why; `subject_id` is the id its rows were built by. Who is not known was never asked."""
        try:
            answers = self._one_by_one[purpose_code][channel_code]
        except KeyError:
            return False, "unknown_channel" if purpose_code in self.policy.purposes else "unknown_purpose"
        answer = answers[self.positions.get(subject_id, -1)]
        if answer < 0:
            return _BECAUSE[answer & _REASON]
        near, lasts = self._near
        if at < near and answer > lasts:
            return _YES[answer & _REASON]
        if near <= at < _LATEST:
            near = at.astimezone(UTC) + _AHEAD  # in another time zone, times of a summer's end compare wrongly
            self._near = near, _ended_by(near)
        return _YES[answer & _REASON] if answer > _ended_by(at) else _BECAUSE[_EXPIRED]

    def allows_as_of(
        self, ledger_size: int, subject_id: str, purpose_code: str, channel_code: str, at: datetime
    ) -> tuple[bool, str] | None:
        """`allows` by the first `ledger_size` events; None when this gate has not heard them, or heard the person say more.

        Needs no lock while another thread lays a tail over it.
        """
        if self.ledger_size < ledger_size:
            return None
        found = self.allows(subject_id, purpose_code, channel_code, at)
        return found if self._changed.get(subject_id, self._built_size) <= ledger_size else None

    def allows_many(
        self,
        who: npt.NDArray[np.integer[Any]] | Iterable[str] | None,
        purpose_code: str,
        channel_code: str,
        at: datetime,
    ) -> npt.NDArray[np.bool_]:
        """Whether, for each of an array of positions (see `positions`; -1 is nobody) or of ids, or for every position in order."""
        answers = self._slots.get((purpose_code, channel_code))
        if answers is None:
            answers = np.full(len(self.positions) + 1, _NO)
        ended = _ended_by(at)
        if who is None:
            return answers[:-1] > ended
        if not isinstance(who, np.ndarray) or who.dtype.kind not in "iu":
            who = np.fromiter((self.positions.get(one, -1) for one in who), np.int64)
        return answers.take(who) > ended

    def overlay(self, recorded: Sequence[Recorded], history: Readable, at: datetime, ledger_size: int) -> int:
        """Decide again, exactly, everyone whom newer events touch; gives how many customers that were.

        `recorded`: what the ledger took from `self.ledger_size` to `ledger_size`. `history`: the ledger they came from, which may
        lag behind them; where it cannot be read, the gate closes. Raises: ConsentError when the events are not that tail.
        """
        new = [one for one in recorded if one.leaf_index >= self.ledger_size]
        if any(one.leaf_index >= ledger_size for one in new) or ledger_size < self.ledger_size:
            raise ConsentError(
                f"gate: expected events from leaf {self.ledger_size} up to ledger size {ledger_size}, found others. "
                "Hand over the tail of one ledger."
            )
        for one in recorded:
            self._tail[one.event.subject_id][one.leaf_index] = one
        reading = _Overlaid(history, self._tail)
        near: set[str] = set()
        try:
            for one in recorded:
                for subject_id in {one.event.subject_id, one.event.linked_subject_id or one.event.subject_id} - near:
                    near |= company(reading, subject_id)
        except Exception:  # whom else they touch cannot be known
            self._close()
            return len(self.positions)
        customers = {who for subject_id in near for who in self._owned.customers_of(subject_id)}
        self._changed.update(dict.fromkeys(customers, ledger_size))  # before: whoever reads meanwhile looks here after
        for customer_id in sorted(customers):
            self._decide(customer_id, reading, at)
        self.ledger_size = ledger_size
        return len(customers)

    def _close(self) -> None:
        """No to everyone for all that a person may refuse, until a gate is built again."""
        for (purpose_code, _), answers in self._slots.items():
            if not self.policy.purposes[purpose_code].rests_on_contract:
                answers[:-1] = _NO + _UNREADABLE

    def _decide(self, customer_id: str, history: "_Overlaid", at: datetime) -> None:
        """Every answer of one customer, from the events of each of its identities."""
        position = self.positions[customer_id]
        identities = [
            (group, kind, one, _links_of(history, one)) for group, kind, one in self._owned.identities_of(customer_id)
        ]
        for code, purpose in self.policy.purposes.items():
            for channel in purpose.channels if not purpose.rests_on_contract else ():
                found = merged_groups(
                    (
                        group,
                        kind,
                        _UNREAD
                        if links is None
                        else standing(history, one, code, channel, at, policy=self.policy, links=links),
                    )
                    for group, kind, one, links in identities
                )
                self._slots[code, channel][position] = _packed(found)


@dataclass(frozen=True, slots=True)
class _Owned:
    """Whose identities are whose, sorted both ways and looked up by halving: few are ever asked for, so no object is made of each."""

    by_customer: tuple[list[str], list[str], list[str], list[str]]  # customer, identity, link type, group
    by_identity: tuple[list[str], list[str]]  # identity, customer

    @classmethod
    def of(cls, links: pl.DataFrame) -> "_Owned":
        links = proved_groups(links)
        one_way, other_way = links.sort("customer_id"), links.sort("identity_ref")
        customers, identities, kinds, groups = (one_way[name].to_list() for name in IDENTITIES)
        return cls(
            (customers, identities, kinds, groups),
            (other_way["identity_ref"].to_list(), other_way["customer_id"].to_list()),
        )

    def identities_of(self, customer_id: str) -> list[tuple[str, str, str]]:
        """(group, link type, identity)."""
        customers, identities, kinds, groups = self.by_customer
        mine = slice(bisect_left(customers, customer_id), bisect_right(customers, customer_id))
        return list(zip(groups[mine], kinds[mine], identities[mine], strict=True))

    def customers_of(self, identity: str) -> list[str]:
        identities, customers = self.by_identity
        return customers[bisect_left(identities, identity) : bisect_right(identities, identity)]


@dataclass(frozen=True, slots=True)
class _Overlaid:
    """A ledger with a tail on top that it may not show yet; each subject is read once, for every answer asks for its events."""

    history: Readable
    tail: Mapping[str, Mapping[int, Recorded]]
    known: dict[str, list[Recorded]] = field(default_factory=dict)

    def events_of(self, subject_id: str) -> list[Recorded]:
        if subject_id not in self.known:
            held = {one.leaf_index: one for one in self.history.events_of(subject_id)}
            self.known[subject_id] = list({**held, **self.tail.get(subject_id, {})}.values())
        return self.known[subject_id]


def _links_of(history: _Overlaid, subject_id: str) -> list[Joined] | None:
    try:
        return joined_of(history, subject_id)
    except Exception:  # the answer is no, with this reason
        return None


def _ended_by(at: datetime) -> int:
    """What is larger than every packed yes that ends at a time or before, and smaller than all that last longer."""
    return min((at - _EPOCH) // _MICROSECOND, _LAST) << 8 | _REASON


def _packed(found: Standing) -> int:
    code = _CODES[found.reason_code]
    if not found.is_allowed:
        return _NO + code
    if found.expires_at is None:
        return _FOREVER + code
    return (min((found.expires_at - _EPOCH) // _MICROSECOND, _LAST) << 8) + code
