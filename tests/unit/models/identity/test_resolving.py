"""From records to customers: what a run remembers changes nothing, ids stay put, and nobody is joined who may not be."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from random import Random

import polars as pl
import pytest

from models.identity.changes import changes
from models.identity.model import unlearned
from models.identity.proofs import SCHEMA
from models.identity.resolving import (
    BAR_BITS,
    DECISIONS,
    FORBIDDEN,
    LINK_SCHEMA,
    LINKED,
    MEMBER_SCHEMA,
    STEWARD,
    Evidence,
    Resolution,
    customer_id,
    decided,
    resolve,
    weighed,
)
from tests.unit.models.identity.made_people import Row, frame, person, written

KEY = b"0123456789abcdef"
MODEL = unlearned()
NEW_YEAR = datetime(2025, 1, 1)
DECIDED = datetime(2025, 6, 1, 9, tzinfo=UTC)
RANKS = {"account": 0, "card": 1, "email": 2}


@dataclass(frozen=True)
class World:
    """Identifiers named `<type>_<anything>`. `rows`: the record of an identifier, by its ref; `hubs`: of whom a hub is proved; `days`: first seen."""

    rows: Mapping[str, Row]
    hubs: Mapping[str, str] = field(default_factory=dict)
    bare: tuple[str, ...] = ()  # identifiers without a record
    days: Mapping[str, int] = field(default_factory=dict)
    testers: frozenset[str] = frozenset()
    refused: frozenset[str] | None = None
    decisions: tuple[tuple[str, str, str], ...] = ()

    def hub(self, ref: str) -> str:
        return self.hubs.get(ref, ref)

    @property
    def refs(self) -> list[str]:
        return [*self.rows, *self.bare]

    def evidence(self) -> Evidence:
        """A hub that is not there any more takes its proof along."""
        there = set(self.refs)
        hubs = {ref: self.hub(ref) if self.hub(ref) in there else ref for ref in self.refs}
        proved = pl.DataFrame(
            [
                {
                    "identity_type": kind(ref), "identity_ref": ref, "hub_identity_type": kind(hubs[ref]), "hub_identity_ref": hubs[ref],
                    "link_type": "hub" if hubs[ref] == ref else "deterministic", "source_name": "ecommerce",
                    "linked_at": NEW_YEAR, "is_test": hubs[ref] in self.testers,
                }
                for ref in self.refs
            ],
            schema=SCHEMA,
        )  # fmt: skip
        owners = pl.DataFrame({"record_id": list(self.rows), "identity_ref": list(self.rows)}, schema={"record_id": pl.String, "identity_ref": pl.String})  # fmt: skip
        seen = [(kind(ref), ref, NEW_YEAR + timedelta(days=self.days.get(ref, 0))) for ref in self.refs]
        allowed = None
        if self.refused is not None:
            allowed = pl.DataFrame({"group_ref": [hub for hub in hubs.values() if hub not in self.refused]})
        shape = {"first_ref": pl.String, "second_ref": pl.String, "decision_type": pl.String}
        return Evidence(
            records=frame([{**row, "record_id": ref} for ref, row in self.rows.items()]).drop("person"),
            owners=owners.with_columns(identity_type=pl.col("identity_ref").str.split("_").list.first()),
            proved=proved,
            seen=pl.DataFrame(seen, schema={"identity_type": pl.String, "identity_ref": pl.String, "first_seen_at": pl.Datetime("us")}, orient="row"),
            allowed=allowed,
            decisions=pl.DataFrame(list(self.decisions), schema=shape, orient="row"),
        )  # fmt: skip


def kind(ref: str) -> str:
    return ref.split("_", maxsplit=1)[0]


def resolved(world: World) -> Resolution:
    return resolve(world.evidence(), MODEL, KEY)


def customers(of: Resolution) -> dict[str, str]:
    return dict(of.members.select("identity_ref", "customer_id").iter_rows())


def groups(of: Resolution) -> set[frozenset[str]]:
    found: dict[str, set[str]] = {}
    for ref, customer in customers(of).items():
        found.setdefault(customer, set()).add(ref)
    return {frozenset(refs) for refs in found.values()}


def oldest(refs: Iterable[str], world: World) -> str:
    return min(refs, key=lambda ref: (world.days.get(ref, 0), RANKS[kind(ref)], ref))


PEOPLE = 200
STEPS = 12


def first_world() -> World:
    random = Random(7)
    rows, hubs, days = {}, {}, {}
    for number in range(PEOPLE):
        for kind_of in ("account", "card", "email")[: random.choice((1, 2, 2, 3))]:
            ref = f"{kind_of}_{number:04}"
            rows[ref] = written(person(number), ref, random)
            days[ref] = random.randrange(300)
            if kind_of != "account" and random.random() < 0.3:
                hubs[ref] = f"account_{number:04}"
    numbers = [f"account_{number:04}" for number in range(PEOPLE)]
    one, other = next((ref.replace("card", "account"), ref) for ref in rows if kind(ref) == "card" and ref not in hubs)
    return World(
        rows, hubs, days=days, testers=frozenset(random.sample(numbers, 6)),
        refused=frozenset(random.sample([*rows], len(rows) // 8)),
        decisions=((other, one, FORBIDDEN), ("account_0008", "account_0020", LINKED)),
    )  # fmt: skip


def next_world(world: World, random: Random) -> World:
    """Some records gone, some written anew, some more of people known and unknown; and whoever changed their mind."""
    rows, days = dict(world.rows), dict(world.days)
    for ref in random.sample(sorted(rows), 5):
        del rows[ref]
    for ref in random.sample(sorted(rows), 6):
        rows[ref] = written(person(int(ref.split("_")[1])), ref, random)
    for _ in range(8):
        ref = f"{random.choice(('account', 'card', 'email'))}_{random.randrange(PEOPLE + 40):04}"
        rows[ref] = written(person(int(ref.split("_")[1])), ref, random)
        days.setdefault(ref, random.randrange(300))
    assert world.refused is not None
    refused = world.refused ^ frozenset(random.sample(sorted(rows), 3))
    return replace(world, rows=rows, days=days, refused=refused)


@dataclass(frozen=True)
class Day:
    """A world, resolved from what the day before remembered, and from nothing."""

    world: World
    near: Resolution
    full: Resolution


@pytest.fixture(scope="module")
def story() -> list[Day]:
    world, random, days, remembered = first_world(), Random(11), [], None
    for _ in range(STEPS):
        near = resolve(world.evidence(), MODEL, KEY, before=remembered)
        full = resolve(world.evidence(), MODEL, KEY)
        days.append(Day(world, near, full))
        remembered = near.remembered
        world = next_world(world, random)
    return days


def test_what_is_remembered_changes_nothing_but_the_number_of_comparisons(story: list[Day]) -> None:
    for day in story:
        assert day.near.members.equals(day.full.members)
        assert day.near.links.equals(day.full.links)
        assert day.near.remembered.pairs.equals(day.full.remembered.pairs)
        assert day.near.remembered.records.equals(day.full.remembered.records)
        assert day.full.compared == day.full.remembered.pairs.height
    assert all(day.near.compared < 0.25 * day.full.compared for day in story[1:])


def test_every_identifier_is_in_one_customer_and_every_customer_has_a_name(story: list[Day]) -> None:
    for day in story:
        members = day.full.members
        assert dict(members.schema) == MEMBER_SCHEMA
        assert sorted(members["identity_ref"]) == sorted(day.world.refs)
        assert members["customer_id"].null_count() == 0
        main = members.filter(link_type="hub")
        assert main.height == main["customer_id"].n_unique() == members["customer_id"].n_unique()


def test_a_customer_is_named_after_its_oldest_identifier_so_that_its_id_stays_while_that_stays(
    story: list[Day],
) -> None:
    for day in story:
        of = customers(day.full)
        for refs in groups(day.full):
            first = oldest(refs, day.world)
            assert {of[ref] for ref in refs} == {customer_id(kind(first), first)}
    kept = 0
    for before, after in pairwise(story):
        names = {refs: oldest(refs, before.world) for refs in groups(before.full)}
        later = {ref: refs for refs in groups(after.full) for ref in refs}
        for first in names.values():
            if first in later and oldest(later[first], after.world) == first:
                assert customers(before.full)[first] == customers(after.full)[first]
                kept += 1
    assert kept > 0.9 * (STEPS - 1) * PEOPLE * 0.9


def test_who_said_no_and_testers_are_joined_by_nothing_but_proof(story: list[Day]) -> None:
    joined = 0
    for day in story:
        evidence = day.world.evidence()
        assert evidence.allowed is not None
        hubs = dict(day.full.members.select("identity_ref", "hub_identity_ref").iter_rows())
        free = set(evidence.allowed["group_ref"]) - day.world.testers
        for refs in groups(day.full):
            if len({hubs[ref] for ref in refs}) > 1:
                assert {hubs[ref] for ref in refs} <= free
                joined += 1
    assert joined > STEPS * 40


def test_couples_are_not_merged_and_most_records_of_one_person_are(story: list[Day]) -> None:
    day = story[0]
    free = {
        ref
        for ref in day.world.refs
        if ref not in (day.world.refused or ()) and day.world.hub(ref) not in day.world.testers
    }
    people = [{ref.split("_")[1] for ref in refs} for refs in groups(day.full)]
    assert sum(len(numbers) > 1 for numbers in people) <= 2  # the steward's link is one of them
    wanted = {number: {ref for ref in free if ref.endswith(number)} for number in {ref.split("_")[1] for ref in free}}
    whole = [len({customers(day.full)[ref] for ref in refs}) == 1 for refs in wanted.values() if len(refs) > 1]
    assert sum(whole) > 0.85 * len(whole)


def test_links_tell_of_pairs_of_different_groups_and_what_was_decided(story: list[Day]) -> None:
    seen = set()
    for day in story:
        links, of = day.full.links, customers(day.full)
        hubs = dict(day.full.members.select("identity_ref", "hub_identity_ref").iter_rows())
        assert dict(links.schema) == LINK_SCHEMA
        seen |= set(links["decision"])
        for first, second, decision, bits, worth in links.select(
            "first_ref", "second_ref", "decision", "bits", "worth"
        ).iter_rows():
            assert first < second
            assert hubs[first] != hubs[second]
            assert (of[first] == of[second]) == (decision in ("joined", "forced"))
            assert decision != "below_the_bar" or bits < BAR_BITS
            assert decision != "outweighed" or bits >= BAR_BITS
            assert (worth > 0) == (decision in ("joined", "below_the_bar", "outweighed"))
    assert {"joined", "below_the_bar", "not_allowed", "forbidden"} <= seen <= set(DECISIONS)


def test_changes_from_day_to_day_lead_from_the_first_state_to_the_last(story: list[Day]) -> None:
    state = customers(story[0].full)
    for before, after in pairwise(story):
        told = changes(before.full.members, after.full.members, NEW_YEAR)
        moved = told.filter(~pl.col("change_type").is_in(["appeared", "gone"]))
        state |= dict(moved.select("identity_ref", "customer_id").iter_rows())
        now = customers(after.full)
        state = {ref: state.get(ref, customer) for ref, customer in now.items()}
        assert state == now


def test_the_order_of_rows_changes_nothing(story: list[Day]) -> None:
    evidence = story[0].world.evidence()
    assert evidence.allowed is not None
    tables = {
        name: table
        for name in ("records", "owners", "proved", "seen", "allowed", "decisions")
        if (table := getattr(evidence, name)).height
    }
    shuffled = replace(
        evidence, **{name: table.sample(fraction=1, shuffle=True, seed=3) for name, table in tables.items()}
    )
    found = resolve(shuffled, MODEL, KEY)
    assert found.members.equals(story[0].full.members)
    assert found.links.equals(story[0].full.links)


def test_what_another_model_or_another_version_compared_is_not_believed(story: list[Day]) -> None:
    wrong = replace(
        story[0].near.remembered, pairs=story[0].near.remembered.pairs.with_columns(pattern=pl.lit(0, pl.Int64()))
    )
    found = resolve(story[0].world.evidence(), MODEL, KEY, "another", before=wrong)
    assert found.members.equals(story[0].full.members)
    assert found.compared == story[0].full.compared


ANN = {
    "first_name": "anna", "last_name": "kovacs", "email": "anna.kovacs@example.org", "phone": "+15185550101", "birth_date": "1980-05-17",
    "house_number": "12", "street_name": "n main st", "postal_code": "12180", "city": "troy",
}  # fmt: skip
BOB = {**ANN, "first_name": "robert", "given_root": "robert", "birth_date": "1979-11-02", "phone": "+15185550199"}
ZOE = {
    "first_name": "zoe", "last_name": "quinrosver", "email": "zoe@example.net", "phone": "+16075550107", "birth_date": "1999-01-30",
    "house_number": "7", "street_name": "kossuth ut", "postal_code": "14850", "city": "ithaca",
}  # fmt: skip


def test_a_mailbox_proves_nothing_of_orders_that_a_spouse_placed_with_it() -> None:
    rows = {"account_1": ANN, "email_1": BOB, "account_2": ZOE, "email_2": {**ZOE, "phone": None}}
    found = resolved(World(rows, {"email_1": "account_1", "email_2": "account_2"}))
    assert groups(found) == {frozenset({"account_1"}), frozenset({"email_1"}), frozenset({"account_2", "email_2"})}
    kinds = dict(found.members.select("identity_ref", "link_type").iter_rows())
    assert kinds == {"account_1": "hub", "email_1": "hub", "account_2": "hub", "email_2": "deterministic"}


def test_likely_records_are_one_customer_whose_surest_pair_is_told() -> None:
    found = resolved(World({"account_1": ANN, "card_1": ANN, "email_1": BOB}))
    assert groups(found) == {frozenset({"account_1", "card_1"}), frozenset({"email_1"})}
    told = {row["identity_ref"]: (row["link_type"], row["match_probability"]) for row in found.members.to_dicts()}
    assert told["account_1"] == ("hub", None)
    kind_of, probability = told["card_1"]
    assert kind_of == "probabilistic"
    assert probability > 0.99


def test_a_late_older_record_renames_the_customer_and_says_why() -> None:
    young = World({"account_1": ANN, "account_2": ZOE}, days={"account_1": 9, "account_2": 9})
    older = replace(young, rows={**young.rows, "card_1": ANN}, days={**young.days, "card_1": 2})
    before, after = resolved(young), resolved(older)
    told = changes(before.members, after.members, NEW_YEAR)
    assert told.select("change_type", "identity_ref", "from_customer_id", "customer_id", "reason").rows() == [
        ("renamed", "account_1", customer_id("account", "account_1"), customer_id("card", "card_1"),
         "an older identifier of the same person was learned of")
    ]  # fmt: skip
    younger = replace(older, days={**young.days, "card_1": 20})
    assert changes(before.members, resolved(younger).members, NEW_YEAR).is_empty()


def test_of_identifiers_as_old_an_account_names_the_customer_before_a_card_before_an_email() -> None:
    found = resolved(World({"email_1": ANN, "card_1": ANN, "account_9": ANN}))
    assert set(customers(found).values()) == {customer_id("account", "account_9")}
    assert set(customers(resolved(World({"email_1": ANN, "card_1": ANN}))).values()) == {customer_id("card", "card_1")}


def test_a_steward_joins_and_parts_whatever_records_say() -> None:
    rows = {"account_1": ANN, "card_1": ANN, "account_2": ZOE, "card_2": {**ZOE, "phone": None}}
    world = World(rows, {"card_2": "account_2"})
    said = (("card_1", "account_1", FORBIDDEN), ("account_1", "account_2", LINKED))
    found = resolved(replace(world, decisions=said))
    assert groups(found) == {frozenset({"account_1", "account_2", "card_2"}), frozenset({"card_1"})}
    parted = resolved(replace(world, decisions=(("card_2", "account_2", FORBIDDEN),)))
    assert groups(parted) == {frozenset({"account_1", "card_1"}), frozenset({"account_2"}), frozenset({"card_2"})}


def test_a_steward_may_name_a_group_by_any_of_its_identifiers() -> None:
    world = World({"account_1": ANN, "account_2": ZOE}, {"card_old": "account_1"}, bare=("card_old",))
    assert len(groups(resolved(replace(world, decisions=(("account_2", "card_old", LINKED),))))) == 1
    parted = resolved(replace(world, decisions=(("account_1", "card_old", FORBIDDEN),)))
    assert frozenset({"card_old"}) in groups(parted)


def test_a_steward_joins_a_card_of_which_nothing_is_known() -> None:
    rows = {"account_1": ANN, "account_2": ZOE, "email_2": {**ZOE, "phone": None}, "card_2": {**ZOE, "email": None}}
    said = (("account_2", "card_found", LINKED), ("card_found", "card_lost", LINKED))
    world = World(rows, bare=("card_found", "card_lost", "card_other"), refused=frozenset(), decisions=said)
    found = resolved(world)
    mine = frozenset({"account_2", "email_2", "card_2", "card_found", "card_lost"})
    assert groups(found) == {mine, frozenset({"account_1"}), frozenset({"card_other"})}
    apart = resolved(replace(world, refused=frozenset({"card_found"})))
    assert {frozenset({"card_found"}), frozenset({"card_lost"})} < groups(apart)
    banned = resolved(replace(world, decisions=(*said, ("account_2", "card_lost", FORBIDDEN))))
    assert customers(banned)["account_2"] != customers(banned)["card_lost"]


def test_records_weighed_once_serve_whatever_stewards_and_people_say() -> None:
    rows = {"account_1": ANN, "card_1": ANN, "account_2": ZOE, "email_2": {**ZOE, "phone": None}, "card_3": BOB}
    world = World(rows, {"email_2": "account_2"})
    known = weighed(world.evidence(), MODEL, KEY)
    for said in ((), (("card_1", "account_1", FORBIDDEN), ("card_3", "account_2", LINKED))):
        for refused in (None, frozenset({"card_1"})):
            other = replace(world, decisions=said, refused=refused)
            found, expected = decided(other.evidence(), known), resolved(other)
            assert found.members.equals(expected.members)
            assert found.links.equals(expected.links)


def test_a_forced_link_is_told_of_with_who_said_so_and_why_however_unlikely_it_is() -> None:
    rows = {"account_1": ANN, "account_2": ZOE, "email_2": {**ZOE, "phone": None}, "card_3": BOB}
    said = (("account_1", "account_2", LINKED), ("card_found", "card_3", LINKED), ("account_1", "card_3", FORBIDDEN))
    world = World(rows, {"email_2": "account_2"}, bare=("card_found",), decisions=said)
    plain = world.evidence()
    words = [
        {"decision_id": f"dec_{number}", "decided_at": DECIDED, "actor_id": "kim", "reason": "both said so"}
        for number in range(len(said))
    ]
    told = replace(plain, decisions=pl.concat([plain.decisions, pl.DataFrame(words)], how="horizontal"))
    links = resolve(told, MODEL, KEY).links.filter(decision="forced")
    assert links.select("first_ref", "second_ref", *STEWARD).rows() == [
        ("account_1", "account_2", "dec_0", DECIDED, "kim", "both said so"),
        ("account_1", "email_2", "dec_0", DECIDED, "kim", "both said so"),
        ("card_3", "card_found", "dec_1", DECIDED, "kim", "both said so"),
    ]
    assert (links["bits"].drop_nulls() < BAR_BITS - 8).all()
    assert links["bits"][2] is links["pattern"][2] is links["probability"][2] is None
    forbidden = resolve(told, MODEL, KEY).links.filter(decision="forbidden")
    assert set(forbidden["decision_id"]) <= {"dec_2"}
    assert resolve(plain, MODEL, KEY).links.drop(*STEWARD).equals(resolve(told, MODEL, KEY).links.drop(*STEWARD))


def test_a_steward_does_not_join_who_said_no_nor_testers() -> None:
    linked = World(
        {"account_1": ANN, "account_2": ZOE}, refused=frozenset(), decisions=(("account_1", "account_2", LINKED),)
    )
    assert len(groups(resolved(linked))) == 1
    assert len(groups(resolved(replace(linked, refused=frozenset({"account_2"}))))) == 2
    assert len(groups(resolved(replace(linked, testers=frozenset({"account_1"}))))) == 2


def test_identifiers_without_records_and_no_identifiers_at_all_resolve() -> None:
    found = resolved(World({"account_1": ANN}, {"card_2": "account_1"}, bare=("card_1", "card_2")))
    assert groups(found) == {frozenset({"account_1", "card_2"}), frozenset({"card_1"})}
    nobody = resolved(World({}))
    assert nobody.members.is_empty()
    assert nobody.links.is_empty()
