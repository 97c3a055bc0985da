"""Whose a payment card is: the one customer whose records show it, and nobody's as soon as a rule speaks against it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from models.identity.payments import MOST_PAYMENT_CARDS, OUTCOMES, PAID_SCHEMA, SHOWN, judged, tied
from models.identity.resolving import MEMBER_SCHEMA, Evidence

NEW_YEAR = datetime(2025, 1, 1)
RECORD = {name: pl.String() for name in ("record_id", "given_root", "house_number", "street_name", "postal_code", "phone", "email")}  # fmt: skip


@dataclass(frozen=True)
class Street:
    """Identifiers named `<type>_<anything>`. `customers`: whose each is; `paid`: payment card, identifier or None, times and first name said."""

    customers: Mapping[str, str]
    paid: Sequence[tuple[str, str | None, int] | tuple[str, str | None, int, str]]
    records: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    hubs: Mapping[str, str] = field(default_factory=dict)
    testers: frozenset[str] = frozenset()
    allowed: frozenset[str] | None = None
    parted: tuple[tuple[str, str], ...] = ()

    @property
    def members(self) -> pl.DataFrame:
        rows = [
            {"identity_type": ref.partition("_")[0], "identity_ref": ref, "hub_identity_ref": self.hubs.get(ref, ref),
             "hub_identity_type": self.hubs.get(ref, ref).partition("_")[0], "link_type": "hub", "source_name": "shop",
             "linked_at": NEW_YEAR, "is_test": ref in self.testers, "customer_id": customer}
            for ref, customer in self.customers.items()
        ]  # fmt: skip
        return pl.DataFrame(rows, schema=MEMBER_SCHEMA)

    @property
    def evidence(self) -> Evidence:
        seen = [
            {"payment_ref": card, "identity_type": ref and ref.partition("_")[0], "identity_ref": ref, "times": times, "source_name": "pos",
             "given_root": name[0] if name else None, "is_test": False, "seen_at": NEW_YEAR + timedelta(days=number)}
            for number, (card, ref, times, *name) in enumerate(self.paid)
        ]  # fmt: skip
        records = [{"record_id": ref, **said} for ref, said in self.records.items()]
        owners = [
            {"record_id": ref, "identity_type": ref.partition("_")[0], "identity_ref": ref} for ref in self.records
        ]
        shape = dict.fromkeys(("record_id", "identity_type", "identity_ref"), pl.String())
        refs = (
            None
            if self.allowed is None
            else pl.DataFrame({"group_ref": sorted(self.allowed)}, {"group_ref": pl.String})
        )
        return Evidence(
            records=pl.DataFrame(records, schema=RECORD), owners=pl.DataFrame(owners, schema=shape), proved=pl.DataFrame(), seen=pl.DataFrame(),
            allowed=refs, paid=pl.DataFrame(seen, schema=PAID_SCHEMA),
        )  # fmt: skip

    @property
    def told(self) -> tuple[Evidence, pl.DataFrame, pl.DataFrame]:
        apart = pl.DataFrame(list(self.parted), dict.fromkeys(("first_ref", "second_ref"), pl.String), orient="row")
        return self.evidence, self.members, apart

    def outcomes(self) -> dict[str, str]:
        return dict(judged(*self.told).select("payment_ref", "outcome").iter_rows())

    def ties(self) -> dict[str, str]:
        return dict(tied(*self.told).select("identity_ref", "customer_id").iter_rows())


ANN = Street(
    {"account_ann": "Ann"}, [("visa", "account_ann", 1), ("visa", None, 3)], {"account_ann": {"given_root": "ann"}}
)


def with_more(street: Street, **more: Any) -> Street:
    """A street with something added to each of the fields named."""
    added = {name: {**getattr(street, name), **value} if isinstance(value, Mapping) else [*getattr(street, name), *value] for name, value in more.items()}  # fmt: skip
    return replace(street, **added)


def test_a_card_that_one_customer_alone_was_seen_with_is_theirs() -> None:
    assert ANN.outcomes() == {"visa": "tied"}
    row = tied(*ANN.told).row(0, named=True)
    assert {name: row[name] for name in ("identity_type", "identity_ref", "link_type", "customer_id", "is_test", "match_probability")} == {
        "identity_type": "payment", "identity_ref": "visa", "link_type": "payment", "customer_id": "Ann", "is_test": False, "match_probability": None,
    }  # fmt: skip
    assert (row["hub_identity_ref"], row["linked_at"]) == ("account_ann", NEW_YEAR)
    assert tied(*ANN.told).schema == MEMBER_SCHEMA


def test_a_card_that_paid_for_no_receipt_without_a_loyalty_card_is_not_told_of() -> None:
    assert replace(ANN, paid=[("visa", "account_ann", 5)]).outcomes() == {}


def test_a_card_that_no_record_shows_is_nobodys() -> None:
    assert replace(ANN, paid=[("visa", None, 9)]).outcomes() == {}


def test_a_tie_ends_when_the_card_is_seen_with_a_second_customer() -> None:
    later = with_more(ANN, customers={"email_bob": "Bob"}, paid=[("visa", "email_bob", 1)])
    assert later.outcomes() == {"visa": "several_customers"}
    assert later.ties() == {}


def test_several_identifiers_of_one_customer_are_one_and_the_group_seen_most_is_named() -> None:
    street = Street(
        {"account_ann": "Ann", "email_ann": "Ann", "card_ann": "Ann"},
        [("visa", "email_ann", 1), ("visa", "account_ann", 1), ("visa", "card_ann", 3), ("visa", None, 1)],
        hubs={"card_ann": "account_ann"},
    )
    assert street.ties() == {"visa": "Ann"}
    assert tied(*street.told)["hub_identity_ref"].to_list() == ["account_ann"]


def test_two_first_names_are_two_people_whether_a_record_or_an_order_says_them() -> None:
    assert with_more(ANN, paid=[("visa", "account_ann", 1, "mark")]).outcomes() == {"visa": "several_names"}
    spouse = with_more(ANN, customers={"email_ann": "Ann"}, paid=[("visa", "email_ann", 1)], records={"email_ann": {"given_root": "mark"}})  # fmt: skip
    assert spouse.outcomes() == {"visa": "several_names"}
    assert with_more(ANN, paid=[("visa", "account_ann", 1, "ann")]).ties() == {"visa": "Ann"}


def test_who_lives_with_somebody_of_whom_no_card_is_known_may_lend_theirs() -> None:
    home = {"house_number": "4", "street_name": "elm st", "postal_code": "94110"}
    housed = replace(ANN, records={"account_ann": {"given_root": "ann", **home}})
    spouse = with_more(housed, customers={"card_mark": "Mark"}, records={"card_mark": {"given_root": "mark", **home}})
    assert spouse.outcomes() == {"visa": "may_be_a_housemates"}
    own = with_more(spouse, paid=[("amex", "card_mark", 1)])
    assert own.outcomes() == {"visa": "tied"}
    phone = with_more(ANN, customers={"card_mark": "Mark"}, records={"account_ann": {"phone": "+15550100"}, "card_mark": {"phone": "+15550100"}})  # fmt: skip
    assert phone.outcomes() == {"visa": "may_be_a_housemates"}
    next_door = with_more(housed, customers={"card_eve": "Eve"}, records={"card_eve": {**home, "house_number": "6"}})
    assert next_door.outcomes() == {"visa": "tied"}


def test_who_has_a_loyalty_card_shows_it_at_most_of_what_their_payment_card_pays() -> None:
    def street(shown: int, bare: int) -> Street:
        return Street({"card_ann": "Ann"}, [("visa", "card_ann", shown), ("visa", None, bare)])

    assert street(SHOWN, 1).outcomes() == {"visa": "tied"}
    assert street(SHOWN, 2).outcomes() == {"visa": "loyalty_card_not_shown"}
    online = Street({"card_ann": "Ann", "account_ann": "Ann"}, [("visa", "account_ann", 9), ("visa", None, 1)])
    assert online.outcomes() == {"visa": "loyalty_card_not_shown"}


def test_a_loyalty_card_shown_with_many_payment_cards_says_nothing_of_who_paid() -> None:
    shoppers = [(f"visa_{number}", "card_clerk", 1) for number in range(MOST_PAYMENT_CARDS)]
    clerk = with_more(ANN, customers={"card_clerk": "Clerk"}, paid=[("visa", "card_clerk", 1), *shoppers])
    assert clerk.ties() == {"visa": "Ann"}
    some = with_more(ANN, customers={"card_clerk": "Clerk"}, paid=[("visa", "card_clerk", 1), *shoppers[1:]])
    assert some.outcomes() == {"visa": "several_customers"}


def test_a_card_that_a_tester_paid_with_is_nobodys() -> None:
    assert replace(ANN, testers=frozenset({"account_ann"})).outcomes() == {"visa": "test_account"}
    assert with_more(ANN, paid=[("visa", "email_tester", 1)]).outcomes() == {"visa": "test_account"}


def test_who_did_not_agree_to_be_recognised_stays_without_their_receipts() -> None:
    assert replace(ANN, allowed=frozenset()).outcomes() == {"visa": "not_allowed"}
    assert replace(ANN, allowed=frozenset({"account_ann"})).outcomes() == {"visa": "tied"}
    two = with_more(ANN, customers={"email_ann": "Ann"}, paid=[("visa", "email_ann", 1)])
    assert replace(two, allowed=frozenset({"account_ann"})).outcomes() == {"visa": "not_allowed"}


def test_a_steward_may_say_that_a_card_is_not_a_customers() -> None:
    for pair in (("visa", "account_ann"), ("account_ann", "visa")):
        assert replace(ANN, parted=(pair,)).outcomes() == {"visa": "forbidden"}
    two = with_more(ANN, customers={"email_ann": "Ann", "email_bob": "Bob"})
    assert replace(two, parted=(("email_ann", "visa"),)).outcomes() == {"visa": "forbidden"}
    assert replace(two, parted=(("email_bob", "visa"), ("account_ann", "email_ann"))).outcomes() == {"visa": "tied"}


REFS = ("account_ann", "card_ann", "email_bob", "card_bob", "account_test")
STREETS = st.builds(
    Street,
    customers=st.fixed_dictionaries({ref: st.sampled_from(("A", "B", "C")) for ref in REFS}),
    paid=st.lists(
        st.tuples(st.sampled_from(("visa", "amex")), st.sampled_from((*REFS, None)), st.integers(1, 4)), max_size=12
    ),
    records=st.dictionaries(
        st.sampled_from(REFS),
        st.fixed_dictionaries({"given_root": st.sampled_from(("ann", "bob")), "phone": st.sampled_from(("+1", "+2"))}),
    ),
    testers=st.just(frozenset({"account_test"})),
    allowed=st.none() | st.frozensets(st.sampled_from(REFS)),
)  # fmt: skip


@settings(deadline=None, max_examples=150)
@given(street=STREETS, taken=st.frozensets(st.sampled_from(REFS)))
def test_a_refusal_takes_ties_and_gives_none(street: Street, taken: frozenset[str]) -> None:
    before = street.ties()
    after = replace(street, allowed=(frozenset(REFS) if street.allowed is None else street.allowed) - taken).ties()
    assert after.items() <= before.items()


@settings(deadline=None, max_examples=150)
@given(street=STREETS)
def test_a_tied_card_was_seen_with_its_customer_alone_who_agreed_and_is_no_tester(street: Street) -> None:
    found = street.outcomes()
    assert set(found.values()) <= set(OUTCOMES)
    ties = street.ties()
    assert set(ties) == {card for card, outcome in found.items() if outcome == "tied"}
    lent = {
        ref
        for ref in REFS
        if ref.startswith("card_") and len({c for c, by, *_ in street.paid if by == ref}) > MOST_PAYMENT_CARDS
    }
    for card, customer in ties.items():
        by = {ref for c, ref, *_ in street.paid if c == card and ref is not None} - lent
        assert {street.customers[ref] for ref in by} == {customer}
        assert not by & street.testers
        assert street.allowed is None or by <= street.allowed


@settings(deadline=None, max_examples=60)
@given(street=STREETS, seed=st.randoms())
def test_ties_do_not_follow_from_the_order_of_rows(street: Street, seed: Any) -> None:
    paid = list(street.paid)
    seed.shuffle(paid)
    assert replace(street, paid=paid).ties() == street.ties()
