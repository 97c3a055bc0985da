"""`troth identity` on a small retailer: asked, explained, decided, undone, and taken with the next run."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import Result
from typer.testing import CliRunner

from orchestration import stages, taking
from orchestration.catalog import SOURCES
from orchestration.cli import app
from orchestration.errors import MISUSE, RunError
from orchestration.identities import LINKS, MEMBERS, RECORDS, evidence_of, joining_standing, resolve_identities
from orchestration.raw import raw_rows, read_table, write_table
from simulator import TINY, simulate
from troth.clock import FixedClock
from troth.home import Home

RUNNER = CliRunner()
WHY = ("--actor", "kim", "--reason", "both were here and said so")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A retailer with customers resolved."""
    home = Home(tmp_path_factory.mktemp("identity"))
    simulate(home, replace(TINY, people=300, days=3), 7, lambda *_: None)
    shutil.rmtree(home.truth)  # a retailer whose clock goes on
    run(home)
    return home


@pytest.fixture
def home(first: Home, tmp_path: Path) -> Home:
    """A copy of it to decide in."""
    return Home(Path(shutil.copytree(first.root, tmp_path / "home")))


def run(home: Home) -> None:
    """As much of a run as identity needs."""
    taking.take(home, [plan for source in SOURCES for plan in taking.plan(home, source.name)], workers=1)
    until = stages.known_until(home)
    stages.append_consents(home, FixedClock(until), lambda *_: None)
    resolve_identities(home, until, lambda *_: None)


def command(home: Home, *said: str) -> Result:
    found: Result = RUNNER.invoke(app, ["identity", *said, "--home", str(home.root)])
    return found


def told(home: Home, *said: str) -> Any:
    found = command(home, *said, "--json")
    assert found.exit_code == 0, (found.output, found.exception)
    return json.loads(found.stdout)


def refused(home: Home, *said: str) -> str:
    error = command(home, *said).exception
    assert isinstance(error, RunError), error
    assert error.code == MISUSE
    return str(error)


def links_of(home: Home) -> pl.DataFrame:
    found = read_table(home, LINKS)
    assert found is not None
    return found


def pair(home: Home, decision: str) -> tuple[str, str]:
    """Two records of which that was decided, alone in their groups."""
    return (
        links_of(home)
        .filter(decision=decision)
        .sort("probability", descending=True)
        .select("first_ref", "second_ref")
        .row(0)
    )


def customers(home: Home, *refs: str) -> list[str]:
    members = read_table(home, MEMBERS)
    assert members is not None
    return [members.filter(identity_ref=ref)["customer_id"][0] for ref in refs]


def test_the_queue_is_in_the_order_of_worth_and_loses_what_was_decided(home: Home) -> None:
    before = told(home, "queue", "--limit", "1000")
    worths = [row["worth"] for row in before["queue"]]
    assert worths == sorted(worths, reverse=True)
    assert before["open"] == len(worths) > 0
    assert {row["now"] for row in before["queue"]} <= {"joined", "outweighed", "below_the_bar"}
    top = before["queue"][0]
    told(home, "forbid", top["first_ref"], top["second_ref"], *WHY)
    after = told(home, "queue", "--limit", "1000")
    assert after["open"] == before["open"] - 1
    assert (top["first_ref"], top["second_ref"]) not in [
        (row["first_ref"], row["second_ref"]) for row in after["queue"]
    ]


def test_a_forbid_parts_two_with_the_next_run_and_its_undo_joins_them_again(home: Home) -> None:
    one, other = pair(home, "joined")
    assert told(home, "explain", one, other)["is_joined"]
    foreseen = told(home, "forbid", one, other, *WHY, "--dry-run")
    assert foreseen["is_dry_run"]
    assert not (home.landing / "steward").exists()
    decided = told(home, "forbid", one, other, *WHY)
    assert decided["when"] == "takes effect with the next `troth run`"
    assert told(home, "explain", one, other)["outcome"] == "pending"
    run(home)
    assert len({*customers(home, one, other)}) == 2
    parted = told(home, "explain", one, other)
    assert (parted["outcome"], parted["steward"]["decision_id"]) == ("forbidden", decided["decision_id"])
    happened = told(home, "changes")
    assert happened["customers"] == foreseen["customers"]
    assert happened["identifiers_moved"] == foreseen["identifiers_moved"]
    told(home, "undo", decided["decision_id"], *WHY)
    assert "expected one that stands" in refused(home, "undo", decided["decision_id"], *WHY)
    run(home)
    assert len({*customers(home, one, other)}) == 1
    last = told(home, "changes", "--customer", customers(home, one)[0])["changes"][-1]
    assert last["change_type"] == "merged"


def test_a_link_joins_only_who_said_yes(home: Home) -> None:
    one, other = pair(home, "not_allowed")
    nothing = told(home, "link", one, other, *WHY, "--dry-run")
    assert nothing["identifiers_moved"] == 0
    assert "did not say yes" in nothing["why_nothing"]
    low = pair(home, "below_the_bar")
    assert told(home, "link", *low, *WHY, "--dry-run")["customers"]["merged"] == 1
    told(home, "link", *low, *WHY)
    told(home, "link", one, other, *WHY)
    run(home)
    assert len({*customers(home, *low)}) == 1
    assert told(home, "explain", *low)["outcome"] == "forced"
    assert told(home, "explain", one, other)["outcome"] == "not_allowed"
    shown = told(home, "show", low[0])
    assert [each["decision_type"] for each in shown["decisions"]] == ["link"]
    forced = shown["links"][0]
    assert {forced["first_ref"], forced["second_ref"]} == {*low}
    assert (forced["link_type"], forced["actor_id"], forced["reason"]) == ("forced", "kim", WHY[-1])
    assert forced["decision_id"] == shown["decisions"][0]["decision_id"]
    step = told(home, "explain", *low)["chain"][0]
    assert (step["how"], step["steward"]["decision_id"]) == ("forced", forced["decision_id"])
    gone = next(each["from_customer_id"] for each in shown["changes"] if each["change_type"] == "merged")
    followed = told(home, "show", gone)
    assert (followed["is_current"], followed["became"]) == (False, [shown["customer_id"]])


def unenrolled(home: Home) -> str:
    """A card that only tills have seen from now on: the scheme never told of the member who said yes with it."""
    members = read_table(home, MEMBERS)
    assert members is not None
    shown = raw_rows(home, "raw_pos__transactions", ["loyalty_card_ref"])["loyalty_card_ref"]
    until = stages.known_until(home)
    evidence = evidence_of(home, until)
    allowed = joining_standing(home, evidence.proved, until, evidence.together).filter("is_allowed")["group_ref"]
    alone = pl.len().over("customer_id") == 1
    cards = members.filter(alone, pl.col("identity_ref").is_in(shown.implode()), identity_type="card", is_test=False)
    card = str(cards.filter(pl.col("identity_ref").is_in(allowed.implode()))["identity_ref"].sort()[0])
    for path in (home.raw / "raw_loyalty__members").glob("**/*.parquet"):
        pl.read_parquet(path).filter(pl.col("card_ref").ne_missing(card)).write_parquet(path)
    run(home)
    return card


def test_a_card_that_only_tills_have_seen_is_linked_and_explained_and_let_go(home: Home) -> None:
    card = unenrolled(home)
    members = read_table(home, MEMBERS)
    records = read_table(home, RECORDS)
    assert members is not None
    assert records is not None
    assert members.filter(identity_ref=card).select("identity_type", "source_name").row(0) == ("card", "pos")
    assert card not in records["record_id"]
    one, other = pair(home, "below_the_bar")
    assert told(home, "explain", card, one)["outcome"] == "nothing_to_compare"
    assert told(home, "link", card, one, *WHY, "--dry-run")["customers"] == {"merged": 1}
    decided = told(home, "link", card, one, *WHY)
    assert told(home, "explain", card, one)["outcome"] == "pending"
    before = told(home, "queue", "--limit", "1000")
    run(home)
    assert len({*customers(home, card, one)}) == 1
    joined = told(home, "explain", card, one)
    assert (joined["outcome"], joined["comparison"]) == ("forced", None)
    assert [link["how"] for link in joined["chain"]] == ["forced"]
    row = links_of(home).filter(decision="forced").row(0, named=True)
    assert {row["first_ref"], row["second_ref"]} == {card, one}
    assert (row["decision_id"], row["actor_id"], row["reason"]) == (decided["decision_id"], *WHY[1::2])
    shown = told(home, "show", card)
    assert shown["links"][0]["link_type"] == "forced"
    assert "forced" in {each["link_type"] for each in shown["identifiers"]}
    assert told(home, "queue", "--limit", "1000")["open"] == before["open"]
    assert "said it already" in refused(home, "link", one, card, *WHY)
    told(home, "forbid", card, other, *WHY)
    assert told(home, "undo", decided["decision_id"], *WHY, "--dry-run")["customers"] == {"split": 1}
    told(home, "undo", decided["decision_id"], *WHY)
    run(home)
    assert len({*customers(home, card, one)}) == 2


def test_a_card_of_the_till_is_not_linked_to_who_did_not_say_yes(home: Home) -> None:
    card = unenrolled(home)
    asked = [told(home, "explain", card, ref)["second"] for ref in pair(home, "not_allowed")]
    refusing = next(who["identity_ref"] for who in asked if not who["may_be_joined"])
    assert "did not say yes" in told(home, "link", card, refusing, *WHY, "--dry-run")["why_nothing"]
    told(home, "link", card, refusing, *WHY)
    run(home)
    explained = told(home, "explain", card, refusing)
    assert (explained["outcome"], explained["is_joined"]) == ("not_allowed", False)
    assert "a steward linked them" in explained["sentence"]


def test_a_forbid_parts_what_a_source_proved(home: Home) -> None:
    members = read_table(home, MEMBERS)
    assert members is not None
    card = members.filter(identity_type="card", link_type="deterministic", hub_identity_type="account").row(
        0, named=True
    )
    assert told(home, "explain", card["identity_ref"], card["hub_identity_ref"])["outcome"] == "proved"
    assert "Nothing is left to decide" in refused(home, "link", card["identity_ref"], card["hub_identity_ref"], *WHY)
    told(home, "forbid", card["identity_ref"], card["hub_identity_ref"], *WHY)
    run(home)
    assert len({*customers(home, card["identity_ref"], card["hub_identity_ref"])}) == 2


def test_an_explanation_on_a_terminal_says_the_sentence_and_draws_the_fields(first: Home) -> None:
    one, other = pair(first, "joined")
    found = command(first, "explain", one, other)
    assert found.exit_code == 0
    assert found.stdout.startswith("Joined")
    assert all(part in found.stdout for part in ("first name", "so far", "│", "keys shared", one, other))
    customer = customers(first, one)[0]
    assert customer in command(first, "explain", customer).stdout
    assert told(first, "explain", customer)["links"]


def test_an_explanation_from_what_the_run_kept_is_that_from_all_records(home: Home) -> None:
    asked = [pair(home, decision) for decision in ("joined", "below_the_bar", "not_allowed")]
    asked.append((asked[0][0], asked[1][1]))
    quick = [told(home, "explain", *two) for two in asked]
    records = read_table(home, RECORDS)
    assert records is not None
    write_table(home, RECORDS, records.drop("shared", "too_common"))  # as a run kept it before there was such a memory
    assert [told(home, "explain", *two) for two in asked] == quick


def test_clear_text_needs_a_reason_and_leaves_a_trace(home: Home) -> None:
    one, other = pair(home, "joined")
    assert all(step["clear"] is None for step in told(home, "explain", one, other)["comparison"]["fields"])
    assert not (home.landing / "steward").exists()
    seen = told(home, "explain", one, other, "--reveal", *WHY)
    assert next(step["clear"] for step in seen["comparison"]["fields"] if step["field"] == "last_name")[0]
    run(home)
    looks = pl.read_parquet(home.raw / "raw_steward__reveals" / "**/*.parquet")
    assert looks.select("actor_id", "reason").rows() == [("kim", WHY[-1])]
    assert {looks["first_ref"][0], looks["second_ref"][0]} == {one, other}


def test_an_identifier_in_clear_is_understood_and_not_echoed(first: Home) -> None:
    vault = pl.read_parquet(first.raw / "raw_ecommerce__customers" / "**/*.parquet").filter(pl.col("is_email_verified"))
    members = read_table(first, MEMBERS)
    assert members is not None
    known = vault.join(members, left_on="email_ref", right_on="identity_ref").row(0, named=True)
    for said in (known["email"].upper(), f"email:{known['email']}", known["email_ref"]):
        found = command(first, "show", said)
        assert found.exit_code == 0
        assert known["customer_id"] in found.stdout
        assert known["email"].lower() not in found.stdout.lower()
    text = refused(first, "show", "nobody.knows@example.com")
    assert "nobody.knows" not in text


def test_what_could_not_take_effect_is_refused(home: Home) -> None:
    members = read_table(home, MEMBERS)
    assert members is not None
    one, other = pair(home, "joined")
    assert "expected an id of staff" in refused(
        home, "link", one, other, "--actor", "kim@example.com", "--reason", "they said so"
    )
    assert "found one" in refused(home, "forbid", one, one, *WHY)
    assert "found one identifier" in refused(home, "explain", one)
    assert "expected one that some run knew" in refused(home, "show", "cus_" + "0" * 22)
    told(home, "forbid", one, other, *WHY)
    assert re.search("dec_[0-9a-f]{16} said it already", refused(home, "forbid", other, one, *WHY))


def test_the_model_is_shown_and_trained_without_being_used_until_adopted(home: Home) -> None:
    assert told(home, "model")["version"] == "unlearned"
    dry = told(home, "train", "--dry-run")
    assert (dry["version"], dry["in_use"]) == (None, "unlearned")
    assert dry["records"] > 0
    kept = told(home, "train")
    assert kept["in_use"] == "unlearned"
    assert (kept["customers"], kept["identifiers_moved"]) == (dry["customers"], dry["identifiers_moved"])
    used = told(home, "train", "--adopt")
    assert used["in_use"] == used["version"] == kept["version"]
    shown = told(home, "model")
    assert shown["version"] == used["version"]
    assert {"field", "level", "bits_against_strangers"} <= shown["weights"][0].keys()
    run(home)
    happened = told(home, "changes")
    assert happened["identifiers_moved"] == kept["identifiers_moved"]
