import os
import random
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestration import taking
from troth.home import Home

RECEIVED = 1_772_589_600  # 2026-03-04T02:00:00Z
HEADER = "entry_id,member_id,occurred_at,entry_type,points,order_ref"


def entry(number: int, points: object = 10) -> str:
    return f"P{number},M{number % 3},2026-03-03T10:00:00Z,accumulate,{points},"


def land(home: Home, day: str, name: str, *lines: str, received: int = RECEIVED) -> Path:
    path = home.landing / "loyalty" / day / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([HEADER, *lines]) + "\n")
    os.utime(path, (received, received))
    return path


def take(home: Home) -> taking.Taking:
    return taking.take(home, taking.plan(home, "loyalty"), workers=1)


def keyed(root: Path) -> Home:
    """A home with a fixed token key, so that two homes can be compared byte by byte."""
    (root / "keys").mkdir(parents=True)
    (root / "keys" / "token.key").write_bytes(bytes(32))
    return Home(root)


def content(home: Home) -> dict[str, bytes]:
    return {
        path.relative_to(home.root).as_posix(): path.read_bytes()
        for folder in (home.raw, home.quarantine)
        for path in sorted(folder.rglob("*.parquet"))
    }


def test_a_bad_row_is_set_aside_with_its_place_and_the_others_land(tmp_path: Path) -> None:
    home = keyed(tmp_path)
    land(home, "2026-03-03", "points_1.csv", entry(1), entry(2, "many"), entry(3))
    took = take(home)
    assert took.rows["raw_loyalty__points"] == 2
    aside = taking.quarantined(home)
    assert aside.select("table", "source_file", "record_offset", "reason_code").rows() == [
        ("raw_loyalty__points", "2026-03-03/points_1.csv", 3, "wrong_type")
    ]
    assert "many" not in aside["detail"][0]


def test_taking_again_reads_nothing(tmp_path: Path) -> None:
    home = keyed(tmp_path)
    land(home, "2026-03-03", "points_1.csv", entry(1))
    take(home)
    before = content(home)
    assert taking.plan(home, "loyalty") == []
    assert content(home) == before


def test_the_same_content_under_another_name_is_taken_once(tmp_path: Path) -> None:
    home = keyed(tmp_path)
    land(home, "2026-03-03", "points_1.csv", entry(1))
    land(home, "2026-03-03", "points_1_copy.csv", entry(1))
    land(home, "2026-03-04", "points_1.csv", entry(1))
    took = take(home)
    assert took.rows["raw_loyalty__points"] == 1
    assert took.duplicates_of["loyalty"] == 2


def test_a_file_that_was_replaced_is_read_instead_of_the_old_one(tmp_path: Path) -> None:
    home = keyed(tmp_path)
    land(home, "2026-03-03", "points_1.csv", entry(1), entry(2, "many"))
    take(home)
    land(home, "2026-03-03", "points_1.csv", entry(1), entry(2), received=RECEIVED + 60)
    take(home)
    assert pl.read_parquet(home.raw / "raw_loyalty__points" / "day=*" / "*.parquet").height == 2
    assert taking.quarantined(home).is_empty()


def test_quarantine_of_one_source_survives_taking_another(tmp_path: Path) -> None:
    home = keyed(tmp_path)
    land(home, "2026-03-03", "points_1.csv", entry(1, "many"))
    take(home)
    other = home.landing / "wms" / "2026-03-03" / "picks_1.csv"
    other.parent.mkdir(parents=True)
    other.write_text("nonsense\n")
    taking.take(home, taking.plan(home, "wms"), workers=1)
    assert "raw_loyalty__points" in taking.quarantined(home)["table"].to_list()


def test_a_file_of_no_known_kind_is_reported(tmp_path: Path) -> None:
    home = keyed(tmp_path)
    land(home, "2026-03-03", "holiday.jpg", "x")
    take(home)
    assert taking.quarantined(home)["reason_code"].to_list() == ["unknown_file"]


def test_a_crash_before_the_record_is_repaired_by_reading_again(tmp_path: Path) -> None:
    home = keyed(tmp_path)
    land(home, "2026-03-03", "points_1.csv", entry(1), entry(2, "many"))
    take(home)
    whole = content(home)
    (home.taken / "loyalty" / "2026-03-03.json").unlink()
    take(home)
    assert content(home) == whole


def test_replay_lands_rows_once_the_fault_is_mended(tmp_path: Path) -> None:
    home = keyed(tmp_path)
    land(home, "2026-03-03", "points_1.csv", entry(1), entry(2, "many"))
    take(home)
    plans = taking.replan(home, "loyalty")
    assert [file.path for plan in plans for file in plan.read] == ["points_1.csv"]
    before = content(home)
    taking.take(home, plans, workers=1)
    assert content(home) == before


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**16))
def test_files_in_any_order_and_any_number_of_runs_give_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    files = [
        ("2026-03-03", "points_1.csv", [entry(1), entry(2, "many")]),
        ("2026-03-03", "points_2.csv", [entry(3), entry(4)]),
        ("2026-03-04", "points_1.csv", [entry(5), "a,b"]),
        ("2026-03-04", "points_late.csv", [entry(1)]),
    ]
    at_once, in_pieces = keyed(tmp_path_factory.mktemp("a")), keyed(tmp_path_factory.mktemp("b"))
    for day, name, lines in files:
        land(at_once, day, name, *lines)
    take(at_once)
    shuffled = random.Random(seed).sample(files, len(files))
    for day, name, lines in shuffled:
        land(in_pieces, day, name, *lines)
        if seed % 3:
            take(in_pieces)
    take(in_pieces)
    assert content(in_pieces) == content(at_once)
