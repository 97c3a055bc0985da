"""CSV against a contract: every good row lands with its line, every broken one is set aside with its own."""

import csv
import io
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestration.sources.contract import Column, Contract, Reading, UnreadableFile
from orchestration.sources.csv_rows import read_csv_rows

THINGS = Contract(
    "raw_test__things",
    "Things. One row per thing.",
    key=("code",),
    columns=(
        Column("code", "text", "Code.", required=True),
        Column("units", "integer", "Units.", required=True),
        Column("note", "text", "Note."),
        Column("code_ref", "text", "Token.", token_of=("account", "code")),
    ),
)
HEADER = "code,units,note\n"


def read(tmp_path: Path, content: str | bytes) -> Reading:
    path = tmp_path / "things.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_csv_rows(path, THINGS)


def rows(reading: Reading) -> list[tuple]:
    return reading.frames[THINGS.table].rows()


def aside(reading: Reading) -> list[tuple[int, str]]:
    return list(zip(reading.rejections.record_offset, reading.rejections.reason_code, strict=True))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_plain_rows_land_with_the_line_they_stand_on(tmp_path, end):
    reading = read(tmp_path, f"{HEADER}a,1,\nb,2,of tin\n".replace("\n", end))
    assert rows(reading) == [("a", "1", None, 2), ("b", "2", "of tin", 3)]
    assert aside(reading) == []


def test_quotes_commas_and_line_breaks_inside_a_field_are_kept(tmp_path):
    reading = read(tmp_path, HEADER + 'a,1,"two\nlines, and ""quotes"""\n\nb,2,\n')
    assert rows(reading) == [("a", "1", 'two\nlines, and "quotes"', 2), ("b", "2", None, 5)]


def test_columns_come_in_any_order_and_optional_ones_may_be_missing(tmp_path):
    assert read(tmp_path, "units,code\n1,a\n").frames[THINGS.table].rows(named=True) == [
        {"code": "a", "units": "1", "record_offset": 2}
    ]


def test_an_unknown_column_is_left_out_and_named_once_unless_it_looks_like_data(tmp_path):
    reading = read(tmp_path, "code,units,note,colour,ada@example.org\na,1,,red,x\nb,2,,blue,y\n")
    assert rows(reading) == [("a", "1", None, 2), ("b", "2", None, 3)]
    assert aside(reading) == [(0, "unknown_column")]
    assert reading.rejections.detail == ["ignored, by title and position: colour (4), (5)"]


def test_a_token_column_in_the_file_counts_as_unknown(tmp_path):
    reading = read(tmp_path, "code,units,note,code_ref\na,1,,forged\n")
    assert "code_ref" not in reading.frames[THINGS.table].columns
    assert aside(reading) == [(0, "unknown_column")]


def test_a_missing_column_sets_the_whole_file_aside(tmp_path):
    reading = read(tmp_path, "code,note\na,\n")
    assert rows(reading) == []
    assert aside(reading) == [(0, "missing_column")]
    assert reading.rejections.detail == ["header: expected also units"]


def test_a_column_told_twice_sets_the_whole_file_aside(tmp_path):
    reading = read(tmp_path, "code,units,note,units\na,1,,2\n")
    assert rows(reading) == []
    assert aside(reading) == [(0, "duplicate_column")]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("x,1", "ragged_row"),
        ("x,1,,", "ragged_row"),
        ('x,1,"open', "bad_quoting"),
        ('x,1,"shut" not', "bad_quoting"),
        ("x,1,\0", "nul_character"),
        (b"x,1,Caf\xe9", "wrong_encoding"),
        ("x,1," + "y" * 200_000 + '"', "too_long"),
    ],
)
def test_a_broken_line_is_set_aside_and_the_lines_around_it_land(tmp_path, line, reason):
    broken = line if isinstance(line, bytes) else line.encode()
    reading = read(tmp_path, HEADER.encode() + b"a,1,\n" + broken + b"\nb,2,\nc,3,\n")
    assert rows(reading) == [("a", "1", None, 2), ("b", "2", None, 4), ("c", "3", None, 5)]
    assert aside(reading) == [(3, reason)]


def test_two_ragged_lines_that_make_up_for_each_other_are_both_set_aside(tmp_path):
    assert aside(read(tmp_path, HEADER + "a,1\nb,2,,\n")) == [(2, "ragged_row"), (3, "ragged_row")]


def test_a_truncated_file_loses_its_last_line_only(tmp_path):
    reading = read(tmp_path, HEADER + 'a,1,\nb,2,"cu')
    assert rows(reading) == [("a", "1", None, 2)]
    assert aside(reading) == [(3, "bad_quoting")]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32", "utf-16-le"])
def test_a_marked_encoding_is_read(tmp_path, encoding):
    assert rows(read(tmp_path, (HEADER + "a,1,Caf\xe9\n").encode(encoding))) == [("a", "1", "Caf\xe9", 2)]


def test_duplicates_are_kept_for_staging_to_judge(tmp_path):
    assert len(rows(read(tmp_path, HEADER + "a,1,\na,1,\n"))) == 2


@pytest.mark.parametrize("content", ["", "\n \n", '"\n'])
def test_a_file_without_header_cannot_be_read(tmp_path, content):
    with pytest.raises(UnreadableFile, match=r"things\.csv: expected a header line, found"):
        read(tmp_path, content)


def test_a_header_alone_is_an_empty_table(tmp_path):
    assert rows(read(tmp_path, HEADER)) == []


FIELDS = st.text(alphabet='ab1,"\n\r é', max_size=6)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(FIELDS, FIELDS, FIELDS), max_size=8))
def test_what_a_csv_writer_wrote_comes_back(tmp_path, written):
    text = io.StringIO(newline="")
    csv.writer(text).writerows([("code", "units", "note"), *written])
    reading = read(tmp_path, text.getvalue())
    assert [row[:3] for row in rows(reading)] == [tuple(field or None for field in row) for row in written]
    assert aside(reading) == []


VALID = (HEADER + 'a,1,"x, y"\nb,2,\nc,3,z\n').encode()
EDITS = st.lists(st.tuples(st.integers(0, len(VALID)), st.binary(max_size=3), st.integers(0, 3)), max_size=4)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(EDITS)
def test_no_edit_of_a_file_breaks_the_reader(tmp_path, edits):
    content = bytearray(VALID)
    for at, new, gone in edits:
        content[at : at + gone] = new
    try:
        frame = read(tmp_path, bytes(content)).frames[THINGS.table]
    except UnreadableFile:
        return
    assert frame["record_offset"].is_sorted()
