"""From landed files to answers, once, on a simulated retailer whose truth is known. One file, so that the road is gone once.

Three homes follow from each other: `road` (landed and run), `again` (the same files landed in another order, some of
them twice, the run interrupted and done again) and `later` (a person has withdrawn since). Nothing changes `road`.
"""

import csv
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from consent.ledger.opening import open_ledger
from consent.rule.policy import read_policy
from consent.rule.standing import standing_frame
from consent.vault import open_vault
from feature_repo import catalogue
from models import registry
from models.build import BASELINES
from models.segments.definition import Comparison, Segment
from models.segments.export import ExportReport, export
from models.segments.rules import Rules
from orchestration import stages, taking, warehouse
from orchestration.catalog import SOURCES
from serving import answers
from simulator import TINY, simulate
from troth.clock import FixedClock
from troth.home import Home
from troth.published import POINTER, current

ROOT = Path(__file__).resolve().parents[2]
# As lively as TINY and large enough for models to be trained; fewer broken records, so that no check stops the run.
SHOP = replace(TINY, people=300, stores=4, skus=60, days=10, malformed_record_rate=0.004)
SEED = 11
CONSENTING = (("marketing", "email"), ("personalization", "*"), ("model_training", "*"))
BUYERS = Segment(
    name="buyers",
    version=1,
    description="Whoever bought.",
    owner="tests",
    purpose="marketing",
    channels=("email",),
    holdout_percent=0,
    where=Comparison("customer_purchases", "order_count_90d", ">=", ("1",)),
)


@dataclass(frozen=True)
class Road:
    """A home after a run, what the run reported, the hash of everything it left, and the versions it published."""

    home: Home
    report: dict[str, Any]
    left: Mapping[str, str]
    versions: Mapping[str, Path]

    @property
    def until(self) -> datetime:
        return datetime.fromisoformat(self.report["known_until"])

    def model(self, name: str) -> dict[str, Any]:
        return next(row for row in self.report["models"] if row["model"] == name)


def troth(home: Home, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "orchestration.cli", *arguments, "--home", str(home.root)],
        cwd=ROOT, env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip


def environment() -> dict[str, str]:
    """Two readers whatever the machine."""
    return {**os.environ, "TROTH_WORKERS": "2"}


def run(home: Home, *options: str) -> dict[str, Any]:
    done = troth(home, "run", "--no-sample", "--json", *options)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def hashes(home: Home) -> dict[str, str]:
    """Every byte that must stay as it is while nothing new lands, by path; of the ledger its rows."""
    folders = (home.raw, home.quarantine, home.taken, home.published, home.artifacts, home.features, home.reports)
    found = {
        path.relative_to(home.root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(("-wal", "-shm"))
    }
    with open_ledger(home, FixedClock(datetime(2030, 1, 1, tzinfo=UTC))) as ledger:
        found["ledger rows"] = hashlib.sha256(ledger.frame().write_csv().encode()).hexdigest()
        found["ledger root"] = ledger.root().hex()
    return found


def finished(home: Home, report: dict[str, Any]) -> Road:
    tables = [pointer.parent.name for pointer in home.published.glob(f"*/{POINTER}")]
    return Road(home, report, hashes(home), {name: current(home, name) for name in tables})


def table(road: Road, name: str) -> pl.DataFrame:
    """A published table as it was after the road's run, whatever has been published since: versions stay."""
    return pl.read_parquet(road.versions[name])


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> Road:
    """A simulated retailer, run once."""
    home = Home(tmp_path_factory.mktemp("road"))
    simulate(home, SHOP, SEED)
    return finished(home, run(home))


@dataclass(frozen=True)
class Interrupted:
    """How a run ended that was interrupted, and the home after the run that followed."""

    code: int
    said: str
    road: Road


@pytest.fixture(scope="module")
def again(road: Road, tmp_path_factory: pytest.TempPathFactory) -> Interrupted:
    """The files of `road` in another home: in random order, one day of each source twice; the run interrupted in the marts."""
    home = Home(tmp_path_factory.mktemp("again"))
    shutil.copytree(road.home.root / "keys", home.root / "keys")
    (home.truth).mkdir()
    files = sorted(path for path in road.home.landing.rglob("*") if path.is_file())
    for path in random.Random(SEED).sample(files, len(files)):
        to = home.landing / path.relative_to(road.home.landing)
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, to)
        if to.parent.name == "2026-03-05":
            shutil.copy2(path, to.with_name(f"{to.stem}_twice{to.suffix}"))
    code, said = interrupted(home, "build marts ...")
    return Interrupted(code, said, finished(home, run(home)))


def interrupted(home: Home, at: str) -> tuple[int, str]:
    """Start a run, press Ctrl-C when it says it has come so far. Gives exit code and what it said."""
    said = home.root / "said.txt"
    with said.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "orchestration.cli", "run", "--no-sample", "--home", str(home.root)],
            cwd=ROOT, env=environment(), stdout=stream, stderr=stream, start_new_session=True,
        )  # fmt: skip
        try:
            while at not in said.read_text() and process.poll() is None:
                time.sleep(0.05)
            time.sleep(2)  # dbt has begun
            os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to the whole group
            code = process.wait(timeout=120)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    return code, said.read_text()


@dataclass(frozen=True)
class Withdrawn:
    """A person who had agreed to everything `CONSENTING` names, and the road after they took it back."""

    customer_id: str
    before: Road
    road: Road


@pytest.fixture(scope="module")
def later(again: Interrupted) -> Withdrawn:
    """In the home of `again`, somebody who is in segment, training set and online answers unsubscribes from all of it."""
    before = finished(again.road.home, run(again.road.home, "--force"))  # which tells the ledger of links
    customer_id, email = agreed_to_everything(before)
    at = before.until
    path = before.home.landing / "consent" / at.date().isoformat() / "unsubscribe_late.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    decisions = [{"event": "withdraw", "purpose": purpose, "channel": channel} for purpose, channel in CONSENTING]
    path.write_text(
        json.dumps(
            {
                "signalId": "sig-e2e-1", "occurredAt": at.isoformat(), "recordedAt": at.isoformat(), "place": "unsubscribe_link",
                "identifier": {"type": "email", "value": email}, "method": "one_click_unsubscribe", "actor": "subject",
                "jurisdiction": "US-CA", "notice": None, "decisions": decisions,
            }
        )
        + "\n"
    )  # fmt: skip
    received = at.timestamp() + 1  # a second later, so that no window of a feature moves over an event
    os.utime(path, (received, received))
    return Withdrawn(customer_id, before, finished(before.home, run(before.home)))


def agreed_to_everything(road: Road) -> tuple[str, str]:
    """A customer the segment reaches, who may be learned from and shown things, and whose e-mail is nobody else's."""
    standing = table(road, "consent_standing").filter("is_allowed")
    agreed = [
        standing.filter(pl.col("purpose_code") == purpose, pl.col("channel_code") == channel)["customer_id"].to_list()
        for purpose, channel in CONSENTING
    ]
    owners = table(road, "customer_identities").group_by("identity_ref").agg(pl.col("customer_id").n_unique())
    alone = owners.filter(pl.col("customer_id") == 1)["identity_ref"]
    customers = table(road, "customers").filter(
        pl.col("email_ref").is_in(alone.implode()),
        pl.all_horizontal(pl.col("customer_id").is_in(ids) for ids in agreed),
    )
    ordered = table(road, "ftr_customer_purchases").filter(pl.col("order_count_90d") > 0)["customer_id"]
    customer_id, email_ref = (
        customers.filter(pl.col("customer_id").is_in(ordered.implode())).sort("customer_id")
        .select("customer_id", "email_ref").row(0)
    )  # fmt: skip
    with open_vault(road.home) as vault:
        return customer_id, vault.get([email_ref])[email_ref]


def reached(road: Road, folder: Path, name: str) -> tuple[ExportReport, set[str]]:
    """The export of `BUYERS` as of what the home knows, without caps and test groups, and who is in it."""
    report = export(road.home, BUYERS, folder / name, road.until, rules=Rules())
    with (folder / name / "members.csv").open(newline="") as file:
        return report, {row["customer_id"] for row in csv.DictReader(file)}


def test_stock_positions_equal_the_truth_for_every_item_and_place(road: Road) -> None:
    keys = ["location_code", "sku"]
    told = pl.read_parquet(road.home.truth / "recorded_movements.parquet")
    true = told.group_by(keys).agg(pl.col("units").sum().cast(pl.Int64))
    found = table(road, "stock_positions").select(*keys, pl.col("on_hand_units").cast(pl.Int64).alias("units"))
    assert found.height == 60 * 5
    assert found.sort(keys).equals(true.select(found.columns).sort(keys))


def test_exactly_the_broken_records_are_in_quarantine(road: Road) -> None:
    broken = json.loads((road.home.truth / "faults.json").read_text())["malformed"]
    found = dict(taking.quarantined(road.home)["table"].value_counts().iter_rows())
    assert found == broken
    assert sum(broken.values()) > 10
    assert sum(row["aside"] for row in road.report["sources"]) == sum(broken.values())


def test_money_equals_the_truth_by_source_and_day_and_by_order(road: Road) -> None:
    money = ["net_cents", "tax_cents", "shipping_cents"]
    day = pl.col("ordered_at").cast(pl.Date).alias("day")
    true = pl.read_parquet(road.home.truth / "orders.parquet").filter(~pl.col("is_test"))
    found = table(road, "orders")
    by_day = [
        frame.group_by("source_name", day).agg(pl.len().alias("orders"), *(pl.col(name).sum() for name in money))
        .sort("source_name", "day").rows()
        for frame in (found, true)
    ]  # fmt: skip
    assert by_day[0] == by_day[1]
    columns = ["order_id", "order_status", *money]
    assert found.select(columns).sort("order_id").rows() == true.select(columns).sort("order_id").rows()


def test_a_second_run_changes_nothing(road: Road) -> None:
    report = run(road.home)
    assert not report["is_changed"]
    assert {**report, "is_changed": True, "stages": []} == {**road.report, "stages": []}
    assert hashes(road.home) == road.left


def test_doing_every_step_after_taking_again_changes_nothing(road: Road, tmp_path: Path) -> None:
    """What `troth run --force` does, without what `again` proves about dbt: each step by itself says nothing is new.

    But for the links of what was published, which the ledger is told of once.
    """
    clock, silent = FixedClock(road.until), lambda *_: None
    copy = Home(tmp_path / "home")
    shutil.copytree(road.home.root, copy.root)
    first, second = (stages.append_consents(copy, clock, silent) for _ in range(2))
    assert (first.appended, second.appended, second.links) == (first.links, 0, 0)
    assert first.links > 1000
    models = [path.name for path in road.home.published.iterdir() if not path.name.startswith((".", "pred_"))]
    assert not [name for name, (_, changed) in warehouse.publish_tables(road.home, models).items() if changed]
    assert sum(row.written for row in stages.publish_features(road.home, silent)) == 0
    assert {row.outcome for row in stages.train_models(road.home, clock, silent)} <= {"unchanged", "not_enough_rows"}
    assert hashes(road.home) == road.left


def test_an_interrupted_run_says_so_once_and_ends_with_130(again: Interrupted) -> None:
    assert again.code == 130
    lines = [line for line in again.said.splitlines() if not line.startswith("done ") and not line.endswith(" ...")]
    assert lines == ["troth: interrupted; what was written is whole, and the next run goes on from there"]


def test_any_order_of_landing_copies_and_an_interruption_give_the_same_tables(road: Road, again: Interrupted) -> None:
    """But for what names the ledger's root: its leaves are salted, so that no two ledgers have the same."""
    found, expected = (
        {path: digest for path, digest in each.left.items() if path.startswith(("raw/", "quarantine/", "published/", "ledger rows"))
         and not path.startswith("published/pred_")}
        for each in (again.road, road)
    )  # fmt: skip
    assert found == expected
    for name in ("pred_rfm", "pred_churn", "pred_recommendations"):
        mine, theirs = (table(each, name).drop("model_version") for each in (again.road, road))
        assert mine.equals(theirs), name
    assert sum(row["duplicate_files"] for row in again.road.report["sources"]) > sum(
        row["duplicate_files"] for row in road.report["sources"]
    )


def test_the_ledger_verifies_without_us(road: Road) -> None:
    told = json.loads(troth(road.home, "audit", "verify", "--json").stdout)
    assert (told["is_verified"], told["ledger_size"]) == (True, road.report["ledger"]["size"])
    alone = subprocess.run(
        [sys.executable, "-m", "consent", "verify", told["export"], "--json"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert alone.returncode == 0, alone.stderr
    found = json.loads(alone.stdout)
    assert (found["verified"], found["size"], found["root"]) == (True, told["ledger_size"], told["root"])


def test_sql_and_python_give_every_customer_the_same_standing(road: Road) -> None:
    with open_ledger(road.home, FixedClock(road.until)) as ledger:
        events = ledger.frame()
    tests = table(road, "customers").filter("is_test")["customer_id"]
    links = table(road, "customer_identities").filter(~pl.col("customer_id").is_in(tests.implode()))
    expected = standing_frame(events, links, read_policy(), road.until, known_at=road.until)
    found = table(road, "consent_standing")
    keys = ["customer_id", "purpose_code", "channel_code"]
    times = [pl.col(name).dt.replace_time_zone(None) for name in ("since_at", "expires_at")]
    plain = expected.with_columns(times).select(found.columns).cast(dict(found.schema)).sort(keys)
    assert found.height == links["customer_id"].n_unique() * 12
    differing = found.sort(keys).join(plain, on=found.columns, how="anti", nulls_equal=True)
    assert differing.rows(named=True) == []
    assert plain.height == found.height
    assert set(found["reason_code"]) >= {"granted", "refused", "withdrawn", "gpc", "never_asked", "contract"}


@pytest.mark.parametrize("service", [each for each in catalogue.SERVICES if each.entity == catalogue.CUSTOMER],
                         ids=lambda service: service.name)  # fmt: skip
def test_features_are_given_exactly_where_standing_allows(road: Road, service: catalogue.Service) -> None:
    desk = answers.desk(road.home)
    for customer_id, is_allowed, reason in standing_for(road, str(service.purpose_code), service.channel_code):
        answer = answers.ask_customer(desk, customer_id, service.name, road.until)
        assert (answer.is_allowed, answer.reason_code) == (is_allowed, reason), customer_id
        assert (answer.features is not None) == is_allowed


def test_recommendations_are_given_exactly_where_standing_allows(road: Road) -> None:
    desk = answers.desk(road.home)
    for customer_id, is_allowed, reason in standing_for(road, "personalization", "*"):
        answer = answers.ask_recommend(desk, customer_id, road.until)
        assert (answer.is_allowed, answer.reason_code) == (is_allowed, reason), customer_id
        assert is_allowed or not answer.items


def test_availability_answers_what_the_mart_says_of_every_item_and_place(road: Road) -> None:
    desk = answers.desk(road.home)
    mart = table(road, "availability").select("sku", "location_code", "on_hand_units", "available_units")
    found = [
        (each.sku, each.location_code, each.on_hand_units, each.available_units)
        for sku in mart["sku"].unique()
        for each in answers.ask_availability(desk, sku, None, road.until)
    ]
    assert sorted(found) == sorted(mart.rows())


def test_the_command_line_answers_and_refuses_as_standing_says(road: Road) -> None:
    said = standing_for(road, "personalization", "*")
    allowed = next(customer_id for customer_id, is_allowed, _ in said if is_allowed)
    refused, reason = next((customer_id, reason) for customer_id, is_allowed, reason in said if not is_allowed)
    yes, no = (troth(road.home, "ask", "customer", who, "--json") for who in (allowed, refused))
    assert (yes.returncode, json.loads(yes.stdout)["is_allowed"]) == (0, True)
    assert (no.returncode, json.loads(no.stdout)["reason_code"]) == (1, reason)
    shown = troth(road.home, "ask", "recommend", refused, "--json")
    assert (shown.returncode, json.loads(shown.stdout)["items"]) == (1, [])
    stock = troth(road.home, "ask", "availability", "SKU-00001", "--json")
    assert (stock.returncode, len(json.loads(stock.stdout))) == (0, 5)


def test_the_command_line_tells_what_became_of_an_order_and_says_so_where_there_is_none(road: Road) -> None:
    orders = (
        table(road, "orders")
        .filter(pl.col("source_name") == "ecommerce", pl.col("refunded_cents") > 0)
        .sort("order_id")
    )
    name, stage, order_id = orders.select("order_name", "order_stage", "order_id").row(0)
    told, nobody = troth(road.home, "ask", "order", name, "--json"), troth(road.home, "ask", "order", "#0")
    answer = json.loads(told.stdout)
    assert (told.returncode, answer["view"]["order_stage"], answer["order"]) == (0, stage, name)
    events = table(road, "order_events").filter(pl.col("order_id") == order_id)
    assert len(answer["view"]["timeline"]) == events.height
    assert (nobody.returncode, "order: expected the name or id" in nobody.stderr) == (1, True)
    shopper = troth(road.home, "ask", "order", name, "--audience", "shopper")
    assert shopper.returncode == 0
    assert [code for code in ("cus_", "SKU-", "raw_") if code in shopper.stdout] == []


def test_money_given_back_equals_the_truth_by_order(road: Road) -> None:
    cents = pl.sum_horizontal("net_cents", "tax_cents", "shipping_cents").sum().alias("cents")
    true = pl.read_parquet(road.home.truth / "refunds.parquet").group_by("order_id").agg(cents)
    found = table(road, "refunds").group_by("order_id").agg(pl.col("gross_cents").sum().alias("cents"))
    assert found.sort("order_id").rows() == true.sort("order_id").rows()


def standing_for(road: Road, purpose: str, channel: str) -> list[tuple[str, bool, str]]:
    rows = table(road, "consent_standing").filter(
        pl.col("purpose_code") == purpose, pl.col("channel_code") == channel
    )  # fmt: skip
    return rows.select("customer_id", "is_allowed", "reason_code").sort("customer_id").rows()


def test_a_dry_export_writes_nothing(road: Road, tmp_path: Path) -> None:
    done = troth(road.home, "segment", "export", "weekend_browsers", "--to", str(tmp_path / "out"), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["folder"] is None
    assert list(tmp_path.iterdir()) == []


def test_an_export_names_its_checkpoint_and_the_hash_of_what_it_wrote(road: Road, tmp_path: Path) -> None:
    done = troth(road.home, "segment", "export", "weekend_browsers", "--to", str(tmp_path / "out"), "--yes", "--json")
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    data = (tmp_path / "out" / "members.csv").read_bytes()
    assert manifest["files"]["members.csv"]["sha256"] == hashlib.sha256(data).hexdigest()
    assert manifest["files"]["members.csv"]["rows"] == manifest["counts"]["exported"] == data.count(b"\n") - 1
    assert manifest["counts"]["matched"] == manifest["counts"]["exported"] + sum(manifest["counts"]["refused"].values())
    assert manifest["consent"]["checkpoint"] == road.home.root.joinpath("ledger.checkpoint").read_text()
    assert manifest["consent"]["ledger_root"] == road.report["ledger"]["root"]
    published = {name: path.stem for name, path in road.versions.items()}
    assert manifest["tables"].items() <= published.items()


def test_an_export_reaches_exactly_the_matching_people_who_may_be_contacted(road: Road, tmp_path: Path) -> None:
    report, members = reached(road, tmp_path, "buyers")
    may = {customer_id for customer_id, is_allowed, _ in standing_for(road, "marketing", "email") if is_allowed}
    newest = table(road, "ftr_customer_purchases").filter(pl.col("feature_at") == pl.col("feature_at").max())
    buyers = set(newest.filter(pl.col("order_count_90d") >= 1)["customer_id"])
    assert members <= may & buyers
    left_out = report.refused.get("no_contact_point", 0) + report.refused.get("same_contact_point", 0)
    assert len(members) == report.exported == len(may & buyers) - left_out
    assert members


def test_rows_learned_from_and_rows_left_out_add_up(road: Road) -> None:
    trained = 0
    for baseline in BASELINES:
        version = registry.pointed(road.home, baseline.name, registry.LATEST)
        if version is None:
            assert road.model(baseline.name)["outcome"] == "not_enough_rows"
            continue
        trained += 1
        manifest = registry.manifest(road.home, baseline.name, version)
        training = manifest["training"]
        assert training["rows_considered"] == training["rows_kept"] + sum(training["left_out"].values())
        assert training["rows_considered"] == baseline.rows(road.home, road.until.replace(tzinfo=None)).height
        assert (training["ledger_size"], training["ledger_root"]) == tuple(
            road.report["ledger"][k] for k in ("size", "root")
        )
        assert road.model(baseline.name)["left_out"] == training["left_out"]
    assert trained


def test_withdrawn_consent_leaves_the_next_export(later: Withdrawn, tmp_path: Path) -> None:
    _, members = reached(later.road, tmp_path, "after")
    assert later.customer_id not in members
    assert later.before.report["ledger"]["appended"] == later.before.report["ledger"]["links"] > 0
    assert later.road.report["ledger"]["appended"] == len(CONSENTING)


def test_withdrawn_consent_leaves_the_next_training_set(later: Withdrawn) -> None:
    before, after = later.before.model("rfm"), later.road.model("rfm")
    assert after["rows"] == before["rows"] - 1
    assert after["left_out"]["withdrawn"] == before["left_out"].get("withdrawn", 0) + 1
    assert after["version"] != before["version"]
    assert later.customer_id not in table(later.road, "pred_recommendations").columns


def test_withdrawn_consent_refuses_the_next_read(later: Withdrawn) -> None:
    home, at = later.road.home, later.road.until
    for service in ("recommend_v1", "campaign_email_v1"):
        answer = answers.ask_customer(home, later.customer_id, service, at)
        assert (answer.is_allowed, answer.reason_code, answer.features) == (False, "withdrawn", None)
    recommended = answers.ask_recommend(home, later.customer_id, at)
    assert (recommended.is_allowed, recommended.reason_code, recommended.items) == (False, "withdrawn", [])


def test_withdrawn_consent_changes_nobody_elses_standing(later: Withdrawn) -> None:
    columns = ["customer_id", "purpose_code", "channel_code", "is_allowed", "reason_code"]
    before = table(later.before, "consent_standing").select(columns)
    changed = table(later.road, "consent_standing").select(columns).join(before, on=columns, how="anti")
    assert set(changed["customer_id"]) == {later.customer_id}
    assert set(changed.select("purpose_code", "channel_code").rows()) == set(CONSENTING)
    assert set(changed["reason_code"]) == {"withdrawn"}


def test_the_platform_reads_no_truth() -> None:
    """The truth decides nothing but the clock of answers: whether its folder is there."""
    readers = [
        path.relative_to(ROOT).as_posix()
        for room in ("consent", "feature_repo", "models", "orchestration", "serving")
        for path in (ROOT / room).rglob("*.py")
        if "home.truth" in path.read_text() and path.name != "answers.py"
    ]
    assert readers == []


def test_every_source_is_on_the_road(road: Road) -> None:
    silent = ("steward", "stock")  # nobody decided anything of anybody, or sent an event by itself
    spoken = [source.name for source in SOURCES if source.name not in silent]
    assert [row["source"] for row in road.report["sources"] if row["rows"]] == spoken


def test_every_consent_event_is_about_what_the_policy_knows(road: Road) -> None:
    policy, events = read_policy(), table(road, "consent_events")
    assert set(events["purpose_code"]) - {"*"} <= set(policy.purposes)
    assert set(events["channel_code"]) - {"*"} <= set(policy.channels)
    assert set(events["notice_id"].drop_nulls()) <= set(policy.notices)


def test_exports_that_are_told_no_folder_get_one_each(road: Road) -> None:
    for _ in range(2):
        done = troth(road.home, "segment", "export", "gold_members_near_stock", "--yes", "--json")
        assert done.returncode == 0, done.stderr
    folder = road.home.exports / "segments"
    assert len([path for path in folder.iterdir() if path.name.startswith("gold_members_near_stock-")]) == 2
