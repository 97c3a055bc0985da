"""What a data engineer sees first: failures before all else, what is late in words, other tools' pages in a box."""

import http.server
import json
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest

from feature_repo.publish import publish
from serving.errors import ServingError
from serving.operations import tools
from serving.operations.runs import LAST_RUN, CheckCounts, RunReport, StageTime
from tests.unit.feature_repo.published_home import AS_OF, home_with_tables
from tests.unit.serving.open_console import AT, Browser, open_console
from troth.clock import FixedClock
from troth.home import Home, write_atomically
from troth.published import current

PLANTED = "rose@pier.example"


def _results(*found: tuple[str, str, str | None, int | None]) -> dict[str, Any]:
    return {
        "metadata": {"dbt_version": "1.11.16", "generated_at": "2026-03-02T08:00:00Z"},
        "elapsed_time": 12.5,
        "results": [
            {"unique_id": name, "status": status, "message": message, "failures": failures, "execution_time": 1.0}
            for name, status, message, failures in found
        ],
    }


def _manifest() -> dict[str, Any]:
    orders = "model.troth.orders"
    column = {
        "name": "email_ref",
        "description": "Token.",
        "data_type": "string",
        "config": {"meta": {"personal": "identifier", "purposes": ["service"]}},
    }
    return {
        "nodes": {
            orders: {"resource_type": "model", "name": "orders", "fqn": ["troth", "marts", "orders"], "description": "What was ordered. One row per order.", "columns": {"email_ref": column}},
            "test.troth.not_null": {"resource_type": "test", "name": "not_null_orders", "attached_node": orders, "column_name": "email_ref", "test_metadata": {"name": "not_null"}, "depends_on": {"nodes": [orders]}},
        },
        "sources": {"source.troth.raw": {"resource_type": "source", "name": "raw_pos__sale_lines"}},
        "parent_map": {orders: ["source.troth.raw"]},
        "child_map": {orders: ["test.troth.not_null"]},
    }  # fmt: skip


def _validation(table: str, run_time: str, success: bool) -> dict[str, Any]:
    config = {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "sku"}}
    return {
        "suite_name": table,
        "success": success,
        "meta": {"run_id": {"run_time": run_time}},
        "results": [{"success": success, "expectation_config": config}],
    }


def _write(home: Home, path: str, said: Any) -> None:
    write_atomically(home.root / path, json.dumps(said).encode())


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home whose last run failed three checks, one in each tool."""
    home = home_with_tables(tmp_path)
    publish(home)
    report = RunReport(
        "x",
        True,
        AS_OF.replace(tzinfo=UTC).isoformat(),
        checks=CheckCounts(7, 1, ["sets_few_rows_aside of raw_pos__sale_lines"]),
        stages=[StageTime("build marts", 12.0)],
    )
    _write(home, f"reports/{LAST_RUN}", msgspec.to_builtins(report))
    _write(home, "dbt/run_results.json", _results(
        ("model.troth.orders", "success", "OK", None),
        ("test.troth.assert_no_sale_before_its_store_opened.abc", "fail", "Got 3 results, configured to fail if != 0", 3),
        ("model.troth.customers", "error", f"Runtime Error in model customers\n  could not convert '{PLANTED}'", None),
    ))  # fmt: skip
    _write(home, "dbt/manifest.json", _manifest())
    gx = "reports/gx/gx/uncommitted/validations/raw_wms__picks/__none__"
    _write(
        home, f"{gx}/20260301T000000.000000Z/x.json", _validation("raw_wms__picks", "2026-03-01T00:00:00+00:00", True)
    )
    _write(
        home, f"{gx}/20260302T000000.000000Z/x.json", _validation("raw_wms__picks", "2026-03-02T00:00:00+00:00", False)
    )
    return home


@pytest.fixture
def browser(home: Home) -> Browser:
    return open_console(home, FixedClock(AT), "engineer", wall=FixedClock(AT))


def test_what_failed_is_named_whichever_tool_saw_it_and_no_value_of_a_row_is_shown(browser: Browser) -> None:
    shown = browser.get("/console/engineering")
    assert shown.status_code == 200
    text = browser.text()
    assert "sets_few_rows_aside of raw_pos__sale_lines" in text
    assert "fail: 3 rows" in text
    assert "error: Runtime Error in model customers" in text
    assert "expect_column_values_to_not_be_null sku" in text
    assert PLANTED not in shown.text
    assert "sku_location_availability late" in text


def test_a_home_in_which_nothing_ran_says_so(tmp_path: Path) -> None:
    browser = open_console(Home(tmp_path), FixedClock(AT), "engineer", wall=FixedClock(AT))
    for path in ("", "/tables", "/sizes", "/features", "/models"):
        assert browser.get(f"/console/engineering{path}").status_code == 200, path
    browser.get("/console/engineering")
    assert "No run has ended here yet" in browser.text()
    assert "online store: expected" in browser.text()


def test_published_tables_tell_their_version_rows_and_age(browser: Browser, home: Home) -> None:
    version = current(home, "ftr_customer_purchases")
    browser.get("/console/engineering/tables")
    assert "ftr_customer_purchases" in browser.text()
    assert version.stem in browser.shown.text
    (found,) = [each for each in tools.tables(home) if each.name == "ftr_customer_purchases"]
    assert found.rows == pl.read_parquet(version).height


def test_a_model_says_what_its_columns_hold_and_what_it_rests_on(browser: Browser) -> None:
    assert browser.get("/console/engineering/models").status_code == 200
    assert browser.get("/console/engineering/models/orders").status_code == 200
    text = browser.text()
    for told in ("What was ordered. One row per order.", "identifier", "raw_pos__sale_lines", "not null"):
        assert told in text
    assert browser.get("/console/engineering/models/nothing").status_code == 404


def test_the_registry_names_the_purpose_of_every_personal_service(browser: Browser) -> None:
    browser.get("/console/engineering/features")
    assert "recommend_v1" in browser.text()
    assert "personalization" in browser.text()


def test_dbts_page_is_shown_in_a_box_of_its_own(browser: Browser, home: Home) -> None:
    assert browser.get("/console/engineering/dbt").status_code == 404
    assert "troth docs" in browser.text()
    write_atomically(home.root / "dbt" / tools.DBT_SITE, b"<script>1</script>")
    shown = browser.get("/console/engineering/dbt")
    policy = shown.headers["content-security-policy"]
    assert policy.startswith("sandbox allow-scripts;")
    assert "allow-same-origin" not in policy
    assert "default-src 'none'" in policy


def test_a_batch_says_what_was_expected_of_it_and_where_the_tools_own_pages_are(browser: Browser, home: Home) -> None:
    write_atomically(tools.data_docs(home), b"<h1>docs</h1>")
    browser.get("/console/engineering")
    assert "local_site/index.html of the home, which loads from elsewhere" in browser.text()
    browser.get("/console/engineering/batches/raw_wms__picks")
    assert "NO sku column values to not be null" in browser.text()
    assert browser.get("/console/engineering/batches/..%2f..").status_code == 404


@pytest.mark.parametrize(
    "said",
    [
        "dagster: ftp://127.0.0.1",
        "dagster: [1]",
        "other: http://127.0.0.1",
        "- x",
        "dagster: http://me:you@host",
        "dagster: http://h:x",
    ],
)
def test_an_address_that_is_none_is_refused_with_the_file(tmp_path: Path, said: str) -> None:
    (tmp_path / tools.ADDRESS_FILE).write_text(said)
    with pytest.raises(ServingError, match=r"tools\.yml: expected"):
        tools.addresses(Home(tmp_path))


def test_who_answers_on_this_machine_is_told_and_others_are_not_asked(tmp_path: Path) -> None:
    class Quiet(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:  # as the module calls it
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Quiet)
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    address = f"http://127.0.0.1:{server.server_port}"
    assert tools.answers(address) is True
    server.shutdown()
    serving.join()
    server.server_close()
    assert tools.answers(address) is False
    assert tools.answers("http://dagster.example:3000") is None


def test_the_newest_validation_of_a_table_is_the_one_that_counts(home: Home) -> None:
    (found,) = tools.batches(home)
    assert (found.is_well, found.at) == (False, datetime(2026, 3, 2, tzinfo=UTC))


def test_a_size_is_the_sum_of_its_files(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    write_atomically(home.root / "raw" / "a" / "b.parquet", b"x" * 1_500)
    write_atomically(home.root / "raw" / "c.parquet", b"x" * 500)
    write_atomically(home.root / "ledger.db", b"x")
    assert [(each.name, each.files, each.bytes) for each in tools.sizes(home)] == [
        ("raw/", 2, 2_000),
        ("ledger.db", 1, 1),
    ]


@pytest.mark.parametrize("role", ["marketer", "auditor", "contact_centre"])
def test_others_see_none_of_it(home: Home, role: str) -> None:
    browser = open_console(home, FixedClock(AT + timedelta(days=1)), role, wall=FixedClock(AT))
    for path in ("", "/tables", "/sizes", "/features", "/models", "/models/orders", "/dbt", "/batches/raw_wms__picks"):
        assert browser.get(f"/console/engineering{path}").status_code == 403
