"""The record of processing, the log and the gate over the real project's flow and a small retailer with a real ledger:
every number against an independent count, and what is planted is found."""

import csv
import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from consent.ledger.opening import signer_of
from consent.receipts import decisions
from consent.rights import open_rights
from feature_repo.catalogue import RECOMMEND_CONTEXT, SERVICES
from models.build import BASELINES
from models.decisions import folder_of
from models.purpose_flow.breaking import Broken
from models.purpose_flow.checking import Use, back
from models.purpose_flow.declarations import place
from models.purpose_flow.errors import FlowError
from models.purpose_flow.inspecting import Inspection
from models.purpose_flow.kept import file_of, keep, kept, known, uncovered
from models.segments.definition import Comparison, written
from models.segments.export import export
from models.segments.preview import preview
from models.segments.rules import Rules
from orchestration import cli, purpose_gate
from orchestration.errors import RunError
from serving.console.looks import Looks
from serving.errors import ServingError
from serving.hub.webhooks import NewDestination, Outbox
from serving.operations.read_log import PersonalRead, ReadLog
from serving.records import uses
from serving.records.compare import diff
from serving.records.events import events
from serving.records.measures import measures
from serving.records.record import record
from tests.integration.segment_shop import AS_OF, POLICY, Shop, plain_segment
from troth.clock import FixedClock
from troth.home import Home
from troth.published import current

pytestmark = pytest.mark.slow
DESTINATION = """
destinations:
  newsletter:
    kind: folder
    where: exports/newsletter
    format: csv
    purposes: [marketing]
    channels: [email]
    recipient: {legal_name: Letterbird GmbH, role: processor, country: DE}
"""
PARTNER = """
destinations:
  partner:
    kind: webhook
    where: https://hooks.example.com/troth
    purposes: [marketing]
    channels: [email]
    recipient: {legal_name: Tent & Trail Co-op, role: third_party, country: US}
"""


@pytest.fixture(scope="module")
def project() -> Inspection:
    """The flow of the project itself, no home's uses in it."""
    return purpose_gate.inspection(Home(Path("nowhere")))


@pytest.fixture
def home(tmp_path: Path, project: Inspection) -> Home:
    found = Home(tmp_path / "home")
    keep(found, project, "print", AS_OF)
    return found


@pytest.fixture
def shop(home: Home) -> Shop:
    return Shop(home)


def test_every_use_of_the_code_is_in_the_record_under_its_purpose(home: Home) -> None:
    found = record(home, AS_OF)
    by = {f"{each.kind} {each.name}": activity.purpose_code for activity in found.activities for each in activity.implementations}  # fmt: skip
    for service in (*SERVICES, RECOMMEND_CONTEXT):
        assert by.get(f"feature service {service.name}") == service.purpose_code, service.name
    for baseline in BASELINES:
        assert by[f"table {baseline.table}"] == baseline.use_purpose_code
        assert by[f"training {baseline.name}"] == "model_training"
    assert by["segment lapsed_regulars"] == by["export lapsed_regulars by email"] == "marketing"
    assert by["answer order"] == by["page contact data in the clear"] == "service"
    assert found.flow_is_verified


def test_the_data_of_an_activity_is_what_reaches_its_uses_and_no_more(home: Home) -> None:
    flow = known(home)
    assert flow is not None
    broken, found = Broken(flow.graph, flow.breakers), record(home, AS_OF)
    reached = {use.title: (use.purpose, set(back(broken, use.reads))) for use in uses.of_home(home, flow.graph)}
    for activity in found.activities:
        mine = {title: places for title, (purpose, places) in reached.items() if purpose == activity.purpose_code}
        kinds = {
            flow.declared[place].category for places in mine.values() for place in places if place in flow.declared
        }
        assert {data.category for data in activity.data} == kinds
        for data in activity.data:
            for told in map(place, data.columns):
                assert flow.declared[told].category == data.category
                assert activity.purpose_code in flow.declared[told].purposes
                assert any(told in mine[title] for title in data.uses)
    unified = next(each for each in found.activities if each.purpose_code == "profile_unification")
    assert {each.category for each in unified.data} >= {"birth_date", "name", "contact", "address"}
    assert {each.source for each in unified.subjects} >= {"ecommerce", "loyalty", "pos"}


def test_people_are_counted_as_their_standing_says(shop: Shop) -> None:
    later = AS_OF + timedelta(days=700)  # some yeses have ended by then
    for at in (AS_OF, later):
        testers = {row["customer_id"] for row in shop.customers if row["is_test"] is not False}
        counted: Counter[tuple[str, str, bool, str]] = Counter()
        for row in pl.read_parquet(current(shop.home, "consent_standing")).to_dicts():
            if row["customer_id"] in testers:
                continue
            ended = row["is_allowed"] and row["expires_at"] is not None and row["expires_at"] <= at.replace(tzinfo=None)
            is_allowed, reason = (False, "expired") if ended else (row["is_allowed"], row["reason_code"])
            counted[row["purpose_code"], row["channel_code"], is_allowed, reason] += 1
        found = {
            (activity.purpose_code, each.channel_code, each.is_allowed, each.reason_code): each.people
            for activity in record(shop.home, at).activities
            for each in activity.people
        }
        assert found == dict(counted)
    assert any(reason == "expired" for *_, reason in found)


def test_a_new_destination_is_a_recipient_a_use_and_a_difference(home: Home) -> None:
    home.root.mkdir(parents=True, exist_ok=True)
    before = record(home, AS_OF)
    (home.root / "destinations.yml").write_text(DESTINATION)
    after = record(home, AS_OF)
    changed = {change.where for change in diff(before, after) if change.before is None}
    assert "activities / marketing / recipients / destination Letterbird GmbH (newsletter)" in changed
    assert "activities / marketing / implementations / destination newsletter for marketing" in changed
    (recipient,) = (each for activity in after.activities for each in activity.recipients if each.kind == "destination")
    assert (recipient.role, recipient.country, recipient.is_transfer, recipient.keep_days) == ("processor", "DE", True, 365)  # fmt: skip
    assert any("Letterbird GmbH" in each.sentence and each.kind == "found_not_declared" for each in after.differences)
    assert before.sha256 != after.sha256


def test_a_segment_described_in_the_home_is_in_the_record_at_once(home: Home) -> None:
    before = record(home, AS_OF)
    folder = home.root / "segments" / "definitions"
    folder.mkdir(parents=True)
    segment = plain_segment(Comparison("customers", "tier_code", "=", ("gold",)), name="golden", purpose="marketing")
    (folder / "golden.yml").write_text(written(segment))
    changed = {change.where for change in diff(before, record(home, AS_OF)) if change.before is None}
    assert "activities / marketing / implementations / segment golden" in changed
    assert "activities / marketing / implementations / export golden by email" in changed


def test_a_feature_service_for_another_purpose_is_found_in_record_and_diff(home: Home, project: Inspection) -> None:
    """Planted in the flow as it is kept, as the next check of a changed catalogue keeps it."""
    flow = known(home)
    assert flow is not None
    service = next(use for use in uses.of_home(home, flow.graph) if use.name == "churn_v1")
    planted = replace(service, name="churn_v2", purpose="third_party_sharing")
    findings = uncovered(home, [planted])
    assert {finding.personal.category for finding in findings} >= {"behaviour"}
    with pytest.raises(
        FlowError, match="feature service churn_v2: expected data that may be used for third_party_sharing"
    ):
        raise FlowError(findings[0].sentence)


def test_whoever_webhooks_tell_is_a_recipient(shop: Shop) -> None:
    outbox = Outbox(shop.home)
    try:
        made = NewDestination(name="crm", url="https://crm.example.com/in?token=secret", purposes=["marketing"])
        outbox.add(made, POLICY, 0, AS_OF)
    finally:
        outbox.close()
    found = record(shop.home, AS_OF)
    (recipient,) = (each for activity in found.activities for each in activity.recipients if each.kind == "webhook")
    assert recipient.name == "crm (crm.example.com)"
    assert "secret" not in repr(found)


def test_what_is_on_is_what_the_home_holds(shop: Shop) -> None:
    found = {each.name: each for each in record(shop.home, AS_OF).measures}
    assert found["vault_encrypted"].is_on
    assert found["vault_encrypted"].evidence.startswith("78 values, 78 keys, wrapped under 1 key-encryption key;")
    assert found["keys_apart"].is_on is False
    assert found["ledger_signed"].evidence.startswith("60 events")
    assert found["purpose_flow"].is_on
    assert found["roles"].is_on is False
    assert found["in_transit"].is_on is None


# The log


@pytest.fixture
def busy(shop: Shop) -> tuple[Home, datetime]:
    """A home in which something of every kind that is written by serving happened at AS_OF, twenty reads of it."""
    home, at = shop.home, AS_OF
    segment = plain_segment(Comparison("customers", "tier_code", "in", ("gold", "silver", "basic")), name="everybody")
    export(home, segment, home.exports / "one", at, rules=Rules())
    looks, log = Looks(home.root / "logs"), ReadLog(home.root / "logs")
    looks.write(at, "r1", "kim", "/customers", "open", "email_x", "service", why="asked at the desk")
    looks.write(at, "r2", "kim", "/customers", "reveal", "email_x", "service", allowed=False, reason_code="withdrawn")
    for number in range(20):
        read = PersonalRead(
            at=at + timedelta(minutes=number * 6), request_id=f"r{number}", caller="shop", route="/v1/features", service="recommend_v1",
            purpose_code="personalization", channel_code="*", asked=3, allowed=2, refused={"withdrawn": 1}, ledger_size=60,
        )  # fmt: skip
        log.write(read)
    looks.close()
    log.close()
    with open_rights(home) as rights:
        request = rights.receive("access", ["email_abc"], at, "desk", "privacy_desk")
        rights.advance(request.request_id, "identity_checked", at + timedelta(hours=1), "privacy_desk")
    return home, at


def test_the_log_tells_each_thing_that_happened_with_who_what_for_and_the_evidence(
    busy: tuple[Home, datetime],
) -> None:
    home, at = busy
    found = events(home, at - timedelta(days=1), at + timedelta(days=1))
    assert [each.at for each in found] == sorted(each.at for each in found)
    of = {kind: [each for each in found if each.kind == kind] for kind in {each.kind for each in found}}
    receipt = decisions.load(folder_of(home), 1, signer_of(home).verifier)
    (exported,) = of["export"]
    assert (exported.who, exported.purpose_code, exported.evidence) == (
        "segment:everybody",
        "marketing",
        "decision receipt 1",
    )
    assert exported.evidence_sha256 == receipt.hash
    assert exported.count == sum(row["subject_count"] for row in receipt.counts if row["is_allowed"])
    assert [(each.who, each.what) for each in of["look"]] == [
        ("kim", "open on /customers"), ("kim", "reveal on /customers, refused (withdrawn)"),
    ]  # fmt: skip
    assert sum(each.count or 0 for each in of["read"]) == 40
    assert len(of["read"]) == 2  # an hour each
    assert [each.what for each in of["request"]] == ["access: received", "access: identity_checked"]
    assert "email_abc" not in repr(found)


def test_the_log_is_cut_by_time_kind_and_number(busy: tuple[Home, datetime]) -> None:
    home, at = busy
    everything = events(home, at - timedelta(days=1), at + timedelta(days=1))
    assert events(home, at + timedelta(minutes=90), at + timedelta(days=1), ["request"]) == []
    only = events(home, at - timedelta(days=1), at + timedelta(days=1), ["look"])
    assert {each.kind for each in only} == {"look"}
    assert events(home, at - timedelta(days=1), at + timedelta(days=1), most=3) == everything[-3:]
    halves = [events(home, at - timedelta(days=1), at + timedelta(minutes=60)), events(home, at + timedelta(minutes=60), at + timedelta(days=1))]  # fmt: skip
    assert sum(each.count or 0 for half in halves for each in half if each.kind == "read") == 40
    with pytest.raises(ServingError, match="expected kinds among use, export"):
        events(home, at, at, ["gossip"])  # type: ignore[list-item]


def test_a_line_that_a_crash_cut_short_hides_no_other(busy: tuple[Home, datetime]) -> None:
    home, at = busy
    path = home.root / "logs" / "console_looks.jsonl"
    path.write_bytes(path.read_bytes() + b'{"at": "2026-05-')
    assert len(events(home, at - timedelta(days=1), at + timedelta(days=1), ["look"])) == 2


def test_publications_of_tables_about_people_are_told_and_others_are_not(shop: Shop) -> None:
    now = datetime.now(UTC)
    found = events(shop.home, now - timedelta(hours=1), now + timedelta(hours=1), ["publication"])
    rows = {each.what.partition(" ")[0]: each.count for each in found}
    assert rows["customers"] == len(shop.customers)
    assert rows["orders"] == len(shop.orders)
    assert "products" not in rows


def test_measures_are_those_of_the_command_and_are_kept_until_something_is_said(shop: Shop) -> None:
    found = measures(shop.home, AS_OF, least=1)
    assert measures(shop.home, AS_OF + timedelta(minutes=5), least=1) is found
    told = CliRunner().invoke(
        cli.app,
        ["consent", "measures", "--json", "--home", str(shop.home.root), "--at", AS_OF.isoformat(), "--least", "1"],
    )
    answer = json.loads(told.stdout)
    assert [row["asked"] for row in answer["rates"]] == [row["asked"] for row in found.rates]
    assert found.ledger_size == answer["ledger_size"] == 60
    with pytest.raises(ServingError, match="expected a ledger in the home, found none"):
        measures(Home(shop.home.root / "elsewhere"), AS_OF)


# The gate


def test_what_is_kept_is_asked_again_only_when_something_changed(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    first = purpose_gate.hold(home, FixedClock(AS_OF))
    assert first.is_verified, first.findings or first.faults
    again = purpose_gate.hold(home, FixedClock(AS_OF + timedelta(days=1)))
    assert again.checked_at == AS_OF
    (home.root / "destinations.yml").write_text(DESTINATION)
    assert purpose_gate.hold(home, FixedClock(AS_OF + timedelta(days=2))).checked_at == AS_OF + timedelta(days=2)
    file_of(home).write_bytes(b"damaged")
    assert purpose_gate.hold(home, FixedClock(AS_OF + timedelta(days=3))).checked_at == AS_OF + timedelta(days=3)


def test_nothing_is_published_past_a_finding_and_the_error_names_the_path(tmp_path: Path, project: Inspection) -> None:
    home = Home(tmp_path / "home")
    planted = Use(
        "feature service", "birthdays_v1", "marketing", (("stg_loyalty__members", "birth_year"),), "catalogue.py"
    )
    keep(home, project.using([*project.uses, planted]), purpose_gate.fingerprint(home), AS_OF)
    with pytest.raises(RunError, match=r"Nothing is published.*(?s:.)*raw_loyalty__members\.birth_date -\[transformation\]-> stg_loyalty__members\.birth_year -> feature service birthdays_v1"):  # fmt: skip
        purpose_gate.hold(home, FixedClock(AS_OF))


def test_a_destination_that_may_not_have_what_it_takes_stops_itself_alone(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.root.mkdir()
    (home.root / "destinations.yml").write_text(PARTNER)
    found = purpose_gate.hold(home, FixedClock(AS_OF))
    assert {each.use for each in found.findings} == {"destination partner for third_party_sharing"}
    assert not found.is_verified


def test_nobody_is_selected_for_a_segment_that_reads_what_its_purpose_does_not_cover(shop: Shop) -> None:
    viewed = Comparison("customer_engagement", "cart_count_30d", ">", ("0",))
    segment = plain_segment(viewed, name="served", purpose="service", channels=("onsite",))
    with pytest.raises(FlowError, match="segment served: expected data that may be used for service"):
        preview(shop.home, segment, AS_OF)
    with pytest.raises(FlowError, match="segment served: expected data that may be used for service"):
        export(shop.home, segment, shop.home.exports / "served", AS_OF, rules=Rules())
    assert not (shop.home.exports / "served").exists()
    preview(shop.home, replace(segment, purpose="personalization"), AS_OF)


# The commands


def test_the_commands_write_the_record_compare_it_and_tell_the_log(busy: tuple[Home, datetime], tmp_path: Path) -> None:
    home, _ = busy
    at_home, runner = ["--home", str(home.root)], CliRunner()
    for form in ("html", "csv", "json"):
        out = tmp_path / f"record.{form}"
        done = runner.invoke(cli.app, ["audit", "record", "--format", form, "--out", str(out), "--json", *at_home])
        assert done.exit_code == 0, done.output
        assert out.stat().st_size > 10_000
    (home.root / "destinations.yml").write_text(DESTINATION)
    done = runner.invoke(cli.app, ["audit", "record", "--compare", str(tmp_path / "record.json"), "--check", "--json", *at_home])  # fmt: skip
    assert done.exit_code == 1  # people are told of somebody else
    assert any("Letterbird" in change["where"] for change in json.loads(done.stdout)["changes"])
    out = tmp_path / "events.csv"
    since = (AS_OF - timedelta(days=1)).strftime("%Y-%m-%d")
    done = runner.invoke(cli.app, ["audit", "events", "--since", since, "--kind", "look", "--out", str(out), "--json", *at_home])  # fmt: skip
    assert json.loads(done.stdout)["events"] == 2, done.output
    with out.open() as file:
        assert [row["who"] for row in csv.DictReader(file)] == ["kim", "kim"]
    drawn = runner.invoke(cli.app, ["flow", "draw", "churn_v1", "--out", str(tmp_path / "use.svg"), "--json", *at_home])
    assert drawn.exit_code == 0, drawn.output
    assert (tmp_path / "use.svg").read_text().startswith("<svg ")


def test_the_flow_that_a_run_checked_is_the_one_that_is_kept(home: Home, project: Inspection) -> None:
    found = kept(home)
    assert found is not None
    assert found.is_verified
    assert len(found.columns) == project.report.tables


def test_a_run_leaves_out_the_one_segment_that_may_select_nobody(shop: Shop) -> None:
    folder = shop.home.root / "segments" / "definitions"
    folder.mkdir(parents=True)
    golden = plain_segment(Comparison("customers", "tier_code", "=", ("gold",)), name="golden")
    viewed = Comparison("customer_engagement", "cart_count_30d", ">", ("0",))
    served = plain_segment(viewed, name="served", purpose="service", channels=("onsite",))
    for each in (golden, served):
        (folder / f"{each.name}.yml").write_text(written(each))
    flow = known(shop.home)
    assert flow is not None
    listed = uses.of_home(shop.home, flow.graph)
    assert {f.use.name for f in uncovered(shop.home, listed) if f.use.kind == "segment"} == {"served"}
    assert {use.is_of_home for use in listed if use.name in ("golden", "served")} == {True}
