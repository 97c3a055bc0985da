"""Why two identifiers are one customer's or two: every outcome on a handful of people, and bits that add up."""

import math
from dataclasses import replace
from datetime import datetime
from functools import cache
from typing import Any

import msgspec
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import ModelsError
from models.identity import reasons
from models.identity.comparisons import Comparisons
from models.identity.explaining import Explainer
from models.identity.explanations import OUTCOMES, Between, CustomerExplanation, Explanation
from models.identity.matching import PAIR_SCHEMA, Matcher
from models.identity.mixture import HOUSEHOLD, PERSON
from models.identity.model import unlearned
from models.identity.proofs import SCHEMA
from models.identity.records import SAID, normal_records
from models.identity.resolving import BAR_BITS, Evidence, resolve

KEY = b"k" * 32
AT = datetime(2026, 3, 1)
SEEN = {"account": "ecommerce", "card": "loyalty", "email": "ecommerce", "device": "ecommerce"}


def said(ref: str, **values: str) -> dict[str, Any]:
    return {**dict.fromkeys(SAID), "record_id": ref, "payment": None, "country_code": "US", **values}


LIVES_AT = {"street_address": "12 Mill Lane", "city": "Hudson", "region_code": "NY", "postal_code": "12534"}
ELSEWHERE = {"street_address": "4 Quay Road", "city": "Salem", "region_code": "MA", "postal_code": "01970"}
ADA = {"first_name": "Ada", "last_name": "Quill", "email": "ada.quill@example.com", "phone": "518 555 0101", **LIVES_AT}
MIRA = {
    "first_name": "Mira",
    "last_name": "Stone",
    "email": "mira.stone@example.com",
    "phone": "518 555 0133",
    **ELSEWHERE,
}
NED = {"first_name": "Ned", "last_name": "Arrow", "email": "ned.arrow@example.com", "birth_date": "1971-02-03"}
RECORDS = (
    said("account_ada", **ADA), said("card_ada", **ADA),
    said("account_ben", **{**ADA, "first_name": "Ben", "email": "ben@example.com"}),  # lives with Ada
    said("account_mira", **MIRA), said("card_mira", **MIRA),  # a steward parted them
    said("account_ned", **NED), said("card_ned", **NED),  # the card's owner was never asked
    said("account_ola", first_name="Ola", last_name="Frost", email="ola@example.com"),
    said("card_ola", first_name="Olaf", last_name="Winter", birth_date="1990-01-01"),  # a steward joined them
    said("card_pip", first_name="Pip", last_name="Lark", phone="518 555 0177"),
)  # fmt: skip
PROVED = {
    "device_ada": "account_ada", "email_ada": "account_ada", "card_spare": "card_ada", "device_lone": "device_lone",
    "card_lone": "card_lone",
}  # fmt: skip


def word(kind: str, first: str, second: str, number: int = 1) -> dict[str, Any]:
    return {
        "decision_id": f"dec_{number}", "decided_at": datetime(2026, 2, number), "decision_type": kind,
        "first_ref": first, "second_ref": second, "actor_id": "kim", "reason": "as both told us",
    }  # fmt: skip


def evidence(words: list[dict[str, Any]], refused: tuple[str, ...] = ("card_ned",)) -> tuple[Evidence, pl.DataFrame]:
    clear = pl.DataFrame(
        list(RECORDS), schema={"record_id": pl.String, **dict.fromkeys(SAID, pl.String), "payment": pl.String}
    )
    hubs = {**{row["record_id"]: row["record_id"] for row in RECORDS}, **PROVED}
    proved = pl.DataFrame(
        [
            {"identity_type": ref.partition("_")[0], "identity_ref": ref, "hub_identity_type": hub.partition("_")[0], "hub_identity_ref": hub,
             "link_type": "hub" if ref == hub else "deterministic", "source_name": SEEN[ref.partition("_")[0]], "linked_at": AT, "is_test": False}
            for ref, hub in hubs.items()
        ],
        schema=SCHEMA,
    )  # fmt: skip
    standing = pl.DataFrame(
        [{"group_ref": hub, "is_allowed": hub not in refused, "reason_code": "never_asked" if hub in refused else "granted"}
         for hub in sorted(set(hubs.values()))]
    )  # fmt: skip
    owners = clear.select(
        "record_id", identity_type=pl.col("record_id").str.extract("^([a-z]+)_"), identity_ref="record_id"
    )
    seen = proved.select("identity_type", "identity_ref", first_seen_at="linked_at")
    found = Evidence(
        records=normal_records(clear, "US"), owners=owners, proved=proved, seen=seen, allowed=standing.filter("is_allowed").select("group_ref")
    )  # fmt: skip
    if words:
        found = replace(found, decisions=pl.DataFrame(words).select("first_ref", "second_ref", "decision_type"))
    return found, standing


WORDS = [word("forbid", "card_mira", "account_mira", 3), word("link", "account_ola", "card_ola", 4)]


def explainer(
    words: list[dict[str, Any]] = WORDS,
    later: list[dict[str, Any]] | None = None,
    refused: tuple[str, ...] = ("card_ned",),
) -> Explainer:
    found, standing = evidence(words, refused)
    members = resolve(found, unlearned(), KEY).members
    every = [*words, *(later or [])]
    compared = Comparisons(found.records, unlearned())
    return Explainer(compared, "unlearned", members, standing, pl.DataFrame(every) if every else None)


@pytest.fixture(scope="module")
def known() -> Explainer:
    return explainer()


@pytest.mark.parametrize(
    ("first", "second", "outcome", "words"),
    [
        ("device_ada", "account_ada", "proved", ("this device was logged in to the account", "as ecommerce told")),
        ("email_ada", "device_ada", "proved", ("the shop verified this e-mail",)),
        ("account_ada", "card_ada", "likely", ("likely one person", "the bar is 95.2%")),
        ("account_ola", "card_ola", "forced", ("kim said so on 2026-02-04", "as both told us")),
        ("account_mira", "card_mira", "forbidden", ("whatever else speaks for it", "kim said so on 2026-02-03")),
        ("account_ada", "account_ben", "below_the_bar", ("Not joined",)),
        ("account_ned", "card_ned", "not_allowed", ("the card (never asked)",)),
        ("card_pip", "account_ola", "not_compared", ("no run compares them", "Compared now all the same")),
        ("device_lone", "account_ada", "nothing_to_compare", ("no record says who it is",)),
    ],
)
def test_every_outcome_has_its_sentence(
    known: Explainer, first: str, second: str, outcome: str, words: tuple[str, ...]
) -> None:
    for told in (known.pair(first, second), known.pair(second, first)):
        assert (told.outcome, told.outcome in OUTCOMES) == (outcome, True), told.sentence
        assert told.is_joined == told.sentence.startswith("Joined")
        for part in words:
            assert part in told.sentence, told.sentence


def test_a_household_is_what_takes_the_bits_away(known: Explainer) -> None:
    best = known.pair("account_ada", "account_ben").comparison
    assert best is not None
    levels = {step.field: step.level for step in best.fields}
    assert (levels["first_name"], levels["last_name"], levels["address"]) == ("different", "same", "same")
    assert best.household_bits < -10


def test_joined_through_others_names_the_steps() -> None:
    """A and C share a name only, and each of them more with B."""
    bare = {"first_name": "Ida", "last_name": "Vane"}
    people = (
        said("account_a", **bare, **LIVES_AT, phone="518 555 0102"), said("card_b", **bare, **LIVES_AT, phone="518 555 0102", email="ida@example.com"),
        said("card_c", **bare, email="ida@example.com"),
    )  # fmt: skip
    template, _ = evidence([])
    clear = pl.DataFrame(
        list(people), schema={"record_id": pl.String, **dict.fromkeys(SAID, pl.String), "payment": pl.String}
    )
    kind = pl.col("record_id").str.extract("^([a-z]+)_")
    proved = clear.select(
        identity_type=kind, identity_ref="record_id", hub_identity_type=kind, hub_identity_ref="record_id", link_type=pl.lit("hub"),
        source_name=pl.lit("loyalty"), linked_at=pl.lit(AT), is_test=pl.lit(False),
    )  # fmt: skip
    found = replace(
        template, records=normal_records(clear, "US"), owners=clear.select("record_id", identity_type=kind, identity_ref="record_id"),
        proved=proved, seen=proved.select("identity_type", "identity_ref", first_seen_at="linked_at"), allowed=None,
    )  # fmt: skip
    known = Explainer(Comparisons(found.records, unlearned()), "unlearned", resolve(found, unlearned(), KEY).members)
    told = known.pair("account_a", "card_c")
    assert told.outcome == "likely_through_others", told.sentence
    assert [(link.first_ref, link.second_ref) for link in told.chain] == [("account_a", "card_b"), ("card_b", "card_c")]
    assert "Joined through 2 links" in told.sentence
    assert [who.identity_ref for who in told.members] == ["card_b"]


def test_a_decision_that_waits_is_told_as_waiting() -> None:
    later = [word("forbid", "account_ada", "card_ada", 5), word("link", "card_pip", "account_ben", 6)]
    known = explainer(later=later)
    assert known.pair("card_ada", "account_ada").outcome == "pending"
    told = known.pair("account_ben", "card_pip")
    assert (told.outcome, told.is_joined) == ("pending", False)
    assert "the next run joins them" in told.sentence


def test_a_forced_link_needs_a_yes_of_both() -> None:
    known = explainer([word("link", "account_ola", "card_ola", 4)], refused=("card_ola",))
    told = known.pair("account_ola", "card_ola")
    assert (told.outcome, told.is_joined) == ("not_allowed", False)
    assert "a steward linked them, but not all said yes to being recognised: the card (never asked)" in told.sentence


def test_a_no_beats_likeness_a_yes_and_proof() -> None:
    words = [
        word("forbid", "account_ada", "card_ada", 1), word("link", "account_ada", "card_spare", 2), word("forbid", "account_ada", "email_ada", 3),
    ]  # fmt: skip
    known = explainer(words)
    assert known.pair("account_ada", "card_ada").outcome == "forbidden"
    assert not known.pair("account_ada", "card_spare").is_joined
    assert known.pair("account_ada", "email_ada").outcome == "forbidden"


def test_a_chain_runs_from_the_first_to_the_second_over_proof_and_likeness(known: Explainer) -> None:
    told = known.pair("device_ada", "card_spare")
    assert [(link.first_ref, link.second_ref, link.how) for link in told.chain] == [
        ("device_ada", "account_ada", "proved"), ("account_ada", "card_ada", "likely"), ("card_ada", "card_spare", "proved"),
    ]  # fmt: skip
    assert told.comparison is not None
    assert {told.comparison.first_record, told.comparison.second_record} == {"account_ada", "card_ada"}


def test_a_customer_is_explained_by_all_that_holds_it_together(known: Explainer) -> None:
    customer = known.pair("account_ada", "card_ada").first.customer_id
    told = known.customer(customer)
    assert {who.identity_ref for group in told.groups for who in group.members} == {
        "account_ada",
        "device_ada",
        "email_ada",
        "card_ada",
        "card_spare",
    }
    assert all(group.members[0].is_hub for group in told.groups)
    assert [link.how for link in told.links] == ["likely"]
    assert told.sentence.startswith(f"{customer} is made of 5 identifiers in 2 proved groups, joined by 1 likely link")
    ola = known.customer(known.pair("account_ola", "card_ola").first.customer_id)
    assert ([link.how for link in ola.links], len(ola.stewards)) == (["forced"], 1)
    assert "joined by 1 link by a steward" in ola.sentence
    alone = known.customer(known.pair("card_pip", "account_ada").first.customer_id)
    assert alone.sentence.endswith("1 identifier in 1 proved group: nothing but proof holds it together.")


def test_customers_are_compared_by_their_surest_records(known: Explainer) -> None:
    ada, ben = (known.pair("account_ada", "account_ben").first, known.pair("account_ada", "account_ben").second)
    told = known.pair(ada.customer_id, ben.customer_id)
    assert (told.first.customer_id, told.second.customer_id) == (ada.customer_id, ben.customer_id)
    assert told.between is not None
    assert told.between.pairs == 2


def test_an_explanation_is_whole_as_json_and_says_nothing_in_clear(known: Explainer) -> None:
    customer = known.pair("account_ada", "card_ada").first.customer_id
    for told, kind in (
        (known.pair("account_ada", "card_ada"), Explanation),
        (known.customer(customer), CustomerExplanation),
    ):
        text = msgspec.json.encode(told)
        assert msgspec.json.decode(text, type=kind) == told
        for value in (*list(ADA.values())[1:], "+15185550101"):  # not the first name, which the ids here are made of
            assert value.lower().encode() not in text.lower()


def test_clear_text_is_shown_only_where_it_was_handed_in(known: Explainer) -> None:
    clear = pl.DataFrame(
        list(RECORDS), schema={"record_id": pl.String, **dict.fromkeys(SAID, pl.String), "payment": pl.String}
    )
    best = replace(known, compared=replace(known.compared, said=clear)).pair("account_ada", "account_ben").comparison
    assert best is not None
    shown = {step.field: step.clear for step in best.fields}
    assert shown["first_name"] == ("Ada", "Ben")
    assert shown["address"] == ("12 Mill Lane, 12534, Hudson, NY",) * 2
    assert shown["payment"] is None


def test_who_is_likely_and_yet_apart_is_outweighed_by_the_others(known: Explainer) -> None:
    """And a value that too many share is named as what keeps two from being compared."""
    asked = known.pair("account_ada", "card_ada")
    assert asked.comparison is not None
    two = (asked.first, msgspec.structs.replace(asked.second, customer_id="cus_other"))
    between = Between(pairs=3, against=2, average_bits=-0.7)
    outcome, sentence = reasons.told(reasons.Asked(*two, asked.comparison, None, (), between))
    assert outcome == "outweighed"
    assert "2 of 3 pairs between the two customers speak against it, -0.7 bits on average" in sentence
    common = msgspec.structs.replace(asked.comparison, keys_shared=(), keys_too_common=("phone",))
    outcome, sentence = reasons.told(reasons.Asked(*two, common, None, (), between))
    assert outcome == "not_compared"
    assert "They agree on phone alone, which too many share" in sentence


@pytest.mark.parametrize("first", ["cus_nobody", "card_nobody"])
def test_who_is_not_known_is_not_explained(known: Explainer, first: str) -> None:
    with pytest.raises(ModelsError, match="expected one that the last run knew"):
        known.pair(first, "account_ada")
    with pytest.raises(ModelsError, match="found one and the same"):
        known.pair("account_ada", "account_ada")


MODEL = unlearned()


@cache
def weighing(share: float | None) -> tuple[Matcher, Comparisons]:
    """A matcher of the records above, and what tells its pairs; `share` of people bear Ada's names, None for nobody knows."""
    named = {"first_name": "ada", "last_name": "quill"}
    frequencies = {column: pl.DataFrame({"value": [value], "share": [share]}) for column, value in named.items()}
    model = MODEL if share is None else replace(MODEL, frequencies=frequencies, records=5_000)
    records = evidence([])[0].records.sort("record_id")
    return Matcher(records, model), Comparisons(records, model, BAR_BITS)


@settings(deadline=None)
@given(st.sampled_from([None, 0.0005, 0.05]), st.tuples(*(st.integers(0, len(field.levels)) for field in MODEL.fields)))
def test_the_bits_of_an_explanation_add_up_to_the_score(share: float | None, gammas: tuple[int, ...]) -> None:
    """Whatever two records agree on. And the household's step is what it says: there are two explanations of their being two."""
    pattern = 0
    for field, gamma in zip(MODEL.fields, gammas, strict=True):
        pattern = pattern * (len(field.levels) + 1) + gamma
    matcher, comparisons = weighing(share)
    pair = pl.DataFrame({"first": [0], "second": [1], "pattern": [pattern]}, schema=PAIR_SCHEMA)
    row = matcher.scored(pair).row(0, named=True)
    told = comparisons.told(0, 1, row)
    against_strangers = told.prior_bits + sum(step.bits for step in told.fields)
    assert told.bits == row["bits"]
    assert against_strangers + told.household_bits == pytest.approx(told.bits, abs=1e-9)
    shares = matcher.model.mixture.shares
    prior = math.log2(shares[PERSON] / shares[HOUSEHOLD])
    against_household = prior + sum(step.bits_against_household for step in told.fields)
    least = min(against_strangers, against_household)
    both = least - math.log2(2 ** (least - against_strangers) + 2 ** (least - against_household))
    assert both == pytest.approx(told.bits, abs=1e-6)
