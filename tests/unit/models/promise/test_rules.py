from pathlib import Path

import pytest

from models.promise.rules import DEFAULT, RulesError, load, parse, path_of
from tests.unit.models.promise.high_street import rules
from troth.home import Home


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("hour_cents: 12", "hour_cents: much", "rules, worth.hour_cents: expected float, found str."),
        ("least_kept: 0.5", "least_kept: 2", "rules, least_kept: expected float <= 1.0"),
        ("least_kept:", "leastkept:", "rules, the file: expected the keys rules.yml shows, found contains unknown field leastkept."),
        ("1: 0.72", "1: 0.5", "rules, carriers[0].transit[0].days: expected shares that add up to 1, found 0.78."),
        ("up_to_km: 1000", "up_to_km: 200", "rules, carriers[0].transit: expected distances that grow, found others."),
        ('cut_off: "14:00"', "cut_off: 2pm", "rules, dispatch.store.cut_off: expected HH:MM, found '2pm'."),
        ('"12-25": closed', '"25-12": closed', "rules, hours.holidays.25-12: expected MM-DD or YYYY-MM-DD, found another."),
        ('"12-25": closed', '"12-25": 8-12', "rules, hours.holidays.12-25: expected HH:MM-HH:MM or closed, found '8-12'."),
        ("carriers: [express]", "carriers: [pigeon]", "rules, rules[0].carriers: expected some of ['ground', 'express'], found ['pigeon']."),
        ("    carriers: [express]\n", "", "rules, rules[0]: expected refuse or carriers, found neither."),
        ("- [shipping] ", "- [shipping, mixed] ", "rules, prefer: expected each way once, found one twice."),
        ("0.9: 45", "0.9: 20", "rules, pickup.ready_minutes: expected shares and minutes that grow, found others."),
        ("version: 1", "version: 2", "rules, version: expected one of the words rules.yml shows, found 2."),
        ("pickup:", "split:", "rules, line 3: expected YAML, found a fault (the key split twice)."),
        ("worth:", "worth: [", "expected YAML, found a fault"),
    ],
)  # fmt: skip
def test_a_fault_is_told_with_its_place_what_was_expected_and_what_was_found(
    before: str, after: str, said: str
) -> None:
    with pytest.raises(RulesError) as refusal:
        rules((before, after))
    assert said in str(refusal.value)


def test_layout_and_comments_do_not_change_what_rules_are() -> None:
    text = DEFAULT.read_text(encoding="utf-8")
    assert parse(text + "\n# a remark\n").hash == parse(text).hash
    assert rules(("hour_cents: 12", "hour_cents: 13")).hash != parse(text).hash


def test_what_yaml_would_take_for_something_else_is_read_as_written() -> None:
    found = rules(
        ("to_regions: [AK,", "to_regions: [NO, AK,"), ("weekdays: {}", "weekdays: {sun: 10:00-18:00}"), ('cut_off: "17:00"', "cut_off: 17:00")
    )  # fmt: skip
    assert found.rules[1].when.to_regions is not None
    assert found.rules[1].when.to_regions[0] == "NO"
    assert found.hours.weekdays == {"sun": "10:00-18:00"}
    assert found.dispatch["distribution_center"].cut_off == "17:00"


def test_a_retailer_writes_their_own_rules_into_the_home(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert path_of(home) == DEFAULT
    own = tmp_path / "promise" / "rules.yml"
    own.parent.mkdir()
    own.write_text(DEFAULT.read_text(encoding="utf-8").replace("within_km: 40", "within_km: 12"), encoding="utf-8")
    assert load(path_of(home)).pickup.within_km == 12
