"""What stewards decide: how it is read, which word is the last, and what is refused as input."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from orchestration import taking
from orchestration.catalog import SOURCES
from orchestration.cli import app
from orchestration.deciding import checked_words, land, landed_decisions
from orchestration.errors import MISUSE, RunError
from orchestration.explained import HALF, bar
from orchestration.identities import decisions_of, last_words
from orchestration.rights.held import held
from orchestration.sources.steward import DECISIONS, REVEALS, read_decisions, read_reveals
from serving.rights.persons import Person
from troth.home import Home

AT = datetime(2026, 3, 2, 9, tzinfo=UTC)
ANNA, BEA, CLEO = (f"account_{letter * 22}" for letter in "abc")
RUNNER = CliRunner()


def decision(number: int, kind: str = "link", first: str = ANNA, second: str = BEA, **other: Any) -> dict[str, Any]:
    return {
        "decision_id": f"dec_{number}", "decided_at": (AT + timedelta(minutes=number)).isoformat(), "decision_type": kind,
        "first_ref": first, "second_ref": second, "actor_id": "kim", "reason": "seen together", **other,
    }  # fmt: skip


def frame(rows: list[dict[str, Any]]) -> pl.DataFrame:
    names = [column.name for column in DECISIONS.columns]
    given_ = [{**row, "decided_at": datetime.fromisoformat(row["decided_at"])} for row in rows]
    return pl.DataFrame(given_, schema={name: DECISIONS.schema[name] for name in names})


def write(path: Path, *lines: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n")
    return path


def take(home: Home) -> None:
    taking.take(home, [plan for source in SOURCES for plan in taking.plan(home, source.name)], workers=1)


def test_a_decision_is_a_row_and_a_line_that_is_none_is_set_aside(tmp_path: Path) -> None:
    home = Home(tmp_path)
    day = home.landing / "steward" / "2026-03-02"
    lines = (
        decision(1),
        "{",
        decision(2, second=ANNA),
        decision(3, "marry"),
        decision(4, actor_id=None),
        decision(5, "undo"),
    )
    write(day / "decisions_a.jsonl", *lines)
    write(day / "notes.jsonl", {})
    take(home)
    aside = taking.quarantined(home, DECISIONS.table).select("record_offset", "reason_code").rows()
    assert sorted(aside) == [
        (0, "unknown_file"),
        (2, "not_json"),
        (3, "same_identifier"),
        (4, "unknown_code"),
        (5, "missing_value"),
    ]
    assert decisions_of(home).height == 0  # the link was undone
    assert landed_decisions(home)["decision_id"].to_list() == ["dec_1", "dec_5"]


def test_looks_are_rows_of_their_own(tmp_path: Path) -> None:
    look = {
        "reveal_id": "look_1",
        "revealed_at": AT.isoformat(),
        "first_ref": ANNA,
        "second_ref": BEA,
        "actor_id": "kim",
        "reason": "asked",
    }
    found = read_reveals(write(tmp_path / "reveals_a.jsonl", look)).frames[REVEALS.table]
    assert found.select(look.keys()).row(0, named=True) == look
    assert read_decisions(write(tmp_path / "decisions_a.jsonl", "")).frames[DECISIONS.table].height == 0


PAIRS = ((ANNA, BEA), (BEA, ANNA), (ANNA, CLEO), (BEA, CLEO))
SAID = st.lists(st.tuples(st.sampled_from(("link", "forbid", "undo")), st.sampled_from(PAIRS)), max_size=12)


@given(SAID, st.randoms(use_true_random=False))
def test_only_the_last_word_on_a_pair_counts_in_whatever_order_decisions_arrive(said: list[Any], chance: Any) -> None:
    rows = [decision(number, kind, *pair) for number, (kind, pair) in enumerate(said)]
    wanted: dict[frozenset[str], str] = {}
    for kind, pair in said:
        wanted[frozenset(pair)] = kind
    shuffled = list(rows)
    chance.shuffle(shuffled)
    found = last_words(frame(shuffled))
    assert found.equals(last_words(frame(rows)))
    told = {frozenset((row["first_ref"], row["second_ref"])): row["decision_type"] for row in found.to_dicts()}
    assert told == {pair: kind for pair, kind in wanted.items() if kind != "undo"}
    assert found["decided_at"].is_sorted()


def test_a_decision_is_known_from_the_moment_it_was_received(tmp_path: Path) -> None:
    home = Home(tmp_path)
    land(home, AT, "decisions_1", decision(1))
    land(home, AT + timedelta(days=2), "decisions_2", decision(2, "forbid"))
    take(home)
    assert decisions_of(home, AT)["decision_type"].to_list() == ["link"]
    assert decisions_of(home, AT + timedelta(days=2))["decision_type"].to_list() == ["forbid"]
    assert decisions_of(home)["decision_type"].to_list() == ["forbid"]


def test_a_home_in_which_stewards_had_no_say_yet_has_no_decisions(tmp_path: Path) -> None:
    assert decisions_of(Home(tmp_path)).height == landed_decisions(Home(tmp_path)).height == 0


def test_what_stewards_said_of_a_person_is_the_persons(tmp_path: Path) -> None:
    home = Home(tmp_path)
    land(home, AT, "decisions_1", decision(1))
    land(home, AT, "decisions_2", decision(2, first=BEA, second=CLEO))
    take(home)
    found = held(home, Person(("cus_a",), (ANNA,), ()))
    assert found.rows[DECISIONS.table]["decision_id"].to_list() == ["dec_1"]


@pytest.mark.parametrize(
    ("actor", "reason", "found"),
    [
        ("", "they came together", "an id of staff"),
        ("kim@example.com", "they came together", "an id of staff"),
        ("kim", " ", "expected words"),
        ("kim", "it is anna@example.com", "without contact data"),
        ("kim", "her number is 518 555 0101", "without contact data"),
    ],
)
def test_a_word_needs_an_actor_and_a_reason_that_names_nobody(actor: str, reason: str, found: str) -> None:
    with pytest.raises(RunError, match=found) as refused:
        checked_words(actor, reason)
    assert refused.value.code == MISUSE
    assert "anna" not in str(refused.value)
    checked_words("kim.l-2", "both cards were shown at one till, 2 March")


@pytest.mark.parametrize(
    "said",
    [
        ["link", ANNA, BEA], ["link", ANNA, BEA, "--actor", "kim"], ["forbid", ANNA, "--actor", "kim", "--reason", "why"],
        ["explain", ANNA, BEA, "--reveal"], ["explain", ANNA, BEA, "--reason", "why"], ["explain", ANNA, BEA, "--reveal", "--reason", "why"],
        ["queue", "--limit", "0"], ["changes", "--since", "yesterday"], ["train", "--adopt", "--dry-run"], ["undo"],
    ],
)  # fmt: skip
def test_what_cannot_be_meant_ends_with_2(said: list[str], tmp_path: Path) -> None:
    assert RUNNER.invoke(app, ["identity", *said, "--home", str(tmp_path)]).exit_code == MISUSE


@pytest.mark.parametrize(
    "said", [["show", ANNA], ["queue"], ["train"], ["link", ANNA, BEA, "--actor", "kim", "--reason", "why not"]]
)
def test_before_the_first_run_there_is_nobody(said: list[str], tmp_path: Path) -> None:
    refused = RUNNER.invoke(app, ["identity", *said, "--home", str(tmp_path)]).exception
    assert isinstance(refused, RunError)
    assert "Run `troth run` first" in str(refused)


@given(st.floats(-40, 40), st.floats(1, 40))
def test_a_bar_is_as_wide_as_all_others_and_on_the_side_it_speaks_for(bits: float, most: float) -> None:
    drawn = bar(bits, most)
    left, _, right = drawn.partition("│")
    assert (len(left), len(right)) == (HALF, HALF)
    assert not (left if bits >= 0 else right).strip()
