"""What a segment did, against a reference that counts person by person, and against worlds whose truth is known."""

import random
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from models.purpose_flow.declarations import made_tables
from models.results.arms import ANOTHER_SHARE, ARMS, NOT_KNOWN, PURPOSE, TABLES, TOO_RECENT, open_arms
from models.results.figures import MEASURES, Estimate, Window
from models.results.results import looks, newest, record, results, went_out
from models.segments import kept
from models.segments.decision import HELD_OUT, TREATED, assigned
from models.segments.definition import SegmentError
from models.segments.export import export
from models.segments.rules import Rules
from models.tables import naive
from orchestration.printing import show
from orchestration.results_commands import told
from orchestration.rights.copies import other_tables
from tests.integration.results_shop import AT, SENT, UNTIL, WRITTEN, ResultsShop, customer, simulated
from tests.integration.segment_shop import AS_OF, EVERYBODY, Shop, plain_segment
from troth.home import Home

MICROSECOND = timedelta(microseconds=1)
DAY = timedelta(days=1)


def the(found: Window, measure: str) -> Estimate:
    return next(each for each in found.estimates if each.measure == measure)


# The reference.


def everywhere(shop: ResultsShop, chance: random.Random, people: int) -> list[dict[str, Any]]:
    """People of every kind, in files of two channels, some at the edges of windows, and what they did; the files' rows."""
    says = ["granted", "granted", "granted", "refused", "withdrawn", None]
    for number in range(people):
        if number % 11 == 10:
            continue  # assigned, and no longer known
        ended = chance.choice([None, None, UNTIL, UNTIL + MICROSECOND, UNTIL - DAY])
        shop.know(number, is_test=number % 13 == 12, says=chance.choice(says), expires_at=ended)
    files = []
    for at, channel, percent in (
        (UNTIL - 60 * DAY, "email", 10), (UNTIL - 50 * DAY, "email", 20), (UNTIL - 30 * DAY, "sms", 20),
        (UNTIL - 28 * DAY, "email", 20), (UNTIL - 14 * DAY + MICROSECOND, "sms", 20), (UNTIL + DAY, "email", 20),
    ):  # fmt: skip
        chosen = chance.sample(range(people), people // 3)
        arms = {customer(number): HELD_OUT if number % 5 == 0 else TREATED for number in chosen}
        shop.assign(arms, at, channel, replace(WRITTEN, holdout_percent=percent, version=1 + percent // 20))
        files += [
            {"who": who, "arm": arm, "at": at, "channel": channel, "percent": percent} for who, arm in arms.items()
        ]
    for number in chance.choices(range(people), k=people * 12):
        who, sent = customer(number), chance.choice(files)["at"]
        off = chance.choice([0, 7, 14, 28]) * DAY + chance.choice([-MICROSECOND, timedelta(0), MICROSECOND])
        at = sent + (off if chance.random() < 0.3 else timedelta(hours=chance.uniform(-100, 800)))
        if chance.random() < 0.4:
            shop.order(
                who, at, chance.choice([-500, 0, 990, 12_000]), is_cancelled=chance.random() < 0.1,
                currency=chance.choice(["USD", "USD", "USD", "EUR"]),
            )  # fmt: skip
        else:
            shop.see(who, at, chance.choice(["Product Viewed", "Product Added"]))
    shop.publish()
    return files


def by_hand(
    shop: ResultsShop, files: list[dict[str, Any]], at: datetime, channel: str | None, days: int
) -> dict[str, Any]:
    """Person by person: their first file, why they are not measured, and what they did after it."""
    mine = [file for file in files if file["at"] <= at and channel in (None, file["channel"])]
    known = {row["customer_id"]: row for row in shop.rows["customers"]}
    said = {row["customer_id"]: row for row in shop.rows["consent_standing"] if row["purpose_code"] == "analytics"}
    until = min(at, UNTIL)
    drawn, people, reasons, did = Counter[str](), Counter[str](), Counter[str](), []
    for who in sorted({file["who"] for file in mine}):
        first = min((file for file in mine if file["who"] == who), key=lambda file: (file["at"], file["channel"]))
        stands = said.get(who)
        if first["percent"] != 20:
            reasons[ANOTHER_SHARE] += 1
            continue
        drawn[first["arm"]] += 1
        if first["at"] + timedelta(days=days) > until:
            reasons[TOO_RECENT] += 1
        elif who not in known:
            reasons[NOT_KNOWN] += 1
        elif known[who]["is_test"]:
            reasons["test_customer"] += 1
        elif stands is None:
            reasons["never_asked"] += 1
        elif not stands["is_allowed"]:
            reasons[stands["reason_code"]] += 1
        elif stands["expires_at"] is not None and stands["expires_at"] <= at:
            reasons["expired"] += 1
        else:
            people[first["arm"]] += 1
            did.append((first["arm"], after(shop, who, first["at"], days)))
    return {"assigned": drawn, "people": people, "reasons": reasons, "did": did}


def after(shop: ResultsShop, who: str, sent: datetime, days: int) -> dict[str, int]:
    orders = [
        row
        for row in shop.rows["orders"]
        if row["customer_id"] == who and not row["is_cancelled"] and sent < row["ordered_at"] <= sent + days * DAY
    ]
    seen = [
        row
        for row in shop.rows["web_events"]
        if row["customer_id"] == who and sent < row["occurred_at"] <= sent + days * DAY
    ]
    return {
        "orders": len(orders),
        "net_cents": sum(row["net_cents"] for row in orders if row["currency_code"] == "USD"),
        "paid_orders": sum(row["currency_code"] == "USD" for row in orders),
        "events": len(seen),
        "views": sum(row["event_name"] == "Product Viewed" for row in seen),
    }


@pytest.mark.parametrize("channel", [None, "email", "sms"])
@pytest.mark.parametrize("at", [AT, AT - timedelta(days=16)])
def test_people_reasons_and_what_they_did_are_those_of_a_count_by_hand(
    tmp_path: Path, channel: str | None, at: datetime
) -> None:
    shop = ResultsShop(Home(tmp_path))
    files = everywhere(shop, random.Random(4), 300)
    with open_arms(shop.home, WRITTEN.name, naive(at), channel) as arms:
        for days in (7, 14, 28):
            found, truth = arms.measured(days), by_hand(shop, files, naive(at), channel, days)
            assert found.another_share == truth["reasons"].pop(ANOTHER_SHARE, 0)
            assert dict(found.left_out) == dict(truth["reasons"])
            assert {arm: count for arm, count in found.assigned.items() if count} == dict(truth["assigned"])
            assert {arm: count for arm, count in found.people.items() if count} == dict(truth["people"])
            assert sum(found.assigned.values()) == sum(found.people.values()) + sum(found.left_out.values())
            columns = ("orders", "net_cents", "paid_orders", "events", "views")
            each = found.did.group_by("person", "arm").agg(pl.col(columns).sum())
            mine = Counter((row["arm"], *(row[name] for name in columns)) for row in each.iter_rows(named=True))
            theirs = Counter((arm, *(row[name] for name in columns)) for arm, row in truth["did"] if row["orders"] or row["events"])  # fmt: skip
            assert mine == theirs
            assert found.did["day"].is_between(1, days).all()


def test_figures_of_a_window_are_those_of_a_count_by_hand(tmp_path: Path) -> None:
    shop = simulated(Home(tmp_path), 6, people=800)
    files = [
        {"who": row["customer_id"], "arm": row["arm"], "at": SENT, "channel": "email", "percent": 20}
        for path in kept.assigned_files(shop.home)[WRITTEN.name]
        for row in pl.read_parquet(path).iter_rows(named=True)
    ]
    found = results(shop.home, WRITTEN.name, AT, windows=(28,)).channels[0].windows[0]
    truth = by_hand(shop, files, naive(AT), None, 28)
    for arm in ARMS:
        rows = [row for whose, row in truth["did"] if whose == arm]
        expected = {
            "ordered": sum(row["orders"] >= 1 for row in rows) / len(rows),
            "ordered_again": sum(row["orders"] >= 2 for row in rows) / len(rows),
            "net_cents": sum(row["net_cents"] for row in rows) / len(rows),
            "net_cents_per_order": sum(row["net_cents"] for row in rows) / sum(row["paid_orders"] for row in rows),
            "visited": sum(row["events"] > 0 for row in rows) / len(rows),
            "views": sum(row["views"] for row in rows) / len(rows),
        }
        told_of = {each.measure: getattr(each, arm) for each in found.estimates}
        assert expected.keys() == told_of.keys()
        for measure, value in told_of.items():
            assert value is None or value == pytest.approx(expected[measure])
    assert [day.day for day in found.by_day["ordered"]] == list(range(1, 29))
    assert found.by_day["ordered"][-1].difference == the(found, "ordered").difference
    assert found.by_day["net_cents"][-1].treated == the(found, "net_cents").treated


# The truth is known.


def test_a_planted_lift_is_found_and_covered(tmp_path: Path) -> None:
    shop = simulated(Home(tmp_path), 21, people=3_000, lift=0.15)
    found = results(shop.home, WRITTEN.name, AT, windows=(28,)).channels[0].windows[0]
    ordered = the(found, "ordered")
    assert ordered.verdict == "more"
    assert ordered.difference is not None
    assert ordered.difference.always_low < ordered.difference.low < 0.15 < ordered.difference.high
    assert the(found, "net_cents").verdict == "more"
    assert the(found, "visited").verdict == "no_difference_seen"
    assert not found.has_mismatch


def test_no_lift_is_found_where_none_was_planted(tmp_path: Path) -> None:
    for seed in range(8):
        shop = simulated(Home(tmp_path / str(seed)), seed, people=800)
        found = results(shop.home, WRITTEN.name, AT, windows=(28,)).channels[0].windows[0]
        assert {each.verdict for each in found.estimates} <= {"no_difference_seen", "not_enough_data"}


def test_arms_that_lost_people_are_called_so_and_no_difference_is_said(tmp_path: Path) -> None:
    shop = simulated(Home(tmp_path), 23, people=3_000, lift=0.3, arm_lost=0.3)
    found = results(shop.home, WRITTEN.name, AT, windows=(28,)).channels[0].windows[0]
    assert found.has_mismatch
    assert found.mismatch_assigned < 0.001
    assert {each.verdict for each in found.estimates if each.difference} == {"arms_mismatch"}


# What may be told.


def test_nothing_is_told_of_fewer_than_ten_people(tmp_path: Path) -> None:
    shop = ResultsShop(Home(tmp_path))
    arms = {}
    for number in range(400):
        who = shop.know(number)
        arms[who] = HELD_OUT if number % 4 == 0 else TREATED
        if (arms[who] == TREATED and number < 60) or (arms[who] == HELD_OUT and number < 36):  # 45 and 9 people
            shop.order(who, SENT + DAY, 5_000)
        if number % 100 != 5:  # all of the treated but four
            shop.see(who, SENT + DAY)
    shop.assign(arms)
    shop.publish()
    found = results(shop.home, WRITTEN.name, AT, windows=(28,)).channels[0].windows[0]
    ordered = the(found, "ordered")
    assert (ordered.treated, ordered.held_out, ordered.difference) == (0.15, None, None)
    assert ordered.verdict == "not_enough_data"
    assert ordered.why.startswith("expected at least 10 people of each arm who ordered and 10 who did not, found fewer among the held out")  # fmt: skip
    assert ordered.smallest is not None
    assert the(found, "net_cents").held_out is None
    assert the(found, "visited").treated is None  # so many that the others are few
    assert the(found, "ordered_again").smallest is not None  # of a rate of ten people, not of theirs
    assert all(day.held_out is None and day.difference is None for day in found.by_day["ordered"])


def test_a_handful_in_an_arm_is_not_enough(tmp_path: Path) -> None:
    shop = ResultsShop(Home(tmp_path))
    arms = {shop.know(number): HELD_OUT if number < 9 else TREATED for number in range(200)}
    for who in arms:
        shop.order(who, SENT + DAY, 5_000)
    shop.assign(arms)
    shop.publish()
    found = results(shop.home, WRITTEN.name, AT, windows=(28,)).channels[0].windows[0]
    assert {each.verdict for each in found.estimates} == {"not_enough_data"}
    assert all(each.smallest is None and each.held_out is None for each in found.estimates)
    assert the(found, "net_cents").why == "expected at least 30 people measured in each arm, found 9 held out. Wait, or write to more."  # fmt: skip


def test_a_segment_that_held_nobody_out_has_nothing_to_compare_with(tmp_path: Path) -> None:
    shop = ResultsShop(Home(tmp_path))
    arms = {shop.know(number): TREATED for number in range(100)}
    for who in list(arms)[:40]:
        shop.order(who, SENT + DAY, 5_000)
    shop.assign(arms, segment=replace(WRITTEN, holdout_percent=0))
    shop.publish()
    found = results(shop.home, WRITTEN.name, AT, windows=(28,)).channels[0].windows[0]
    assert {each.verdict for each in found.estimates} == {"nobody_held_out"}
    assert the(found, "ordered").treated == 0.4
    assert not found.has_mismatch


def test_what_is_too_recent_or_not_known_yet_is_left_out_of_both_arms(tmp_path: Path) -> None:
    shop = ResultsShop(Home(tmp_path), until=SENT + 10 * DAY)  # the tables are 30 days behind the clock
    shop.assign({shop.know(number): HELD_OUT if number % 5 == 0 else TREATED for number in range(200)})
    shop.publish()
    found = results(shop.home, WRITTEN.name, AT).channels[0].windows
    assert [sum(each.people.values()) for each in found] == [200, 0, 0]
    assert [dict(each.left_out) for each in found] == [{}, {TOO_RECENT: 200}, {TOO_RECENT: 200}]


def test_tables_that_know_of_no_time_measure_nobody(tmp_path: Path) -> None:
    shop = ResultsShop(Home(tmp_path))
    shop.rows["ftr_customer_purchases"] = []
    shop.assign({shop.know(number): TREATED for number in range(40)})
    shop.publish()
    found = results(shop.home, WRITTEN.name, AT, windows=(7,)).channels[0].windows[0]
    assert dict(found.left_out) == {TOO_RECENT: 40}


def test_what_never_went_out_or_not_over_that_channel_is_an_error_that_says_what_did(tmp_path: Path) -> None:
    shop = simulated(Home(tmp_path), 2, people=60)
    with pytest.raises(SegmentError, match=r"expected one that went out \(tent_lookers\), found none"):
        results(shop.home, "unknown", AT)
    with pytest.raises(SegmentError, match=r"expected one it went out over \(email\), found push"):
        results(shop.home, WRITTEN.name, AT, channel="push")
    with pytest.raises(SegmentError, match=r"expected a file that went out before 2025-09-03 .*, found none"):
        results(shop.home, WRITTEN.name, AT - timedelta(days=300))
    (kept.folder_of(shop.home) / "assigned" / "stray.parquet").write_bytes(b"")
    with pytest.raises(SegmentError, match="assigned: expected files named by time"):
        went_out(shop.home)


def test_a_file_of_assignments_that_cannot_be_read_is_an_error_not_a_smaller_arm(tmp_path: Path) -> None:
    shop = simulated(Home(tmp_path), 2, people=60)
    kept.assigned_files(shop.home)[WRITTEN.name][0].write_bytes(b"PAR1 half a file")
    with pytest.raises(SegmentError, match="assigned: expected Parquet files"):
        results(shop.home, WRITTEN.name, AT)


# What a home keeps.


def test_what_is_kept_is_what_was_measured_and_every_look_once(tmp_path: Path) -> None:
    shop = simulated(Home(tmp_path), 3, people=900, lift=0.2)
    shop.assign({customer(number): TREATED for number in range(50)}, SENT + DAY, "sms")
    assert newest(shop.home, WRITTEN.name) is None
    assert went_out(shop.home, SENT.replace(tzinfo=UTC)) == []
    assert went_out(shop.home, AT) == went_out(shop.home) == [WRITTEN.name]
    (first,) = record(shop.home, went_out(shop.home), AT - DAY)
    record(shop.home, went_out(shop.home), AT)
    (second,) = record(shop.home, went_out(shop.home), AT)
    assert newest(shop.home, WRITTEN.name) == second == results(shop.home, WRITTEN.name, AT)
    kept_looks = looks(shop.home, WRITTEN.name)
    assert [over.channel for over in second.channels] == ["*", "email", "sms"]
    assert len(kept_looks) == 2 * 3 * 3
    assert {looked.as_of_at for looked in kept_looks} == {first.as_of_at, second.as_of_at}
    whole = [looked for looked in kept_looks if (looked.channel, looked.days) == ("*", 28)][-1]
    difference = the(second.channels[0].windows[2], "ordered").difference
    assert difference is not None
    assert whole.differences["ordered"] == (difference.value, difference.always_low, difference.always_high)


def test_an_export_remembers_whom_it_held_out_and_a_dry_run_or_one_that_fails_nobody(tmp_path: Path) -> None:
    shop, segment = Shop(Home(tmp_path / "home"), people=200, grants=8), plain_segment(EVERYBODY, holdout_percent=30)
    export(shop.home, segment, tmp_path / "dry", AS_OF, dry_run=True, rules=Rules())
    (tmp_path / "taken").write_text("a file where the folder's parent should be")
    with pytest.raises(NotADirectoryError):
        export(shop.home, segment, tmp_path / "taken" / "out", AS_OF, rules=Rules())
    assert went_out(shop.home) == []
    report = export(shop.home, segment, tmp_path / "out", AS_OF, rules=Rules())
    (path,) = kept.assigned_files(shop.home)["plain"]
    rows = pl.read_parquet(path)
    arms = {arm: rows.filter(pl.col("arm") == arm)["customer_id"].to_list() for arm in ARMS}
    sent = {line.split(",")[0] for line in (tmp_path / "out" / "members.csv").read_text().splitlines()[1:]}
    assert len(arms[HELD_OUT]) == report.refused[HELD_OUT] > 0
    assert sent == set(arms[TREATED])
    assert rows["holdout_percent"].unique().to_list() == [30]


def test_whoever_only_chance_decided_about_is_in_an_arm_whatever_then_kept_a_message_from_them() -> None:
    decisions = pl.DataFrame(
        [
            ("written_to", "mail_1", "may_be_contacted"), ("kept_back", "mail_2", HELD_OUT),
            ("their_message_goes_to_another", "mail_1", "same_contact_point"), ("the_vault_lost_it", "mail_3", "no_contact_point"),
            ("has_no_address", None, "no_contact_point"), ("said_no", "mail_4", "refused"), ("in_all_groups", "mail_5", "in_test_group"),
        ],
        schema=["customer_id", "contact_ref", "decision"], orient="row",
    )  # fmt: skip
    assert dict(assigned(decisions).iter_rows()) == {
        "written_to": TREATED, "kept_back": HELD_OUT, "their_message_goes_to_another": TREATED, "the_vault_lost_it": TREATED,
    }  # fmt: skip


def test_who_is_erased_is_in_no_arm_any_more(tmp_path: Path) -> None:
    shop = simulated(Home(tmp_path), 5, people=300)
    before = results(shop.home, WRITTEN.name, AT).channels[0].windows[0]
    assert other_tables(shop.home, [customer(7)]) == 1
    after_it = results(shop.home, WRITTEN.name, AT).channels[0].windows[0]
    assert sum(after_it.assigned.values()) == sum(before.assigned.values()) - 1
    assert not any(customer(7).encode() in path.read_bytes() for path in shop.home.root.glob("segments/**/*.*"))


def test_measuring_is_declared_as_a_use_of_what_it_reads() -> None:
    (declared,) = (made for made in made_tables() if made.table == "segment_results")
    asked = {"consent_standing", "ftr_customer_purchases"}  # whether, and until when
    assert {table for table, _ in declared.reads} == set(TABLES) - asked
    assert declared.purpose == PURPOSE


def test_the_command_says_it_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shop = simulated(Home(tmp_path), 21, people=3_000, lift=0.15)
    found = results(shop.home, WRITTEN.name, AT, windows=(28,))
    answer = told(found)
    rows = {row["measure"]: row for row in answer["all channels"]["differences"]}
    assert rows.keys() == {each.title for each in MEASURES}
    assert rows["ordered"]["verdict"] == "more, and not by chance"
    assert rows["ordered"]["difference"].startswith("+")
    assert rows["ordered"]["difference"].endswith(" points")
    assert rows["spent per order"]["verdict"].endswith("of those who ordered")
    assert show(answer, False) == show(found, True) == 0
    lost = results(
        simulated(Home(tmp_path / "lost"), 23, people=3_000, arm_lost=0.3).home, WRITTEN.name, AT, windows=(28,)
    )
    assert "no difference is to be trusted" in told(lost)["all channels"]["arms_mismatch"]
    assert capsys.readouterr().out
