"""Operations: promises kept, what differs and whose it is, the count list, how fresh, the last run; and nothing of any person."""

import csv
import io
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest

from models.stock.belief.calibration import Calibration, reliability
from models.stock.belief.model import Model, keep
from models.stock.belief.parameters import Parameters
from serving.console.figures import MEASURES, grouped, sections, spelled
from serving.console.operating import as_csv
from serving.measures import measured
from serving.operations.runs import (
    LAST_RUN,
    UNFINISHED,
    CheckCounts,
    ModelRow,
    RunReport,
    SourceRow,
    StageTime,
    last_report,
    set_aside,
    unfinished,
)
from tests.unit.feature_repo.published_home import ADA, publish_table
from tests.unit.serving.open_console import AT, Browser, open_console
from tests.unit.serving.open_counter import EMAILS, Shop, apart, open_counter
from troth.clock import FixedClock
from troth.home import Home

ROOT = Path(__file__).parents[3]
PATHS = ("", "/measures", "/breaks", "/breaks.csv", "/counts", "/counts.csv", "/freshness", "/checks")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return open_counter(tmp_path_factory.mktemp("operations"))


@pytest.fixture(scope="module")
def office(made: Shop) -> Browser:
    return made.open("operations")


def text(office: Browser, path: str) -> str:
    found = office.get(f"/console/operations{path}")
    assert found.status_code == 200, found.text
    return office.text()


def test_the_overview_says_what_was_kept_and_what_waits(office: Browser) -> None:
    said = text(office, "")
    assert "Promise kept 85.0% of 100 promises due" in said
    assert "2 open, worth 43.00 either way" in said
    assert "Pick, median 40 s of 100" in said
    assert "2 late" in said
    assert "No model is in use yet" in said


def test_every_chart_has_its_table_behind_it(office: Browser) -> None:
    text(office, "")
    assert office.shown.text.count("<svg") == office.shown.text.count('<details class="behind">')
    assert "2026-02-23 90.0%" in office.text()


def test_how_sure_we_were_stands_beside_how_often_goods_were_found(tmp_path: Path) -> None:
    shop = open_counter(tmp_path)
    sure, found = np.full(200, 0.9, np.float32), np.arange(200) % 10 != 0
    table = reliability(sure, found, np.full(200, "store/Camp"))
    keep(shop.home, Model(Parameters(), Calibration(), table, {"calibration_error": 0.012}), {})
    said = text(shop.open("operations"), "")
    assert "Of 200 picks the model had not seen; off by 1.2% on average" in said
    assert "87 to 93 % 200 90.0% 90.0%" in said


def test_measures_stand_together_or_one_by_one(office: Browser) -> None:
    said = text(office, "/measures")
    assert "Promise kept: in time, and every piece 85.0% 100" in said
    assert "From begin to end of a pick 45 s 40 s" in said
    assert "click and collect 85.0% 100" in text(office, "/measures?by=method&measure=promise_kept")
    said = text(office, "/measures?by=week&measure=promise_kept")
    assert "2026-02-16 80.0% 50" in said
    assert "This is not told so" in text(office, "/measures?by=week&measure=withheld_margin")
    for path in ("/measures?by=mood", "/measures?by=week&measure=mood"):
        assert office.get(f"/console/operations{path}").status_code == 400


def test_every_measure_of_the_table_has_a_place_on_the_page(made: Shop) -> None:
    rows = [row for each in sections(measured(made.home)) for row in each["rows"]]
    assert {row["measure"] for row in rows} == {
        "Promise kept: in time, and every piece", "From begin to end of a pick",
    }  # fmt: skip
    yaml = (ROOT / "dbt_project" / "models" / "marts" / "fulfilment_measures.yml").read_text()
    (line,) = [each for each in yaml.splitlines() if "name: measure_name" in each]
    told = {
        part.strip() for part in line.partition("What is measured: ")[2].partition(" or ")[0].rstrip(",").split(",")
    }
    assert told - {""} <= {name for part in MEASURES.values() for name in part}


def test_a_chart_is_of_those_with_most_cases(made: Shop) -> None:
    one = grouped(measured(made.home, "method"), "promise_kept", {})
    assert [row["group"] for row in one["rows"]] == ["click and collect"]
    assert one["chart"] is not None
    assert grouped(measured(made.home, "location"), "promise_kept", {})["rows"] == []


def test_figures_are_spelled_in_their_unit() -> None:
    assert [spelled(0.5, "share"), spelled(7200, "seconds"), spelled(1234, "cents"), spelled(None, "share")] == [
        "50.0%", "2 h", "12.34", "–",
    ]  # fmt: skip


def test_what_differs_is_told_by_kind_owner_place_and_state(office: Browser) -> None:
    said = text(office, "/breaks")
    assert "source not told integration engineer 1 40.00" in said
    assert "2 open, dearest first" in said
    assert said.index("Storm lantern -40") < said.index("Storm lantern 3")
    for query, count in (
        ("?owner=store_manager", "1 open"),
        ("?type=source_not_told", "1 open"),
        ("?closed=yes", "1 ended"),
        ("?store=DC1", "1 open"),
    ):
        assert f"{count}, dearest first" in text(office, f"/breaks{query}")
    assert "Nothing differs." in text(office, "/breaks?store=S002")
    for query in ("owner=nobody", "type=mood", "store=S999", "page=many", "closed=perhaps"):
        assert office.get(f"/console/operations/breaks?{query}").status_code == 400


def test_many_breaks_are_leafed_through(tmp_path: Path) -> None:
    shop = open_counter(tmp_path)
    many = [apart("count_difference", n, stock_break_id=f"b/{n}") for n in range(1, 121)]
    publish_table(shop.home, "stock_breaks", pl.DataFrame(many, infer_schema_length=None))
    browser = shop.open("operations")
    assert "1 of 3" in text(browser, "/breaks")
    assert 'rel="prev"' not in browser.shown.text
    text(browser, "/breaks?page=2")
    assert ('rel="next"' in browser.shown.text, browser.shown.text.count("<tr>")) == (False, 1 + 1 + 1 + 20)


def test_the_count_list_is_for_a_place_and_has_a_column_to_write_in(office: Browser) -> None:
    said = text(office, "/counts")
    assert "books say 4, yet the last pick found too little" in said
    assert "2 of them, about 3 min, worth about 13.00" in said
    said = text(office, "/counts?store=S001")
    assert "Pier 9. The positions" in said
    assert "Valley" not in said.partition("Best first")[2]
    assert 'class="on-paper">Counted' in office.shown.text
    assert "Nothing is worth counting there." in text(office, "/counts?store=S002")


@pytest.mark.parametrize("name", ["counts", "breaks"])
def test_a_file_holds_the_rows_and_no_formula(name: str, office: Browser) -> None:
    found = office.get(f"/console/operations/{name}.csv")
    assert found.headers["content-type"].startswith("text/csv")
    assert "attachment" in found.headers["content-disposition"]
    rows = list(csv.DictReader(io.StringIO(found.content.decode("utf-8-sig"))))
    assert len(rows) == 2
    assert not any(cell.startswith(("=", "@", "\t")) for row in rows for cell in row.values())
    if name == "counts":
        assert rows[0]["item"] == '\'=HYPERLINK("x") rope'
        assert rows[0]["counted_units"] == ""


def test_minus_is_a_number_and_a_formula_is_text() -> None:
    assert as_csv(["a", "b"], [[-3, None], ["-1+1", "=x"]]).decode("utf-8-sig") == "a,b\r\n-3,\r\n'-1+1,'=x\r\n"


def test_how_fresh_each_view_and_source_is(office: Browser) -> None:
    said = text(office, "/freshness")
    assert "customer purchases fresh 1 h 30 h" in said
    assert "availability late 1 h 30 min" in said
    assert "wms 2 h" in said
    assert "They have not been compared yet." in said


def test_a_home_without_a_run_says_so(office: Browser) -> None:
    said = text(office, "/checks")
    assert "No finished run is told of yet." in said
    assert "Nothing was set aside." in said


def aside(home: Home, table: str, day: str, *reasons: str) -> None:
    path = home.quarantine / table / f"day={day}" / "data.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    at = datetime(2026, 3, 1, tzinfo=UTC)
    rows = {"reason_code": list(reasons), "detail": ["x"] * len(reasons), "received_at": [at] * len(reasons)}
    pl.DataFrame(rows).write_parquet(path)


def test_the_last_run_tells_of_checks_sources_models_and_what_was_set_aside(tmp_path: Path) -> None:
    shop = open_counter(tmp_path)
    report = RunReport(
        "home", True, "2026-03-02T02:00:00+00:00", sources=[SourceRow("pos", 12, 1, 900, 3, {"wrong_type": 3})],
        checks=CheckCounts(9, 1, ["raw_pos__sale_lines: keeps_its_contract"]), models=[ModelRow("churn", "v1", "kept_back", 100, {})],
        stages=[StageTime("build marts", 61.0)],
    )  # fmt: skip
    shop.home.reports.mkdir()
    (shop.home.reports / LAST_RUN).write_bytes(msgspec.json.encode(report))
    (shop.home.reports / UNFINISHED).write_bytes(b'["2026-03-01"]')
    aside(shop.home, "raw_pos__sale_lines", "2026-02-28", "wrong_type", "wrong_type")
    aside(shop.home, "raw_pos__sale_lines", "2026-03-01", "wrong_type", "not_json")
    browser = shop.open("engineer")
    said = text(browser, "/checks")
    assert "9 checks passed, 1 failed." in said
    assert "raw_pos__sale_lines: keeps_its_contract" in said
    assert "A run did not end: 1 trading day is" in said
    assert "pos 12 1 900 3" in said
    assert "4 rows in quarantine" in said
    assert "pos raw_pos__sale_lines wrong type 3 2 2026-03-01 00:00 UTC" in said
    assert "churn kept back 100" in said
    assert "1 checks failed" in text(browser, "")


def test_what_was_set_aside_is_counted_again_where_a_file_was_read_again(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert set_aside(home).is_empty()
    aside(home, "raw_wms__picks", "2026-03-01", "ragged_row", "ragged_row")
    assert set_aside(home)["rows"].to_list() == [2]
    aside(home, "raw_wms__picks", "2026-03-01", "ragged_row")
    assert set_aside(home)["rows"].to_list() == [1]
    assert (last_report(home), unfinished(home)) == (None, None)


@pytest.mark.parametrize("path", PATHS)
def test_no_page_of_operations_names_a_person(path: str, office: Browser) -> None:
    office.get(f"/console/operations{path}")
    said = office.shown.text.lower()
    assert not any(part in said for part in (ADA, "cus_", "email_", "@", *(name.lower() for name in EMAILS.values())))


@pytest.mark.parametrize("role", ["associate", "contact_centre", "marketer", "auditor"])
def test_operations_are_for_those_who_have_them(role: str, tmp_path: Path) -> None:
    browser = open_bare(tmp_path, role)
    assert {browser.get(f"/console/operations{path}").status_code for path in PATHS} == {403}


def test_before_anything_is_published_the_page_says_what_to_do(tmp_path: Path) -> None:
    browser = open_bare(tmp_path, "operations")
    assert browser.get("/console/operations").status_code == 503
    assert "Run `troth run` first." in browser.text()


def open_bare(root: Path, role: str) -> Browser:
    return open_console(Home(root), FixedClock(AT), role)
