"""Who may be joined by likeness, and what becomes of a yes and a no when they are, are parted, and are joined again."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consent.errors import ConsentError
from consent.events import Event
from consent.rule.joining import JOINING, may_be_joined
from consent.rule.policy import Policy
from consent.rule.standing import DENIALS, REFUSALS, standing_frame
from tests.unit.consent.builders import ALMA, MONDAY, event
from tests.unit.consent.histories import (
    BORIS,
    CARLA,
    DAY,
    DORA,
    TERMS,
    expected_rows,
    frame_of,
    linked_frame,
    policy_of,
    recorded,
)
from tests.unit.consent.test_linking import to_append
from tests.unit.consent.test_standing import linked, unlinked

JOINABLE = TERMS.replace(
    "purposes:\n",
    f"purposes:\n  {JOINING}: {{description: Join., legal_basis: consent, channels: ['*'], expires_after_days: null}}\n",
)
# Dora's account with Alma's address proved to be hers, Carla's card, and Boris' number, which was also seen beside the card.
OWNED = ((DORA, "hub", DORA), (ALMA, "deterministic", DORA), (CARLA, "hub", CARLA), (BORIS, "hub", BORIS))
GROUPS = pl.DataFrame(OWNED, ["identity_ref", "link_type", "group_ref"], orient="row")


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    return policy_of(tmp_path_factory.mktemp("policy"), JOINABLE)


def said(kind: str, who: str, day: int = 0, **changes: Any) -> Event:
    asked = {"purpose_code": JOINING, "notice_id": "banner", "notice_version": 2}
    return event(MONDAY + day * DAY, event_type=kind, subject_id=who, **asked | changes)


def reasons(policy: Policy, *ledger: Event, groups: pl.DataFrame = GROUPS, day: int = 10) -> dict[str, str]:
    found = may_be_joined(frame_of(recorded(*ledger)), groups, policy, MONDAY + day * DAY)
    assert found.columns == ["group_ref", "is_allowed", "reason_code"]
    assert found["is_allowed"].to_list() == [reason == "granted" for reason in found["reason_code"]]
    return dict(found.select("group_ref", "reason_code").iter_rows())


def test_each_group_answers_for_itself_and_silence_is_a_no(policy: Policy) -> None:
    ledger = [said("grant", ALMA), said("grant", CARLA), said("withdraw", CARLA, 1)]
    assert reasons(policy, *ledger) == {DORA: "granted", CARLA: "withdrawn", BORIS: "never_asked"}
    assert reasons(policy, *ledger, said("refuse", DORA, 1))[DORA] == "refused"


def test_a_contact_brings_its_no_and_never_its_yes(policy: Policy) -> None:
    beside = pl.concat([GROUPS, pl.DataFrame([(BORIS, "contact", CARLA)], GROUPS.schema, orient="row")])
    assert reasons(policy, said("grant", BORIS), groups=beside)[CARLA] == "never_asked"
    ledger = [said("grant", CARLA), said("refuse", BORIS, 1)]
    assert reasons(policy, *ledger, groups=beside)[CARLA] == "refused"
    assert reasons(policy, *ledger)[CARLA] == "granted"


def test_a_no_comes_over_proof_also_after_it_ended_and_never_over_likeness(policy: Policy) -> None:
    yeses = [said("grant", CARLA), said("grant", BORIS)]
    no = said("withdraw", BORIS, 2)
    for kind, reason in (("deterministic", "withdrawn"), ("probabilistic", "granted"), ("contact", "granted")):
        joined_up = [*yeses, *linked(MONDAY + DAY, CARLA, BORIS, link_type=kind), no]
        assert reasons(policy, *joined_up)[CARLA] == reason
        assert reasons(policy, *joined_up, *unlinked(MONDAY + 3 * DAY, CARLA, BORIS))[CARLA] == reason
        assert reasons(policy, *joined_up, day=1)[CARLA] == "granted"


def test_a_policy_that_does_not_ask_joins_nobody(tmp_path: Path) -> None:
    with pytest.raises(
        ConsentError, match=f"policy: expected {JOINING} as a purpose .* found none. Correct the policy"
    ):
        reasons(policy_of(tmp_path), said("grant", CARLA))


# The laws, over many lives at once in which everything looks alike: whoever may be joined is, by every run.

PEOPLE, DAYS = 20, 3
KNOWN_AS = (("account", "hub"), ("email", "deterministic"), ("card", "hub"), ("phone", "hub"))
LIVES = settings(max_examples=3, deadline=None)
seeds = st.integers(0, 100_000)


@dataclass(frozen=True)
class Run:
    """After a run: what the ledger holds, and would hold had nobody been joined by likeness; which groups may be; whose is what."""

    at: datetime
    ledger: list[Event]
    alone: list[Event]
    joinable: frozenset[str]
    owned: list[tuple[str, str, str, str]]
    is_quiet: bool


def people() -> list[list[tuple[str, str, str]]]:
    """Of each person identity, link type and group: an account with its proved address, a card, and a number."""
    found = []
    for number in range(PEOPLE):
        names = [f"{kind}_{chr(97 + number) * 22}" for kind, _ in KNOWN_AS]
        groups = [names[0], names[0], *names[2:]]
        found.append([(name, kind, group) for name, (_, kind), group in zip(names, KNOWN_AS, groups, strict=True)])
    return found


def believed(joinable: frozenset[str]) -> list[tuple[str, str, str, str]]:
    """Of each person what may be joined as one customer, whose main group is the first, every other group as its own."""
    rows = []
    for mine in people():
        main = min((group for _, _, group in mine if group in joinable), default="")
        for who, kind, group in mine:
            is_other = kind == "hub" and group in joinable and group != main
            rows.append((main if group in joinable else group, who, "probabilistic" if is_other else kind, group))
    return rows


def spoken(chance: random.Random, day: int) -> list[Event]:
    """On the first day everybody agrees to everything; then few say something, mostly about being joined."""
    if day == 0:
        return [said("grant", who, purpose_code="*") for mine in people() for who, _, _ in mine]
    kinds = ("grant", "grant", "withdraw", "refuse", "notice_shown", "erased")
    asked = (JOINING, JOINING, "analytics", "*")
    return [
        said(chance.choice(kinds), who, purpose_code=chance.choice(asked))
        for mine in people()
        for who, _, _ in chance.choices(mine, k=chance.choice((0, 1, 1, 2)))
    ]


def lived(policy: Policy, seed: int) -> Iterator[Run]:
    """Each day what is said, then a run, then a run with nothing said before it."""
    chance, groups = (
        random.Random(seed),
        pl.DataFrame([row for mine in people() for row in mine], GROUPS.schema, orient="row"),
    )
    ledger: list[Event] = []
    alone: list[Event] = []
    for number in range(2 * DAYS):
        at, is_quiet = MONDAY + number * DAY, bool(number % 2)
        told = [] if is_quiet else spoken(chance, number)
        new = [replace(one, occurred_at=at, recorded_at=at, received_at=at) for one in told]
        ledger, alone = [*ledger, *new], [*alone, *new]
        found = may_be_joined(frame_of(recorded(*ledger)), groups, policy, at)
        joinable = frozenset(found.filter("is_allowed")["group_ref"])
        if is_quiet:  # whatever was joined before
            assert may_be_joined(frame_of(recorded(*alone)), groups, policy, at).equals(found)
        ledger += to_append(ledger, linked_frame(believed(joinable)), at)
        alone += to_append(alone, linked_frame(believed(frozenset())), at)
        yield Run(at, ledger, alone, joinable, believed(joinable), is_quiet)


def answers(ledger: Sequence[Event], owned: Sequence[tuple[str, ...]], policy: Policy, at: datetime) -> dict[Any, Any]:
    """Reason by customer, purpose and channel, with whether it is a yes."""
    rows = standing_frame(frame_of(recorded(*ledger)), linked_frame(owned), policy, at)
    return {(who, purpose, channel): (may, reason) for who, purpose, channel, may, reason, *_ in rows.iter_rows()}


@LIVES
@given(seeds)
def test_a_refusal_parts_and_nothing_flaps(policy: Policy, seed: int) -> None:
    before: Run | None = None
    parted = 0
    for run in lived(policy, seed):
        about = [one for one in run.ledger if one.purpose_code in (JOINING, "*") and one.linked_subject_id is None]
        last = {one.subject_id: one.received_at for one in about if one.event_type != "notice_shown"}
        noes = {
            one.subject_id for one in about if one.event_type in DENIALS and one.received_at == last[one.subject_id]
        }
        assert not {group for _, who, _, group in run.owned if who in noes} & run.joinable
        if before is not None and run.is_quiet:  # nothing was said: nothing to do
            assert (run.joinable, len(run.ledger)) == (before.joinable, len(before.ledger))
        parted += len(before.joinable - run.joinable) if before is not None else 0
        before = run
    assert parted


@LIVES
@given(seeds)
def test_a_join_by_likeness_allows_nothing_that_a_group_alone_may_not(policy: Policy, seed: int) -> None:
    alone_as = believed(frozenset())
    for run in lived(policy, seed):
        together, alone = answers(run.ledger, run.owned, policy, run.at), answers(run.alone, alone_as, policy, run.at)
        groups_of = {owner: {group for who, _, _, group in run.owned if who == owner} for owner, *_ in run.owned}
        for (owner, *asked), (may, _) in together.items():
            assert not may or all(alone[group, *asked][0] for group in groups_of[owner])
    found = recorded(*run.ledger)
    frame = standing_frame(frame_of(found), linked_frame(run.owned), policy, run.at)
    assert frame.rows() == expected_rows(found, run.owned, policy, run.at)


@LIVES
@given(seeds)
def test_what_was_refused_stays_refused_after_parting(policy: Policy, seed: int) -> None:
    """Until the person says yes to something."""
    refused: set[tuple[str, ...]] = set()
    for run in lived(policy, seed):
        told = answers(run.ledger, run.owned, policy, run.at)
        owner = {group: who for who, _, _, group in run.owned}
        agreeing = {one.subject_id[-1] for one in run.ledger if one.event_type == "grant" and one.received_at == run.at}
        kept = [(group, *asked) for group, *asked in refused if group[-1] not in agreeing]
        assert not any(told[owner[group], *asked][0] for group, *asked in kept)
        refused = {
            (group, *asked)
            for group, who in owner.items()
            for (other, *asked), (_, reason) in told.items()
            if other == who and reason in REFUSALS
        }


@LIVES
@given(seeds, st.randoms(use_true_random=False))
def test_order_and_replay_change_nothing(policy: Policy, seed: int, chance: random.Random) -> None:
    *_, run = lived(policy, seed)
    shuffled = recorded(*run.ledger) * 2
    chance.shuffle(shuffled)
    twice, once = (frame_of(found).with_columns(ledger_size=1) for found in (shuffled, recorded(*run.ledger)))
    groups, owned = linked_frame(run.owned).drop("customer_id"), linked_frame(run.owned)
    assert standing_frame(twice, owned, policy, run.at).equals(standing_frame(once, owned, policy, run.at))
    assert may_be_joined(twice, groups, policy, run.at).equals(may_be_joined(once, groups, policy, run.at))
