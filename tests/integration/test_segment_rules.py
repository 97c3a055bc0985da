"""What holds for every segment, and what a home keeps of them: exclusions, caps, test groups, sizes, members, versions."""

import json
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from models.segments import kept
from models.segments.conditions import Lookalike
from models.segments.definition import Comparison, SegmentError, parse, written
from models.segments.export import export
from models.segments.preview import preview, record
from models.segments.rules import Cap, Exclusion, Rules, TestGroup, parse_rules, read_rules
from models.segments.sample import LEAST_ALIKE
from models.tables import naive, write
from orchestration import marketing
from orchestration.rights.copies import other_tables
from tests.integration.segment_shop import AS_OF, EVERYBODY, Shop, customer, plain_segment, ref
from troth.home import Home

NO_RULES = Rules()
PER_WEEK = Rules(caps=(Cap("email", ("marketing",), 2, 7),))


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(Home(tmp_path / "home"))


def sent(folder: Path) -> list[str]:
    return [line.split(",")[0] for line in (folder / "members.csv").read_text().splitlines()[1:]]


def test_who_is_on_a_list_is_in_no_segment_under_whichever_identity_they_were_listed(
    shop: Shop, tmp_path: Path
) -> None:
    segment = plain_segment(EVERYBODY)
    export(shop.home, segment, tmp_path / "before", AS_OF, rules=NO_RULES)
    first, second, third, *others = sent(tmp_path / "before")
    cards = {who["customer_id"]: who["card_ref"] for who in shop.customers}
    mails = {who["customer_id"]: who["email_ref"] for who in shop.customers}
    assert kept.change_exclusions(shop.home, "complaints", naive(AS_OF), add=[first, cards[second]]) == (2, 0, 2)
    assert kept.change_exclusions(shop.home, "press", naive(AS_OF), add=[mails[third]]) == (1, 0, 1)
    assert preview(shop.home, segment, AS_OF, rules=NO_RULES).channels["email"].refused["excluded"] == 3
    report = export(shop.home, segment, tmp_path / "after", AS_OF, rules=NO_RULES)
    assert sent(tmp_path / "after") == others
    assert sorted(report.manifest["rules"]["exclusion_lists"]) == ["complaints", "press"]
    assert kept.change_exclusions(shop.home, "press", naive(AS_OF), remove=[mails[third]]) == (0, 1, 0)
    assert preview(shop.home, segment, AS_OF, rules=NO_RULES).channels["email"].refused["excluded"] == 2


def test_a_definition_cannot_switch_a_rule_off(shop: Shop) -> None:
    everybody = Rules(exclusions=(Exclusion("everybody", "Nobody is written to.", EVERYBODY),))
    found = preview(shop.home, plain_segment(EVERYBODY), AS_OF, rules=everybody)
    assert found.channels["email"].may_be_contacted == 0
    with pytest.raises(SegmentError, match="found unknown exclusions"):
        parse(written(plain_segment(EVERYBODY)) + "exclusions: []\n")


def test_a_list_that_cannot_be_read_lets_nobody_out(shop: Shop, tmp_path: Path) -> None:
    kept.change_exclusions(shop.home, "complaints", naive(AS_OF), add=[customer(1)])
    kept.exclusion_lists(shop.home)["complaints"].write_bytes(b"PAR1 half a file")
    with pytest.raises(SegmentError, match="exclusion lists and contacts: expected Parquet files"):
        export(shop.home, plain_segment(EVERYBODY), tmp_path / "out", AS_OF, rules=NO_RULES)
    assert not (tmp_path / "out").exists()


def test_a_person_is_written_to_as_often_as_the_cap_says_and_again_when_the_days_are_over(
    shop: Shop, tmp_path: Path
) -> None:
    first, second = plain_segment(EVERYBODY), plain_segment(EVERYBODY, name="other")
    reports = [
        export(shop.home, segment, tmp_path / str(number), AS_OF + timedelta(hours=number), rules=PER_WEEK)
        for number, segment in enumerate([first, second, first])
    ]
    assert reports[0].exported == reports[1].exported > 0
    assert (reports[2].exported, reports[2].refused["capped"]) == (0, reports[0].exported)
    assert preview(shop.home, second, AS_OF, rules=PER_WEEK).channels["email"].refused["capped"] == reports[0].exported
    for hours, is_capped in ((7 * 24 - 1, True), (7 * 24, False)):  # then the first is a week old to the second
        later = preview(shop.home, second, AS_OF + timedelta(hours=hours), rules=PER_WEEK)
        assert ("capped" in later.channels["email"].refused) == is_capped


def test_neither_a_dry_run_nor_an_export_that_fails_counts_as_contact(shop: Shop, tmp_path: Path) -> None:
    export(shop.home, plain_segment(EVERYBODY), tmp_path / "dry", AS_OF, dry_run=True, rules=PER_WEEK)
    (tmp_path / "taken").write_text("a file where the folder's parent should be")
    with pytest.raises(NotADirectoryError):
        export(shop.home, plain_segment(EVERYBODY), tmp_path / "taken" / "out", AS_OF, rules=PER_WEEK)
    assert kept.contacts_since(shop.home, naive(AS_OF), ["marketing"]) == []


def test_a_test_group_is_the_same_people_in_every_segment_of_its_purposes(shop: Shop, tmp_path: Path) -> None:
    group = TestGroup("control", "Half.", "a salt", 50, ("marketing",))
    chosen = []
    for name in ("one", "two"):
        export(
            shop.home, plain_segment(EVERYBODY, name=name), tmp_path / name, AS_OF, rules=Rules(test_groups=(group,))
        )
        chosen.append(sent(tmp_path / name))
    everybody = export(shop.home, plain_segment(EVERYBODY), tmp_path / "all", AS_OF, rules=NO_RULES).exported
    assert chosen[0] == chosen[1]
    assert 0 < len(chosen[0]) < everybody
    service = plain_segment(EVERYBODY, name="service", purpose="service", channels=("onsite",))
    assert (
        "in_test_group"
        not in preview(shop.home, service, AS_OF, rules=Rules(test_groups=(group,))).channels["onsite"].refused
    )


def test_a_version_that_went_out_is_never_another_definition(shop: Shop, tmp_path: Path) -> None:
    export(shop.home, plain_segment(EVERYBODY), tmp_path / "first", AS_OF, rules=NO_RULES)
    changed = plain_segment(EVERYBODY, holdout_percent=5)
    with pytest.raises(SegmentError, match=r"version: expected another than 1, under which .* Raise the version"):
        export(shop.home, changed, tmp_path / "second", AS_OF, rules=NO_RULES)
    export(
        shop.home, plain_segment(EVERYBODY, holdout_percent=5, version=2), tmp_path / "second", AS_OF, rules=NO_RULES
    )


def test_a_segment_of_several_channels_goes_out_over_one_that_is_named(shop: Shop, tmp_path: Path) -> None:
    segment = plain_segment(EVERYBODY, channels=("email", "sms"))
    for channel, found in ((None, "none"), ("push", "push")):
        with pytest.raises(SegmentError, match=f"channel: expected one of email, sms, found {found}"):
            export(shop.home, segment, tmp_path / "out", AS_OF, channel=channel, rules=NO_RULES)
    promised = preview(shop.home, segment, AS_OF, rules=NO_RULES).channels
    for channel in segment.channels:
        report = export(shop.home, segment, tmp_path / channel, AS_OF, channel=channel, rules=NO_RULES)
        assert (report.exported, report.refused) == (promised[channel].may_be_contacted, promised[channel].refused)
        assert (tmp_path / channel / "members.csv").read_text().splitlines()[0] == f"customer_id,{channel}"


def test_runs_keep_sizes_and_the_last_ones_members(shop: Shop) -> None:
    west = plain_segment(Comparison("customers", "region_code", "in", ("CA", "OR")), name="west")
    gold = plain_segment(Comparison("customers", "tier_code", "=", ("gold",)), name="gold")
    assert list(preview(shop.home, west, AS_OF, rules=NO_RULES).overlap) == []
    for day in (0, 1, 1):
        record(shop.home, [west, gold], AS_OF + timedelta(days=day), rules=NO_RULES)
    found = preview(shop.home, west, AS_OF, rules=NO_RULES)
    assert [(row["as_of_at"][:10], row["matched"]) for row in found.sizes] == [
        ("2026-05-01", found.matched),
        ("2026-05-02", found.matched),
    ]
    (other,) = found.overlap
    people = [who for who in shop.customers if not who["is_test"] and who["tier_code"] == "gold"]
    assert (other.segment, other.members) == ("gold", len(people))
    assert other.shared == sum(who["region_code"] in ("CA", "OR") for who in people) > 0
    assert other.as_of_at == "2026-05-02 02:00:00+00:00"
    text = (kept.folder_of(shop.home) / "sizes.jsonl").read_text()
    assert len(text.splitlines()) == 4
    assert "cus_" not in text


def test_a_sample_speaks_of_many_alike_in_ranges_and_of_nobody(tmp_path: Path) -> None:
    shop = Shop(Home(tmp_path / "home"), people=120)
    where = Comparison("customer_purchases", "order_count_90d", ">=", ("0",))
    found = preview(shop.home, plain_segment(where), AS_OF, rules=NO_RULES)
    assert {row["customer_purchases.order_count_90d"] for row in found.sample} <= {"0", "1", "2", "3 to 4", "5 to 9"}
    assert all(int(row["people"]) >= LEAST_ALIKE for row in found.sample)
    few = Comparison("customers", "customer_number", "in", ("1", "2", "3"))
    assert list(preview(shop.home, plain_segment(few), AS_OF, rules=NO_RULES).sample) == []
    told = json.dumps([dict(row) for row in found.sample])
    assert "cus_" not in told
    assert "_ref" not in told


def test_a_lookalike_without_a_model_in_use_matches_nobody_and_says_so(shop: Shop) -> None:
    nothing = {"customer_id": pl.String, "feature_at": pl.Datetime("us"), "churn_probability": pl.Float64}
    write(shop.home, "pred_churn", pl.DataFrame(schema=nothing))
    found = preview(shop.home, plain_segment(Lookalike("churn", 10)), AS_OF, rules=NO_RULES)
    assert found.matched == 0
    assert found.remarks == [
        "lookalike by churn: no model of that name is in use, so nobody has a score and nobody matches"
    ]


def test_a_lookalike_of_a_lookalike_is_refused(shop: Shop) -> None:
    seed = plain_segment(Lookalike("churn", 50, "gold"), name="likes")
    with pytest.raises(SegmentError, match="expected a segment that is no lookalike of another, found likes"):
        preview(shop.home, plain_segment(Lookalike("churn", 50, "likes")), AS_OF, rules=NO_RULES, loaded=lambda _: seed)


def test_an_erased_person_is_in_nothing_that_is_kept_of_segments(shop: Shop, tmp_path: Path) -> None:
    export(shop.home, plain_segment(EVERYBODY), tmp_path / "out", AS_OF, rules=NO_RULES)
    record(shop.home, [plain_segment(EVERYBODY)], AS_OF, rules=NO_RULES)
    gone = sent(tmp_path / "out")[0]
    mail = next(who["email_ref"] for who in shop.customers if who["customer_id"] == gone)
    kept.change_exclusions(shop.home, "complaints", naive(AS_OF), add=[mail, customer(39)])
    assert other_tables(shop.home, [gone, mail]) == 4  # contacts, the arm, members, the list
    left = b"".join(path.read_bytes() for path in kept.folder_of(shop.home).glob("*.json*"))
    for path in kept.folder_of(shop.home).rglob("*.parquet"):
        left += pl.read_parquet(path).write_csv().encode()
    assert gone.encode() not in left
    assert mail.encode() not in left


def test_people_are_put_on_a_list_by_what_they_are_known_by(shop: Shop, tmp_path: Path) -> None:
    shop.home.root.joinpath("keys").mkdir(exist_ok=True)
    shop.home.root.joinpath("keys", "token.key").write_bytes(b"k" * 32)
    file = tmp_path / "people.txt"
    file.write_text(f"p5@example.com\nphone:5550007\n\n{customer(9)}\n{ref('card', 11)}\nwhoever that is\n")
    dry = marketing.exclude(shop.home, "complaints", file, remove=False, dry_run=True)
    assert (dry["identifiers"], dry["lines_of_nobody"], dry["is_written"]) == (4, [6], False)
    assert kept.exclusion_lists(shop.home) == {}
    done = marketing.exclude(shop.home, "complaints", file, remove=False, dry_run=False)
    assert (done["added"], done["size"]) == (4, 4)
    on_it = set(pl.read_parquet(kept.exclusion_lists(shop.home)["complaints"])["identity_ref"])
    assert on_it == {ref("email", "p5@example.com"), ref("phone", "5550007"), customer(9), ref("card", 11)}
    assert marketing.exclude(shop.home, "complaints", file, remove=True, dry_run=False)["size"] == 0


@pytest.mark.parametrize("name", ["../x", "A", ""])
def test_a_list_has_a_plain_name(shop: Shop, name: str) -> None:
    with pytest.raises(SegmentError, match="exclusion list: expected small letters"):
        kept.change_exclusions(shop.home, name, naive(AS_OF), add=["x"])


RULES = """
exclusions:
  late:
    description: Waits.
    where: ordered is_late = true in 30 days
caps:
  - {channel: email, purposes: [marketing], at_most: 3, days: 7}
test_groups:
  control: {description: A few., salt: s, percent: 2, purposes: [marketing]}
"""


def test_the_rules_that_are_shipped_can_be_read_and_fit_the_published_tables(shop: Shop) -> None:
    rules = read_rules()
    assert rules.exclusions
    assert rules.caps
    assert rules.test_groups
    preview(shop.home, plain_segment(EVERYBODY), AS_OF, rules=rules)
    assert len(parse_rules(RULES).hash) == 64


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("caps:\n", "cap:\n", "segment rules, line 7: expected exclusions, caps, test_groups, found unknown cap, no caps"),
        ("channel: email", "channel: fax", r"line 7, caps\[1\].channel: expected one of email, .*\*, found str 'fax'"),
        ("at_most: 3, ", "", r"line 7, caps\[1\]: expected at_most, channel, days, purposes, found keys"),
        ("at_most: 3", "at_most: 0", r"line 7, caps\[1\].at_most: expected a whole number from 1 to 1000, found 0"),
        ("purposes: [marketing], at", "purposes: [fun], at", r"line 7, caps\[1\].purposes: expected a list of .* found fun"),
        ("in 30 days", "in 30 moons", "exclusions late, line 5, exclusions.late.where: expected"),
        ("percent: 2", "percent: 60", "line 9, test_groups.control.percent: expected a whole number from 0 to 50, found 60"),
        ("salt: s, ", "", "line 9, test_groups.control: expected description, percent, purposes, salt, found keys"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_the_rules_is_named(old: str, new: str, message: str) -> None:
    assert old in RULES
    with pytest.raises(SegmentError, match=message):
        parse_rules(RULES.replace(old, new))
