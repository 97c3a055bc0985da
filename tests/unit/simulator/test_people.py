"""The simulated shoppers: what is hard about them happens, and the truth names every way in which a record differs."""

import re
from collections import defaultdict
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from simulator import TINY, simulate
from simulator.names import LAST_NAMES, drawn
from simulator.people import People, settle
from simulator.places import found_places
from simulator.products import stock_shelves
from simulator.records import DIFFERENCES
from tests.unit.simulator import perfect_reader as reader
from troth.home import Home

TOWN = replace(TINY, people=300, days=6, store_trips_per_person_day=0.3, web_orders_per_person_day=0.15)
NAMES = {"nickname", "initial", "swapped_names", "name_suffix", "former_last_name", "typo_name"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A small town with seed 3."""
    home = Home(tmp_path_factory.mktemp("town"))
    simulate(home, TOWN, 3)
    return home


@pytest.fixture(scope="module")
def people() -> People:
    return settle(TOWN, found_places(TOWN, 3), stock_shelves(TOWN, 3), 3)


def truth(home: Home, table: str) -> pl.DataFrame:
    return pl.read_parquet(home.truth / f"{table}.parquet")


def keys(home: Home, record_type: str, is_test: bool = False) -> set[str]:
    records = truth(home, "records").filter((pl.col("record_type") == record_type) & (pl.col("is_test") == is_test))
    return set(records["record_key"])


def accounts(home: Home) -> dict[str, Any]:
    told = (
        row
        for row in reader.json_objects(home.landing, "ecommerce", "customers_*.jsonl")
        if row["created_at"][:2] == "20"
    )
    return {str(key): row for key, row in reader.latest(told, "id", "updated_at").items()}


def members(home: Home) -> dict[str, Any]:
    rows = reader.csv_rows(home.landing, "loyalty", "members_*.csv")
    whole = (row for row in rows if re.fullmatch(r"-?\d+", row["points_balance"]))
    return reader.latest(whole, "member_id", "updated_at")


def orders(home: Home) -> list[dict[str, Any]]:
    return [order for order in reader.json_objects(home.landing, "ecommerce", "orders_*.jsonl") if not order["test"]]


def test_every_record_a_source_holds_is_in_the_truth_and_no_other(home: Home) -> None:
    assert keys(home, "account") | keys(home, "account", is_test=True) == set(accounts(home))
    assert keys(home, "member") == set(members(home))
    assert keys(home, "guest") == {order["email"] for order in orders(home) if not order["customer"]}


def test_one_record_of_one_person_stands_once(home: Home) -> None:
    records = truth(home, "records")
    assert not records.select("record_type", "record_key", "person_id").is_duplicated().any()
    mine = records.filter(pl.col("record_type") != "guest")
    assert not mine.select("record_type", "record_key").is_duplicated().any()


def test_everybody_lives_in_one_household_and_records_say_which(home: Home) -> None:
    households = truth(home, "households")
    assert len(households) == households["person_id"].n_unique() == TOWN.people
    records = truth(home, "records").filter(~pl.col("is_test")).join(households, on="person_id", how="left")
    assert records["household_id"].equals(records["household_id_right"])


def test_testers_are_nobody(home: Home) -> None:
    testers = truth(home, "records").filter("is_test")
    assert testers.select("person_id", "household_id").null_count().row(0) == (len(testers), len(testers))
    assert len(testers) == 1


def test_every_kind_of_difference_occurs_and_has_a_known_name(home: Home) -> None:
    found = set(truth(home, "records")["differences"].explode().drop_nulls())
    assert found == set(DIFFERENCES)


def test_names_that_differ_are_marked_and_marked_names_differ(home: Home, people: People) -> None:
    true = {row["person_id"]: (row["first_name"], row["last_name"]) for row in people.texts.iter_rows(named=True)}
    written = {**accounts(home), **members(home)}
    seen = {False: 0, True: 0}
    for row in (
        truth(home, "records")
        .filter(pl.col("record_type").is_in(["account", "member"]) & ~pl.col("is_test"))
        .iter_rows(named=True)
    ):
        said = written[row["record_key"]]
        marks = set(row["differences"]) & NAMES
        differs = (said["first_name"], said["last_name"]) != true[row["person_id"]]
        assert differs == bool(marks) or len(marks) > 1, (row, said)
        seen[differs] += 1
    assert min(seen.values()) > 20


def test_contacts_that_differ_are_marked(home: Home, people: People) -> None:
    true = {row["card"]: row for row in people.texts.iter_rows(named=True) if row["card"]}
    known = {row["record_key"]: set(row["differences"]) for row in truth(home, "records").iter_rows(named=True)}
    for member, said in members(home).items():
        marks, person = known[member], true[said["card_number"]]
        phone, birth_date = re.sub(r"\D", "", said["phone"]), said["birth_date"]
        assert ("1" + phone == person["phone"][1:]) == (
            not marks & {"work_phone", "missing_phone", "placeholder_phone"}
        )
        assert (birth_date == "") == ("missing_birth_date" in marks)
        assert (birth_date == "1900-01-01") == ("placeholder_birth_date" in marks)
        assert (said["email"] == "") == ("missing_email" in marks)


def test_a_lost_card_is_never_shown_again_and_its_successor_never_before(home: Home) -> None:
    records = truth(home, "records").filter(pl.col("record_type") == "member")
    joined = {row["card_number"]: row["enrolled_at"][:10] for row in members(home).values()}
    shown = defaultdict(set)
    for (*_, day), element in reader.transactions(home.landing).items():
        for card in element.iter("{*}LoyaltyCardNumber"):
            shown[card.text].add(day)
    seconds = records.filter(pl.col("differences").list.contains("duplicate_membership"))
    assert len(seconds) > 10
    for row in seconds.iter_rows(named=True):
        first = records.filter((pl.col("person_id") == row["person_id"]) & (pl.col("record_key") != row["record_key"]))[
            "card_number"
        ][0]
        day = joined[row["card_number"]]
        assert max(shown[first], default="") < day
        assert min(shown[row["card_number"]], default="9") > day


def test_an_account_links_to_one_card_at_a_time(home: Home) -> None:
    linked = [row["account_id"] for row in members(home).values() if row["account_id"]]
    assert len(linked) == len(set(linked)) > 10


def test_second_accounts_place_orders_and_answer_their_own_banner(home: Home) -> None:
    records = truth(home, "records").filter(pl.col("differences").list.contains("duplicate_account"))
    second = set(records["record_key"])
    used = {str(order["customer"]["id"]) for order in orders(home) if order["customer"]}
    assert len(used & second) > 5
    events = list(reader.json_objects(home.landing, "ecommerce", "events_*.jsonl"))
    devices = {event["anonymousId"] for event in events if event["userId"] in second}
    signals = reader.json_objects(home.landing, "consent", "web_banner_*.jsonl")
    assert devices <= {signal["identifier"]["value"] for signal in signals}
    shared = {event["anonymousId"] for event in events if event["userId"] and event["userId"] not in second}
    assert devices - shared


def test_purchases_on_a_strangers_card_are_told(home: Home) -> None:
    holder = dict(
        truth(home, "persons").filter(pl.col("identifier_type") == "card").select("identifier", "person_id").rows()
    )
    shopper = dict(truth(home, "orders").select("order_id", "person_id").rows())
    found = set()
    for key, element in reader.transactions(home.landing).items():
        order = "pos/" + "/".join(key)
        for card in element.iter("{*}LoyaltyCardNumber"):
            if order in shopper and shopper[order] != holder[card.text]:
                found.add((order, shopper[order], card.text))
    assert found == set(truth(home, "lent_cards").rows())
    assert len(found) > 5


def test_twins_namesakes_and_halls_are_what_they_are_called(people: People) -> None:
    living = people.households
    name = np.array([f"{first}/{last}" for first, last in zip(living.first, living.last, strict=True)])
    for household in np.unique(living.household[living.is_twin]):
        born = living.born[(living.household == household) & living.is_twin]
        names = name[(living.household == household) & living.is_twin]
        assert (len(set(born)), len(set(names))) == (1, 2)
    for household in np.unique(living.household[living.is_namesake]):
        two = np.flatnonzero((living.household == household) & living.is_namesake)
        assert len(set(name[two])) == 1
        assert abs(living.born[two[0]] - living.born[two[1]]) > 15 * 365
    rooms = np.flatnonzero(living.kinds() == 3)
    assert len(set(people.at[""][rooms])) == 1
    assert len(set(living.household[rooms])) == len(rooms) > 5


def test_couples_may_share_mail_phone_and_payment_and_strangers_never_do(people: People) -> None:
    texts = people.texts[: len(people)].with_columns(household=pl.Series(people.households.household))
    for column in ("email", "phone", "payment"):
        homes = texts.group_by(column).agg(homes=pl.col("household").n_unique(), persons=pl.len())
        assert homes["homes"].max() == 1
        assert homes.filter(pl.col("persons") > 1).height > 5


def test_common_names_are_common(people: People) -> None:
    count = np.bincount(drawn(np.random.default_rng(1), LAST_NAMES, 20_000), minlength=len(LAST_NAMES))
    assert count[:10].sum() > 3 * count[-100:].sum() > 0


def test_nobody_uses_what_they_do_not_have_yet(people: People) -> None:
    twice = people.duplicates
    for day in range(TOWN.days):
        acting = twice.acting(np.arange(len(people)), day)
        assert (twice.person[acting] == np.arange(len(people))).all()
        assert (twice.since[acting] <= day).all()
        assert (twice.acting(acting, day) == acting).all()
    assert (twice.acting(np.array([-1]), 3) == -1).all()


def test_without_differences_everybody_is_known_by_one_name_and_one_record_of_each_kind(tmp_path: Path) -> None:
    ours = [field.name for field in fields(TOWN)]
    ours = ours[ours.index("housemate_share") : ours.index("clerk_card_rate") + 1]
    home = Home(tmp_path)
    simulate(home, replace(TOWN, days=2, typo_rate=0, **dict.fromkeys(ours, 0)), 3)
    records = truth(home, "records").filter(~pl.col("is_test"))
    assert set(records["differences"].explode().drop_nulls()) == {
        "missing_email",
        "missing_phone",
        "unverified_email",
        "relay_email",
    }
    kinds = records.filter(~pl.col("differences").list.contains("relay_email")).select("person_id", "record_type")
    assert not kinds.is_duplicated().any()
    assert not (home.truth / "lent_cards.parquet").exists()
