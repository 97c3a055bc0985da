"""Anybody's export becomes rows of the contracts, by a mapping that is checked before a row is read."""

import re
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestration.sources.contract import UnreadableFile, conform
from orchestration.sources.mapped import (
    Mapping,
    MappingError,
    check_file,
    check_mapping,
    land_mapped,
    load_mapping,
    mapped_source,
    read_mapped,
    reconcile,
    trading_days,
)
from troth.home import Home

ROOT = Path(__file__).parents[3]
EXAMPLES = ROOT / "examples"
ONLINE_RETAIL = ROOT.parent / "shared" / "data" / "online_retail.parquet"
NIGHT = datetime(2026, 3, 3, 2, tzinfo=UTC)

LEVELS = """
source: ecommerce
timezone: Europe/London
currency: GBP
files: {format: csv}
columns: {item: text, shelf: text, pieces: integer, counted: local_timestamp, price: decimal}
derive:
  cents: {cents: price}
trading_day: counted
tables:
  raw_ecommerce__inventory_levels:
    where: pieces IS NOT NULL
    columns:
      inventory_item_id: item
      location_id: shelf
      available_units: pieces
      updated_at: counted
"""
ROWS = "item,shelf,pieces,counted,price\nlamp,A,3,2026-03-01T09:00:00,1.50\noil,B,-1,2026-03-02T09:00:00,0.005\n"
TABLE = "raw_ecommerce__inventory_levels"


def mapping_of(folder: Path, text: str = LEVELS, **changes: object) -> Mapping:
    return load_mapping(written(folder, text, **changes))


def written(folder: Path, text: str = LEVELS, **changes: object) -> Path:
    """A mapping file: the plain one, with some of its keys changed, or left out where the change is None."""
    document = yaml.safe_load(text) | changes
    path = folder / "levels.yml"
    path.write_text(yaml.safe_dump({k: v for k, v in document.items() if v is not None}, sort_keys=False))
    return path


def export(folder: Path, data: str | bytes = ROWS, name: str = "levels.csv") -> Path:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def rows(mapping: Mapping, paths: list[Path], table: str = TABLE) -> list[dict]:
    frames = [
        conform(read_mapped(mapping, path).frames[table], mapping.tables[table].contract, no_token)[0] for path in paths
    ]
    return pl.concat(frames).sort("record_offset").to_dicts()


def no_token(kind: str, value: str | None) -> None:
    return None


def test_a_csv_lands_by_trading_day_and_reads_back_with_the_lines_of_the_original(tmp_path):
    mapping, home = mapping_of(tmp_path), Home(tmp_path / "home")
    paths = land_mapped(home, mapping, export(tmp_path), NIGHT)
    assert [path.parent.name for path in paths] == ["2026-03-01", "2026-03-02"]
    assert {path.stat().st_mtime for path in paths} == {NIGHT.timestamp()}
    found = rows(mapping, paths)
    assert [(r["inventory_item_id"], r["available_units"], r["record_offset"]) for r in found] == [
        ("lamp", 3, 2),
        ("oil", -1, 3),
    ]
    assert found[0]["updated_at"] == datetime(2026, 3, 1, 9, tzinfo=UTC)


def test_the_mapping_lands_beside_its_files_which_name_it_by_hash(tmp_path):
    path = written(tmp_path)
    mapping, home = load_mapping(path), Home(tmp_path / "home")
    paths = land_mapped(home, mapping, export(tmp_path), NIGHT)
    assert (home.landing / "ecommerce" / "mapping.yml").read_bytes() == path.read_bytes()
    assert {pl.read_parquet_metadata(p)["mapping_sha256"] for p in paths} == {mapping.sha256}


def test_landing_twice_gives_the_same_bytes(tmp_path):
    mapping = mapping_of(tmp_path)
    first, second = (land_mapped(Home(tmp_path / name), mapping, export(tmp_path), NIGHT) for name in ("a", "b"))
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]
    assert land_mapped(Home(tmp_path / "a"), mapping, export(tmp_path), NIGHT) == first


def test_an_export_that_would_leave_a_day_it_landed_on_is_refused(tmp_path):
    home = Home(tmp_path / "home")
    land_mapped(home, mapping_of(tmp_path), export(tmp_path), NIGHT)
    with pytest.raises(MappingError, match="first landing, found 1 days"):
        land_mapped(home, mapping_of(tmp_path, trading_day="MIN(counted)"), export(tmp_path), NIGHT)


def test_an_export_without_lines_is_refused(tmp_path):
    with pytest.raises(MappingError, match="expected lines, found none"):
        land_mapped(Home(tmp_path), mapping_of(tmp_path), export(tmp_path, ROWS.splitlines()[0]), NIGHT)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"lamp,A,thr", "ragged_row"),
        (b'"lamp,A,3,2026-03-01T09:00:00,1.50', "bad_quoting"),
        ("länt,A,3,2026-03-01T09:00:00,1.50".encode("latin-1"), "wrong_encoding"),
        (b"lamp,A,three,2026-03-01T09:00:00,1.50", "wrong_type"),
        (b"lamp,A,3,yesterday,1.50", "wrong_type"),
        (b"l" * 2_000 + b",A,3,2026-03-01T09:00:00,1.50", "too_long"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_malformed_line_lands_as_its_place_and_reason_and_is_set_aside_there(tmp_path, line, reason):
    mapping = mapping_of(tmp_path)
    first, second = ROWS.encode().splitlines()[1:]
    data = b"\n".join([ROWS.encode().splitlines()[0], first, line, second]) + b"\n"
    paths = land_mapped(Home(tmp_path / "home"), mapping, export(tmp_path, data), NIGHT)
    assert [path.parent.name for path in paths] == ["2026-03-01", "2026-03-02", "2026-03-03"]
    rejected = read_mapped(mapping, paths[-1]).rejections
    assert (rejected.table, rejected.record_offset, rejected.reason_code) == ([TABLE], [3], [reason])
    assert [r["record_offset"] for r in rows(mapping, paths)] == [2, 4]


def test_a_line_its_contract_refuses_is_set_aside_by_the_contract_alone(tmp_path):
    mapping = mapping_of(tmp_path)
    data = ROWS + ",C,1,2026-03-01T10:00:00,1\n"
    (first, *_) = land_mapped(Home(tmp_path / "home"), mapping, export(tmp_path, data), NIGHT)
    reading = read_mapped(mapping, first)
    _, aside = conform(reading.frames[TABLE], mapping.tables[TABLE].contract, no_token)
    assert aside.rows() == [(4, "missing_value", "inventory_item_id: expected a value")]


def test_columns_the_mapping_does_not_declare_are_not_landed(tmp_path):
    data = "item,shelf,pieces,counted,price,nickname\nlamp,A,3,2026-03-01T09:00:00,1.50,Bo\n"
    (path,) = land_mapped(Home(tmp_path / "home"), mapping_of(tmp_path), export(tmp_path, data), NIGHT)
    assert "nickname" not in pl.read_parquet(path).columns
    assert b"Bo" not in path.read_bytes()


def test_a_line_sent_twice_lands_twice_for_staging_to_choose(tmp_path):
    mapping = mapping_of(tmp_path)
    paths = land_mapped(Home(tmp_path / "home"), mapping, export(tmp_path, ROWS + ROWS.splitlines()[1] + "\n"), NIGHT)
    assert len(rows(mapping, paths)) == 3


def test_wall_clocks_are_read_in_the_mappings_time_zone(tmp_path):
    times = ["2026-07-01T09:00:00", "2026-10-25T01:30:00", "2026-03-29T01:30:00"]
    data = "item,shelf,pieces,counted,price\n" + "".join(f"lamp,A,1,{time},1\n" for time in times)
    mapping = mapping_of(tmp_path)
    paths = land_mapped(Home(tmp_path / "home"), mapping, export(tmp_path, data), NIGHT)
    found = {r["record_offset"]: r["updated_at"] for r in rows(mapping, paths)}
    assert found == {2: datetime(2026, 7, 1, 8, tzinfo=UTC), 3: datetime(2026, 10, 25, 0, 30, tzinfo=UTC)}


def test_parquet_keeps_its_types_and_numbers_its_records_from_1(tmp_path):
    frame = pl.DataFrame({"item": [7, 8], "pieces": [1, None], "counted": [date(2026, 3, 1)] * 2})
    frame.write_parquet(tmp_path / "levels.parquet")
    mapping = mapping_of(
        tmp_path,
        files={"format": "parquet"},
        columns={"item": "integer", "pieces": "integer", "counted": "date"},
        derive=None,
        tables={
            TABLE: {
                "columns": {
                    "inventory_item_id": "TRY_CAST(item AS VARCHAR)",
                    "location_id": {"text": "web"},
                    "available_units": "pieces",
                    "updated_at": "counted",
                }
            }
        },
    )
    paths = land_mapped(Home(tmp_path / "home"), mapping, tmp_path / "levels.parquet", NIGHT)
    found = rows(mapping, paths)
    assert [(r["record_offset"], r["inventory_item_id"], r["available_units"]) for r in found] == [
        (1, "7", 1),
        (2, "8", None),
    ]
    assert found[0]["updated_at"] == datetime(2026, 3, 1, tzinfo=UTC)


def test_semicolons_decimal_commas_and_another_encoding_read_alike(tmp_path):
    plain = mapping_of(tmp_path)
    european = mapping_of(
        tmp_path,
        files={"format": "csv", "options": {"separator": ";", "decimal": ",", "encoding": "cp1252"}},
        columns=yaml.safe_load(LEVELS)["columns"]
        | {"counted": {"type": "local_timestamp", "format": "%d.%m.%Y %H:%M"}},
    )
    data = 'item;shelf;pieces;counted;price\n"Lampe; grün, 3";A;3;01.03.2026 09:00;1.001,50\n'.encode("cp1252")
    (day,) = trading_days(european, export(tmp_path, data), NIGHT.date()).values()
    assert day.select("item", "pieces", "counted", "price", "cents").row(0) == (
        "Lampe; grün, 3",
        3,
        datetime(2026, 3, 1, 9),
        1001.5,
        100150,
    )
    assert plain.options == {}


@pytest.mark.parametrize(
    ("amount", "whole"), [("1.50", 150), ("0.005", 1), ("-0.005", -1), ("1.005", 101), ("0.0049", 0), ("19.99", 1999)]
)
def test_money_is_rounded_to_whole_cents_halves_away_from_zero(tmp_path, amount, whole):
    data = f"item,shelf,pieces,counted,price\nlamp,A,3,2026-03-01T09:00:00,{amount}\n"
    (day,) = trading_days(mapping_of(tmp_path), export(tmp_path, data), NIGHT.date()).values()
    assert day["cents"].to_list() == [whole]


FAULTS = {
    "sorce": ({"sorce": "ecommerce"}, r"sorce: expected one of source, .*, found 'sorce'\. Did you mean source\?"),
    "no currency": ({"currency": None}, r"currency: expected a value, found none\. Add `currency:`\."),
    "currency": ({"currency": "pounds"}, r"currency: expected an ISO 4217 code, found 'pounds'\."),
    "timezone": ({"timezone": "Europe/Londn"}, r"timezone: expected an IANA name, found 'Europe/Londn'\."),
    "source": ({"source": "ecomerce"}, r"source: expected one of pos, .*, found 'ecomerce'\. Did you mean ecommerce\?"),
    "format": ({"files": {"format": "xlsx"}}, r"files\.format: expected one of parquet, csv, found 'xlsx'\."),
    "option": (
        {"files": {"format": "parquet", "options": {"separator": ";"}}},
        r"files\.options\.separator: expected one of",
    ),
    "separator": ({"files": {"format": "csv", "options": {"separator": "||"}}}, r"separator: expected one character"),
    "encoding": ({"files": {"format": "csv", "options": {"encoding": "utf-9"}}}, r"encoding: expected an encoding"),
    "type": ({"columns": {"counted": "datum"}}, r"columns\.counted: expected one of text, .*, found 'datum'\."),
    "ours": ({"columns": {"record_offset": "text"}}, r"columns\.record_offset: expected another name"),
    "unknown column": (
        {"trading_day": "conted"},
        r"trading_day: expected columns among .*, found conted\. Did you mean counted\?",
    ),
    "not a day": ({"trading_day": "item"}, r"trading_day: expected a date or a time, found String\."),
    "bad sql": ({"trading_day": "MAX(counted"}, r"trading_day: expected one SQL expression, found `MAX\(counted`"),
    "query": ({"trading_day": "(SELECT 1)"}, r"trading_day: expected .*SQL"),
    "types": ({"derive": {"x": "item * 2.5 + counted"}}, r"derive\.x: expected SQL that fits the types"),
    "form": ({"derive": {"x": {"pence": "price"}}}, r"derive\.x: expected SQL over the columns, or \{cents: "),
    "clash": ({"derive": {"item": "shelf"}}, r"derive\.item: expected a new name, found a column of the file"),
    "foreign table": (
        {"tables": {"raw_pos__sale_lines": {"columns": {"sku": "item"}}}},
        r"found 'raw_pos__sale_lines'",
    ),
    "no tables": ({"tables": {}}, r"tables: expected raw tables with their columns, found nothing"),
    "reconcile": (
        {"reconcile": {"n": {"file": "pieces", "tables": {"raw_x": "y"}}}},
        r"reconcile\.n\.tables\.raw_x: expected one of",
    ),
}
TABLE_FAULTS = {
    "unknown contract column": (
        {"columns": {"stock": "pieces"}},
        r"\.columns\.stock: expected one of inventory_item_id, .*",
    ),
    "missing column": (
        {"columns": {"location_id": "shelf"}},
        r"inventory_item_id: expected an expression that gives text, found none",
    ),
    "wrong type": (
        {"columns": {"available_units": "price"}},
        r"available_units: expected integer, found Float64\. Cast it",
    ),
    "condition": ({"where": "pieces", "columns": {}}, r"\.where: expected a condition, found Int64\."),
    "group": (
        {"group_by": "itm", "columns": {"location_id": "shelf"}},
        r"group_by: expected one of .*, found 'itm'\. Did you mean item",
    ),
    "aggregate": (
        {"group_by": "item", "columns": {"location_id": "shelf"}},
        r"location_id: expected an aggregate, or columns among item",
    ),
    "key": ({"when": "true", "columns": {"location_id": "shelf"}}, r"\.when: expected one of where, group_by, columns"),
}


@pytest.mark.parametrize(("changes", "message"), FAULTS.values(), ids=FAULTS)
def test_a_fault_in_a_mapping_names_its_key_what_was_expected_and_what_was_found(tmp_path, changes, message):
    path = written(tmp_path, **changes)
    with pytest.raises(MappingError, match=rf"levels\.yml, .*{message}"):
        load_mapping(path)
    assert all(re.search(r": expected .+, found .+\. .+[.?)]$", fault) for fault in check_mapping(path))


@pytest.mark.parametrize(("body", "message"), TABLE_FAULTS.values(), ids=TABLE_FAULTS)
def test_a_fault_in_a_table_names_its_place(tmp_path, body, message):
    with pytest.raises(MappingError, match=rf"tables\.{TABLE}.*{message}"):
        mapping_of(tmp_path, tables={TABLE: body})


def test_a_token_cannot_be_mapped_because_it_is_made_here(tmp_path):
    body = {"columns": {"account_ref": "item"}}
    with pytest.raises(MappingError, match=r"columns\.account_ref: expected one of account_id, "):
        mapping_of(tmp_path, tables={"raw_ecommerce__customers": body})


def test_every_fault_is_found_at_once(tmp_path):
    path = written(tmp_path, currency="pounds", timezone="Mars", tables={TABLE: {"columns": {"stock": "pieces"}}})
    assert len(check_mapping(path)) >= 5


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"source: ecommerce\nsource: pos\n", "the key source twice"),
        (b"source: [\n", "expected YAML"),
        (b"- a\n", "expected keys such as source, columns and tables, found list"),
        (b"", "found NoneType"),
        ("währung: €".encode("cp1252"), "expected UTF-8"),
        (b"a: !!python/object:os.system {}", "expected YAML"),
        (b"a: 2026-13-45", "expected YAML, found a value that is none of its kind"),
    ],
)
def test_what_is_no_mapping_is_refused_in_words(tmp_path, data, message):
    path = export(tmp_path, data, "odd.yml")
    with pytest.raises(MappingError, match=message):
        load_mapping(path)


def test_a_missing_mapping_is_refused_in_words(tmp_path):
    with pytest.raises(MappingError, match=r"nowhere\.yml, file: expected a YAML file, found No such file"):
        load_mapping(tmp_path / "nowhere.yml")


def test_an_unknown_column_of_the_file_is_found_before_a_row_is_read(tmp_path):
    with pytest.raises(
        MappingError, match=r"expected once each the columns shelf, price, found item, pieces, counted\."
    ):
        check_file(mapping_of(tmp_path), export(tmp_path, "item,pieces,counted\n"))


@pytest.mark.parametrize("data", [b"PAR1 but not really", b""], ids=["other", "empty"])
def test_a_file_of_another_format_is_refused_in_words(tmp_path, data):
    mapping = mapping_of(tmp_path, files={"format": "parquet"})
    with pytest.raises(MappingError, match="expected parquet with a header, found something else"):
        check_file(mapping, export(tmp_path, data))


def test_a_missing_file_is_refused_in_words(tmp_path):
    with pytest.raises(MappingError, match="expected a file, found No such file"):
        check_file(mapping_of(tmp_path), tmp_path / "gone.csv")


def test_a_file_landed_by_another_mapping_is_unreadable_and_says_so(tmp_path):
    (first, _) = land_mapped(Home(tmp_path / "home"), mapping_of(tmp_path), export(tmp_path), NIGHT)
    other = mapping_of(tmp_path, derive={"pence": {"cents": "price"}})
    with pytest.raises(UnreadableFile, match="expected the columns pence"):
        read_mapped(other, first)
    with pytest.raises(UnreadableFile, match="expected Parquet"):
        read_mapped(other, export(tmp_path, b"garbage", "x.parquet"))


def test_a_cast_that_fails_on_a_line_says_what_to_use_instead(tmp_path):
    mapping = mapping_of(tmp_path, derive={"number": "CAST(item AS INTEGER)"})
    with pytest.raises(MappingError, match="Use TRY_CAST"):
        trading_days(mapping, export(tmp_path), NIGHT.date())


def test_the_source_reads_what_landed(tmp_path):
    mapping = mapping_of(tmp_path)
    (kind,) = mapped_source(mapping).files
    (first, _) = land_mapped(Home(tmp_path / "home"), mapping, export(tmp_path), NIGHT)
    assert first.match(kind.pattern)
    assert tuple(kind.read(first).frames) == kind.tables == (TABLE,)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lines=st.lists(
        st.tuples(st.sampled_from("ABC"), st.integers(-9, 9), st.integers(1, 4), st.integers(-999, 999)),
        min_size=1,
        max_size=12,
    )
)
def test_reading_by_day_gives_what_reading_at_once_gives_and_every_piece_and_cent_comes_back(tmp_path, lines):
    body = "".join(f"lamp,{shelf},{n},2026-03-0{day}T12:00:00,{cents / 100}\n" for shelf, n, day, cents in lines)
    measure = {"pieces": {"file": "pieces", "tables": {TABLE: "available_units"}}}
    mapping = mapping_of(tmp_path, reconcile=measure)
    path = export(tmp_path, "item,shelf,pieces,counted,price\n" + body)
    days = trading_days(mapping, path, NIGHT.date())
    landed = pl.concat(days.values()).sort("record_offset")
    assert landed["shelf"].to_list() == [line[0] for line in lines]
    assert landed["cents"].sum() == sum(line[3] for line in lines)
    assert [day.day for day in days] == sorted({line[2] for line in lines})
    assert [balance.difference for balance in reconcile(mapping, path)] == [0]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1), new=st.binary(max_size=3), dropped=st.integers(0, 3))
def test_no_edit_of_an_exports_bytes_raises_anything_but_a_mapping_error(tmp_path, place, new, dropped):
    data = ROWS.encode()
    at = int(place * len(data))
    path = export(tmp_path, data[:at] + new + data[at + dropped :])
    try:
        days = trading_days(mapping_of(tmp_path), path, NIGHT.date())
    except MappingError as error:
        assert ": expected " in str(error)  # noqa: PT017
    else:
        assert sum(day.height for day in days.values()) >= 1


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    edits=st.lists(
        st.tuples(
            st.floats(0, 1),
            st.sampled_from(["", ":", "{", "[]", "- ", "1", "~", "\n", "'", "SUM(", " OVER "]),
            st.integers(0, 5),
        ),
        min_size=1,
        max_size=3,
    )
)
def test_no_edit_of_a_mapping_raises_anything_but_a_mapping_error(tmp_path, edits):
    text = LEVELS
    for place, new, dropped in edits:
        at = int(place * len(text))
        text = text[:at] + new + text[at + dropped :]
    path = export(tmp_path, text, "odd.yml")
    try:
        load_mapping(path)
    except MappingError as error:
        assert str(error).splitlines() == "\n".join(check_mapping(path)).splitlines()  # noqa: PT017


def test_the_tea_house_example_reads_as_its_readme_says(tmp_path):
    mapping = load_mapping(EXAMPLES / "tea_house.yml")
    (balance,) = reconcile(mapping, EXAMPLES / "tea_house.csv")
    assert (balance.in_file, balance.difference, balance.lines_aside) == (109_360, 0, 1)
    paths = land_mapped(Home(tmp_path), mapping, EXAMPLES / "tea_house.csv", NIGHT)
    orders = rows(mapping, paths, "raw_ecommerce__orders")
    assert [(o["order_id"], o["net_cents"], o["email"], o["currency_code"]) for o in orders] == [
        ("F-1001", 4790, "ines@example.com", "EUR"),
        ("F-1002", 1560, None, "EUR"),
        ("F-1003", 106500, "rui@example.com", "EUR"),
    ]


def test_the_snippet_in_the_examples_readme_prints_what_it_says(capsys, monkeypatch):
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    code, output = re.search(r"```python\n(.*?)```\n+```text\n(.*?)```", text, re.DOTALL).groups()
    monkeypatch.chdir(ROOT)
    exec(compile(code, "examples/README.md", "exec"), {})  # noqa: S102
    assert capsys.readouterr().out == output


needs_online_retail = pytest.mark.skipif(
    not ONLINE_RETAIL.exists(), reason="the UCI file Online Retail is not beside this repository"
)


@needs_online_retail
def test_online_retail_reconciles_to_the_piece_and_to_the_penny():
    balances = {b.measure: b for b in reconcile(load_mapping(EXAMPLES / "online_retail.yml"), ONLINE_RETAIL)}
    units, money, orders = balances["quantity_units"], balances["net_cents"], balances["order_cents"]
    assert (units.in_file, units.difference, units.lines_aside) == (5_176_450, 0, 0)
    assert sum(money.in_tables.values()) == 974_774_793  # 9,747,747.93 pounds
    assert money.difference == pytest.approx(0.4, abs=1e-3)  # four lines at 0.001
    assert orders.in_tables["raw_ecommerce__orders"] == money.in_tables["raw_ecommerce__order_lines"]


@needs_online_retail
def test_online_retail_cancellations_become_returns_and_every_line_lands_once():
    mapping = load_mapping(EXAMPLES / "online_retail.yml")
    days = trading_days(mapping, ONLINE_RETAIL, NIGHT.date())
    lines = pl.concat(days.values())
    assert (len(days), lines.height, lines["reason_code"].null_count()) == (305, 541_909, 541_909)
    places = [lines.filter(table.where)["record_offset"] for name, table in mapping.tables.items() if name in LINES]
    assert [place.len() for place in places] == [530_510, 9_288, 2_111]
    assert pl.concat(places).n_unique() == 541_909
    assert lines.filter(pl.col("customer_row") == 1, pl.col("CustomerID").is_not_null()).height == 4_372


LINES = ("raw_ecommerce__order_lines", "raw_ecommerce__refund_lines", "raw_ecommerce__adjustments")
