"""Files that are wrong in one place, in every native format: the rest lands, and what does not is in quarantine with its place.

Each case takes a simulated file, breaks it, and reads it as a run does. Readers' own tests go into the details.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl
import pytest

from orchestration import taking
from orchestration.sources.mapped import land_mapped, load_mapping
from simulator import TINY, simulate
from troth.home import Home
from troth.ids import file_hash

ROOT = Path(__file__).resolve().parents[2]
DAY = "2026-03-03"
SPOTLESS = replace(
    TINY, days=2, duplicated_record_rate=0, malformed_record_rate=0, held_back_record_rate=0, resent_file_rate=0, late_file_rate=0,
    out_of_order_file_rate=0,
)  # fmt: skip
HUGE = b"x" * 200_000
Damage = Callable[[bytes], bytes]


def swapped(pattern: bytes, new: bytes) -> Damage:
    """The match nearest to the middle of the file replaced."""

    def damage(data: bytes) -> bytes:
        found = min(re.finditer(pattern, data), key=lambda match: abs(match.start() - len(data) // 2))
        return data[: found.start()] + found.expand(new) + data[found.end() :]

    return damage


def cut(data: bytes) -> bytes:
    """The last third lost, not at the end of a line."""
    stop = len(data) * 2 // 3
    return data[: stop - 1 if data[stop - 1 : stop] == b"\n" else stop]


def widened(data: bytes) -> bytes:
    """A column more in every line of a CSV."""
    header, *lines = data.splitlines()
    return b"\n".join([header + b",mood", *(line + b",sunny" for line in lines), b""])


@dataclass(frozen=True)
class Format:
    """A kind of file and where it breaks: a piece of text, a number, and how a field nobody knows is added."""

    source: str
    file: str
    text: bytes
    number: tuple[bytes, bytes]
    unknown: Damage | None
    huge: tuple[bytes, bytes]

    @property
    def is_x12(self) -> bool:
        return self.file.endswith(".edi")


FORMATS = {
    "POSLog": Format(
        "pos", f"poslog_1_{DAY}.xml", rb"(<Description>)\w", (rb"<Quantity>\d+<", rb"<Quantity>two<"),
        swapped(rb"<ItemID>", rb"<Mood>sunny</Mood><ItemID>"), (rb"<OperatorID>", b"<OperatorID>" + HUGE),
    ),
    "orders": Format(
        "ecommerce", f"orders_{DAY}.jsonl", rb'("email":")\w', (rb'"total_tax":"[^"]*"', rb'"total_tax":"some"'),
        swapped(rb'"currency":', rb'"mood":"sunny","currency":'), (rb'"name":"#', b'"name":"' + HUGE),
    ),
    "EPCIS": Format(
        "wms", f"epcis_{DAY}_1.json", rb'("disposition":")\w', (rb'"eventTime":"[^"]*"', rb'"eventTime":"noon"'),
        swapped(rb'"recordTime":', rb'"mood":"sunny","recordTime":'), (rb'"disposition":"', b'"disposition":"' + HUGE),
    ),
    "X12 846": Format(
        "wms", f"846_DC1_{DAY}.edi", rb"(UK\*)\d", (rb"QTY\*17\*\d+", rb"QTY*17*many"), None,
        (rb"SK\*SKU", b"SK*" + HUGE),
    ),
    "X12 945": Format(
        "wms", f"945_DC1_{DAY}.edi", rb"(MAN\*CP\*)\w", (rb"W12\*CL\*\d+", rb"W12*CL*many"), None,
        (rb"MAN\*CP\*", b"MAN*CP*" + HUGE),
    ),
    "picks": Format(
        "wms", f"picks_{DAY}.csv", rb"(,S00)\d", (rb",\d,\d,picked", rb",one,1,picked"), widened, (rb"\n(PK\d+),#", rb"\n\1," + HUGE),
    ),
    "points": Format(
        "loyalty", f"points_{DAY}.csv", rb"(,M0)\d", (rb"accumulate,\d+", rb"accumulate,many"), widened,
        (rb"(accumulate,\d+,)", rb"\1" + HUGE),
    ),
    "consent": Format(
        "consent", f"web_banner_{DAY}.jsonl", rb'("jurisdiction":")\w', (rb'"occurredAt":"[^"]*"', rb'"occurredAt":"noon"'),
        swapped(rb'"place":', rb'"mood":"sunny","place":'), (rb'"language":"', b'"language":"' + HUGE),
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def landed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The landing folder of a small retailer without faults."""
    home = Home(tmp_path_factory.mktemp("spotless"))
    simulate(home, SPOTLESS, 3)
    return home.landing


def keyed(root: Path) -> Home:
    (root / "keys").mkdir(parents=True)
    (root / "keys" / "token.key").write_bytes(bytes(32))
    return Home(root)


@dataclass(frozen=True)
class Taken:
    """What came of one landed file."""

    rows: dict[str, pl.DataFrame]
    aside: pl.DataFrame
    took: taking.Taking


def taken(root: Path, source: str, **files: bytes) -> Taken:
    """Land files under one day and take them as a run does."""
    home = keyed(root)
    folder = home.landing / source / DAY
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
        os.utime(folder / name, (1_772_600_000, 1_772_600_000))
    took = taking.take(home, taking.plan(home, source), workers=1)
    rows = {
        path.parent.parent.name: pl.read_parquet(path).drop("file_hash")
        for path in sorted(home.raw.glob("*/day=*/data.parquet"))
    }
    aside = taking.quarantined(home)
    for row in aside.iter_rows(named=True):
        assert row["source_file"].startswith(f"{DAY}/")
        assert row["file_hash"] == file_hash(home.landing / source / row["source_file"])
    assert aside.null_count().select(pl.exclude("detail")).sum_horizontal().item() == 0
    counted = {table: sum(reasons.values()) for table, reasons in took.aside.items()}
    assert counted == dict(aside["table"].value_counts().iter_rows())
    assert {table: rows[table].height for table in rows} == {
        table: count for table, count in took.rows.items() if count
    }
    return Taken(rows, aside, took)


def lost(clean: Taken, broken: Taken) -> dict[str, set[int]]:
    """Places of the records that landed from the clean file and not, or otherwise, from the broken one."""
    missing = {}
    for table, rows in clean.rows.items():
        found = broken.rows.get(table, rows.clear())
        gone = rows.join(found, on=rows.columns, how="anti", nulls_equal=True)
        if gone.height:
            missing[table] = set(gone["record_offset"])
    return missing


@dataclass(frozen=True)
class Case:
    """A format, its clean file, and what comes of it."""

    form: Format
    data: bytes
    clean: Taken

    def after(self, root: Path, damage: Damage) -> Taken:
        return taken(root, self.form.source, **{self.form.file: damage(self.data)})


@pytest.fixture(scope="module", params=FORMATS)
def case(request: pytest.FixtureRequest, landed: Path, tmp_path_factory: pytest.TempPathFactory) -> Case:
    form = FORMATS[request.param]
    data = (landed / form.source / DAY / form.file).read_bytes()
    clean = taken(tmp_path_factory.mktemp("clean"), form.source, **{form.file: data})
    assert clean.aside.is_empty()
    assert clean.rows
    return Case(form, data, clean)


def assert_one_record_lost(case: Case, broken: Taken, reason: str) -> None:
    """Rows of one record are gone and nothing else; X12 is lost by transaction set, where the damage is to more than a value."""
    gone = lost(case.clean, broken)
    assert gone
    assert set(broken.aside["reason_code"]) == {reason}
    if not case.form.is_x12 or reason == "wrong_type":
        assert all(len(places) == 1 for places in gone.values()), gone
    assert len(set(broken.aside.select("table", "record_offset").rows())) == 1
    for table, rows in broken.rows.items():
        assert rows.join(case.clean.rows[table], on=rows.columns, how="anti", nulls_equal=True).is_empty()


def test_a_value_of_the_wrong_type_is_set_aside_with_its_record_alone(case: Case, tmp_path: Path) -> None:
    assert_one_record_lost(case, case.after(tmp_path, swapped(*case.form.number)), "wrong_type")


def test_bytes_that_are_no_text_are_set_aside_with_their_record_alone(case: Case, tmp_path: Path) -> None:
    assert_one_record_lost(case, case.after(tmp_path, swapped(case.form.text, rb"\1" + b"\xff\xfe")), "wrong_encoding")


def test_a_huge_field_costs_its_record_and_no_other(case: Case, tmp_path: Path) -> None:
    assert_one_record_lost(case, case.after(tmp_path, swapped(*case.form.huge)), "too_long")


def test_of_a_file_cut_short_every_whole_record_lands(case: Case, tmp_path: Path) -> None:
    broken = case.after(tmp_path, cut)
    assert set(broken.aside["reason_code"]) <= {"truncated", "not_json", "ragged_row"}
    assert broken.aside.height == 1
    for table, rows in broken.rows.items():
        assert rows.equals(
            case.clean.rows[table].filter(pl.col("record_offset").is_in(rows["record_offset"].implode()))
        )
        assert rows["record_offset"].max() < case.clean.rows[table]["record_offset"].max()  # type: ignore[operator]
    assert broken.rows or case.data.count(b"ST*") == 1


def test_a_field_nobody_knows_costs_no_row(case: Case, tmp_path: Path) -> None:
    if case.form.unknown is None:
        return  # a segment is known by its position: there is no such field
    more = case.after(tmp_path, case.form.unknown)
    assert lost(case.clean, more) == {}
    assert set(more.aside["reason_code"]) <= {"unknown_column"}


def test_a_file_sent_again_under_another_name_is_counted_and_read_once(case: Case, tmp_path: Path) -> None:
    name = case.form.file
    again = taken(tmp_path, case.form.source, **{name: case.data, name.replace(DAY, f"{DAY}_again"): case.data})
    assert again.took.files_of[case.form.source] == 2
    assert again.took.duplicates_of[case.form.source] == 1
    assert lost(case.clean, again) == {}
    assert again.took.rows == case.clean.took.rows


def mapped(root: Path, *lines: str) -> Home:
    """The tea house's export, landed through its mapping."""
    home = keyed(root / "home")
    export = root / "tea.csv"
    export.write_text("".join(lines))
    land_mapped(home, load_mapping(ROOT / "examples" / "tea_house.yml"), export)
    return home


def take(home: Home) -> taking.Taking:
    return taking.take(home, taking.plan(home, "ecommerce"), workers=1)


def test_of_a_mapped_export_the_row_that_is_wrong_is_set_aside_alone(tmp_path: Path) -> None:
    lines = (ROOT / "examples" / "tea_house.csv").read_text().splitlines(keepends=True)
    clean, broken = mapped(tmp_path / "clean", *lines), mapped(tmp_path / "broken", *lines[:2], lines[2].replace(";1;", ";one;"), *lines[3:])  # fmt: skip
    rows = [take(home).rows["raw_ecommerce__order_lines"] for home in (clean, broken)]
    aside = [taking.quarantined(home).height for home in (clean, broken)]
    assert (rows[1] - rows[0], aside[1] - aside[0]) == (-1, 1)


def test_a_mapped_file_that_is_damaged_is_set_aside_whole_and_the_other_days_land(tmp_path: Path) -> None:
    home = mapped(tmp_path, *(ROOT / "examples" / "tea_house.csv").read_text().splitlines(keepends=True))
    first, *others = sorted((home.landing / "ecommerce").glob("*/*.parquet"))
    first.write_bytes(first.read_bytes()[:-20])
    took = take(home)
    aside = taking.quarantined(home).filter(pl.col("source_file") == f"{first.parent.name}/{first.name}")
    assert set(aside["reason_code"]) == {"unreadable_file"}
    assert others
    assert took.rows["raw_ecommerce__order_lines"] > 0


def troth(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "orchestration.cli", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


TEA = "examples/tea_house"


@pytest.mark.parametrize(
    ("code", "said", "arguments"),
    [
        (3, "landed files: expected some under", ["run", "--no-sample"]),
        (2, "expected one --source SOURCE=FILE together with --mapping FILE", ["run", "--source", f"ecommerce={TEA}.csv"]),
        (2, "expected --source ecommerce=FILE for mapping tea_house.yml, found pos", ["run", "--source", f"pos={TEA}.csv", "--mapping", f"{TEA}.yml"]),
        (2, "expected a file at gone.csv, found none", ["run", "--source", "ecommerce=gone.csv", "--mapping", f"{TEA}.yml"]),
        (1, "gone.yml, file: expected a YAML file, found", ["run", "--source", f"ecommerce={TEA}.csv", "--mapping", "gone.yml"]),
        (1, "source: expected one of pos, ecommerce, wms, loyalty, consent, steward, stock, found cinema", ["quarantine", "replay", "cinema"]),
        (1, "Run `troth run` first", ["ask", "customer", "cus_nobody"]),
    ],
)  # fmt: skip
def test_a_command_that_cannot_be_done_says_what_was_expected(
    code: int, said: str, arguments: list[str], tmp_path: Path
) -> None:
    home = tmp_path / "home"
    done = troth(*arguments, "--home", str(home))
    assert done.returncode == code
    assert said in " ".join(done.stderr.split())
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert not home.exists()


def test_a_run_in_which_nothing_can_be_read_says_so_as_often_as_it_is_asked(tmp_path: Path) -> None:
    """The second run finds nothing new; what the first could not use is still not all right."""
    for source, name, content in (
        ("pos", "poslog_1_2026-03-03.xml", b"this is not a receipt"),
        ("consent", "web_banner_2026-03-03.jsonl", b"\xfa\xfb\n" * 40),
    ):
        path = tmp_path / "landing" / source / "2026-03-03" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
    for _ in range(2):
        done = troth("run", "--home", str(tmp_path))
        assert done.returncode == 3
        assert "expected rows that can be read, found none" in done.stderr
        assert "Traceback" not in done.stderr
    listed = troth("quarantine", "list", "--home", str(tmp_path), "--json")
    assert {row["reason_code"] for row in json.loads(listed.stdout)["rows"]} == {"unreadable_file", "wrong_encoding"}
