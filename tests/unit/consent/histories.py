"""Small worlds for the rule of standing: few instants, purposes, channels, subjects and places, so that events meet."""

import random
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
from hypothesis import strategies as st

from consent.events import FIELDS, SCHEMA, Event, Recorded
from consent.rule.identity import JOINED_SCHEMA, Joined, joined
from consent.rule.policy import Policy, read_policy
from consent.rule.standing import IDENTITIES, Standing, merged_groups, standing
from tests.unit.consent.builders import ALMA, MONDAY, event

DAY = timedelta(days=1)
BORIS, CARLA, DORA = "phone_" + "boris" * 4 + "zz", "card_" + "carla" * 4 + "zz", "account_" + "dora" * 5 + "zz"
SUBJECTS = (ALMA, BORIS, CARLA, DORA)
# Every mechanism, short lives, a channel that is confirmed, a notice that has been replaced.
TERMS = """
purposes:
  marketing: {description: Write., legal_basis: consent, channels: [email, sms], expires_after_days: 4}
  analytics: {description: Measure., legal_basis: consent, channels: ["*"], expires_after_days: null}
  sharing: {description: Hand on., legal_basis: consent, channels: ["*"], expires_after_days: 3}
  fraud: {description: Look for fraud., legal_basis: legitimate_interest, channels: ["*"], expires_after_days: 5}
  service: {description: Deliver., legal_basis: contract, channels: ["*"], expires_after_days: null}
channels: {email: E-mail., sms: Text message.}
notices:
  banner: {current_version: 2, minimum_version: 1, silence_version: 2}
  terms: {current_version: 2, minimum_version: 2, silence_version: null}
gpc_purposes: [sharing, analytics]
jurisdictions:
  "*": {mechanism: opt_in}
  GB: {mechanism: opt_out, mechanisms: {fraud: notice_only, marketing: opt_in}, expires_after_days: {analytics: 2}}
  DE:
    mechanism: opt_in
    mechanisms: {fraud: notice_only}
    double_opt_in: {marketing: {email: {confirm_within_days: 1}}, analytics: {"*": {confirm_within_days: 2}}}
"""


def policy_of(folder: Path, terms: str = TERMS) -> Policy:
    path = folder / "policy.yml"
    path.write_text(terms)
    return read_policy(path)


def recorded(*said: Event) -> list[Recorded]:
    return [Recorded(leaf, one) for leaf, one in enumerate(said)]


def frame_of(found: Sequence[Recorded]) -> pl.DataFrame:
    rows = [(one.leaf_index, *(getattr(one.event, name) for name in FIELDS), len(found)) for one in found]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def joined_table(rows: Sequence[Joined]) -> pl.DataFrame:
    return pl.DataFrame(
        [[getattr(row, name) for name in JOINED_SCHEMA] for row in rows], schema=JOINED_SCHEMA, orient="row"
    )


Owned = Sequence[tuple[str, ...]]  # customer, identity, link type, and the proved group where there are several


def linked_frame(linked: Owned) -> pl.DataFrame:
    names = IDENTITIES[: max((len(row) for row in linked), default=3)]
    return pl.DataFrame(linked, schema=dict.fromkeys(names, pl.String()), orient="row")


def asked_of(policy: Policy) -> list[tuple[str, str]]:
    return sorted((code, channel) for code, purpose in policy.purposes.items() for channel in purpose.channels)


def _is_unheard(said: Event, at: Any, known_at: Any) -> bool:
    happened_at = min(said.occurred_at, said.recorded_at, said.received_at)
    return bool(happened_at > at or (known_at is not None and said.received_at > known_at))


def expected_rows(
    found: Sequence[Recorded], linked: Owned, policy: Policy, at: Any, known_at: Any = None
) -> list[tuple[Any, ...]]:
    """What the function says of every customer, in the order and shape of the frame."""
    known = [one.event for one in found if known_at is None or one.event.received_at <= known_at]
    links = joined(known)
    heard = min([len(found), *(one.leaf_index for one in found if _is_unheard(one.event, at, known_at))])
    rows: list[tuple[Any, ...]] = []
    for customer in sorted({row[0] for row in linked}):
        mine = [(group[0] if group else None, kind, who) for owner, who, kind, *group in linked if owner == customer]
        for purpose, channel in asked_of(policy):
            one_by_one = [
                (group, kind, standing(found, who, purpose, channel, at, policy=policy, known_at=known_at, links=links))
                for group, kind, who in mine
            ]
            on_contract = policy.purposes[purpose].rests_on_contract
            whole = Standing(True, "contract") if on_contract else merged_groups(one_by_one)
            answer = (whole.is_allowed, whole.reason_code, whole.since_at, whole.expires_at, whole.leaf_index)
            rows.append((customer, purpose, channel, *answer, heard))
    return rows


SPOKEN = (
    *("grant",) * 8,
    *("notice_shown",) * 4,
    *("renew", "renew", "confirm", "confirm", "refuse", "withdraw", "withdraw", "object", "expire"),
    *("restrict", "unrestrict", "signal_seen", "erased"),
)
CHOICES: dict[str, tuple[Any, ...]] = {
    "event_type": SPOKEN,
    "purpose_code": ("*", "*", "*", "analytics", "marketing", "sharing", "fraud", "service", "gossip"),
    "channel_code": ("*", "*", "*", "*", "email", "sms"),
    "capture_method": ("gpc", "gpc", "form_tick"),
    "notice_id": ("banner", "banner", "banner", "banner", "banner", "terms", "rumour", None),
    "notice_version": (2, 2, 2, 2, 1, None),
    "jurisdiction_code": ("US-OR", "US-OR", "GB", "GB", "DE"),
}
instants = st.builds(lambda day: MONDAY + day * DAY, st.integers(0, 7))
# Mostly clocks that agree; now and then a device or a till that is off, or an event that comes late.
clocks = st.one_of(
    instants.map(lambda at: (at, at, at)),
    instants.map(lambda at: (at, at, at)),
    st.tuples(instants, instants, instants),
)
link_types = st.sampled_from(("hub", "deterministic", "contact", "guess", "probabilistic"))


def _timed(**changes: Any) -> Event:
    occurred, recorded_at, received = changes.pop("clocks")
    return event(occurred_at=occurred, recorded_at=recorded_at, received_at=received, **changes)


spoken_events = st.builds(
    _timed,
    clocks=clocks,
    subject_id=st.sampled_from(SUBJECTS),
    **{name: st.sampled_from(values) for name, values in CHOICES.items()},
)


def _link(kind: str, sides: tuple[str, str], link_type: str | None, moments: Any) -> Event:
    return _timed(
        clocks=moments, event_type=kind, subject_id=sides[0], linked_subject_id=sides[1], link_type=link_type,
        purpose_code="*", signal_id="link-1", actor_type="system", notice_id=None, notice_version=None,
    )  # fmt: skip


link_events = st.builds(
    _link,
    st.sampled_from(("identity_linked", "identity_linked", "identity_unlinked")),
    st.sampled_from([(one, other) for one in SUBJECTS for other in SUBJECTS if one != other]),
    st.sampled_from(("hub", "deterministic", "contact", "probabilistic", None)),
    clocks,
)
erasures = st.builds(_timed, clocks=clocks, event_type=st.just("erased"), subject_id=st.sampled_from(SUBJECTS))
link_changes = st.one_of(*[link_events] * 7, erasures)
histories = st.lists(st.one_of(spoken_events, spoken_events, link_events), max_size=14)
customers = st.lists(
    st.tuples(
        st.sampled_from(("cus_1", "cus_2")), st.sampled_from(SUBJECTS), link_types, st.sampled_from(SUBJECTS[:2])
    ),
    max_size=6,
)


def crowd(chance: random.Random, people: int) -> tuple[list[Recorded], list[tuple[str, ...]]]:
    """Many small worlds at once, for forms that answer for all: the events in one log, and the customers' identities."""
    said: list[Event] = []
    linked: list[tuple[str, ...]] = []
    for person in range(people):
        known_as = [f"account_{person:04}".translate(_LETTERS) + letter * 18 for letter in "bcd"]
        for _ in range(chance.randint(1, 9)):
            made = {name: chance.choice(values) for name, values in CHOICES.items()}
            said.append(_timed(clocks=_moments(chance), subject_id=chance.choice(known_as), **made))
        for _ in range(chance.choice((0, 0, 1, 2, 12))):
            one, other = chance.sample(known_as, 2)
            kind, link_type = chance.choice(LINKED), chance.choice(LINK_TYPES)
            moments = _moments(chance)
            said += [_link(kind, sides, link_type, moments) for sides in ((one, other), (other, one))]
        for number in range(chance.choice((1, 1, 2))):
            mine = chance.sample(known_as, chance.choice((1, 1, 2, 3)))
            for who in mine:
                kind = chance.choice(("hub", "hub", "deterministic", "contact", "guess", "probabilistic"))
                linked.append((f"cus_{person:04}_{number}", who, kind, chance.choice((mine[0], chance.choice(mine)))))
    chance.shuffle(said)
    return recorded(*said), linked


LINKED = ("identity_linked", "identity_unlinked", "identity_unlinked")
LINK_TYPES = ("hub", "deterministic", "deterministic", "contact", "probabilistic", None)
_LETTERS = str.maketrans("0123456789", "abcdefghij")


def _moments(chance: random.Random) -> Any:
    days = [chance.randint(0, 7)] * 3 if chance.random() < 0.8 else [chance.randint(0, 7) for _ in range(3)]
    return tuple(MONDAY + day * DAY for day in days)
