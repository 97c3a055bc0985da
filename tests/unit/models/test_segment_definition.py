"""A segment's file is read strictly: what is wrong is named with its place, what was expected and what to do."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.segments.definition import (
    Comparison,
    Group,
    SegmentError,
    comparisons,
    load,
    names,
    parse,
)

PLAIN = """
name: gold_members
version: 3
description: Gold members who bought lately.
owner: loyalty_team
purpose: marketing
channel: email
where:
  all:
    - customers.tier_code = gold
    - any:
        - customer_purchases.order_count_90d >= 3
        - not: customers.region_code in CA, OR
"""


def changed(old: str, new: str) -> str:
    assert old in PLAIN
    return PLAIN.replace(old, new)


def test_a_definition_says_who_owns_it_what_for_and_whom_it_matches() -> None:
    segment = parse(PLAIN)
    assert (segment.name, segment.version, segment.purpose, segment.channel) == (
        "gold_members",
        3,
        "marketing",
        "email",
    )
    assert segment.holdout_percent == 0
    assert segment.where == Group(
        "all",
        (
            Comparison("customers", "tier_code", "=", ("gold",)),
            Group(
                "any",
                (
                    Comparison("customer_purchases", "order_count_90d", ">=", ("3",)),
                    Group("not", (Comparison("customers", "region_code", "in", ("CA", "OR")),)),
                ),
            ),
        ),
    )
    assert len(comparisons(segment.where)) == 3


def test_every_segment_that_is_shipped_can_be_read() -> None:
    assert names() == ["gold_members_near_stock", "lapsed_regulars", "weekend_browsers"]
    assert [load(name).name for name in names()] == names()


def test_layout_and_comments_do_not_change_the_hash_but_content_does() -> None:
    assert parse(PLAIN).hash == parse("# a remark\n" + PLAIN.replace("version: 3", "version:   3  # third")).hash
    assert parse(PLAIN).hash != parse(changed(">= 3", ">= 4")).hash


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b", r"segment: expected name, .*, found a list of 2\. Write them as `key: value` lines\."),
        ("", r"segment: expected name, .*, found nothing\."),
        (
            changed("owner: loyalty_team\n", ""),
            r"segment gold_members: expected .* found no owner\. Add or remove them\.",
        ),
        (changed("owner:", "owners:"), r"found unknown owners, no owner\."),
        (changed("version: 3", "version: three"), r"version: expected a whole number from 1 to 1000000, found 'three'"),
        (changed("version: 3", "version: true"), r"version: expected a whole number .* found True"),
        (changed("version: 3", "version: 3\nholdout_percent: 100"), r"holdout_percent: expected .* 0 to 90, found 100"),
        (changed("name: gold_members", "name: ../gold"), r"name: expected small letters, digits and underscores"),
        (changed("owner: loyalty_team", "owner: 7"), r"owner: expected a text of at most 500 characters, found int 7"),
        (
            changed("tier_code = gold", "tier_code == gold"),
            r"where.all\[1\]: expected .* found 'customers.tier_code == gold'",
        ),
        (changed("customers.tier_code = gold", "tier_code = gold"), r"where.all\[1\]: expected `<subject>.<field>"),
        (changed("customers.tier_code = gold", "customers.tier_code like g%"), r"with one of = != < <= > >= in, found"),
        (changed("in CA, OR", "in CA,, OR"), r"where.all\[2\].any\[2\].not: expected values between the commas"),
        (changed("customers.tier_code = gold", "17"), r"where.all\[1\]: expected .* found int 17"),
        (changed("  all:", "  most:"), r"where: expected .* one of all, any, not, found keys most"),
        (changed("  all:", "  any: []\n  all:"), r"where: expected .* found keys any, all"),
        (
            changed("version: 3", "version: 3\nversion: 4"),
            r"line 2: expected YAML, found a fault \(the key version twice\)",
        ),
        (changed("gold_members", "'gold_members"), r"line \d+: expected YAML, found a fault"),
        (
            changed("version: 3", "version: !!python/object/apply:os.system [true]"),
            r"line 3: expected YAML, found a fault",
        ),
        (changed("    - customers.tier_code = gold", "    - &again\n      all:\n        - *again"), r"expected YAML"),
        (
            "name: x\nversion: 1\ndescription: d\nowner: o\npurpose: p\nchannel: c\nwhere: {all: []}",
            r"found a list of 0",
        ),
    ],
)
def test_what_is_wrong_is_named(text: str, message: str) -> None:
    with pytest.raises(SegmentError, match=message):
        parse(text)


def test_a_definition_that_multiplies_itself_is_refused() -> None:
    text = PLAIN[: PLAIN.index("where:")] + "where:\n  all:\n"
    text += "    - &b0 {any: [customers.tier_code = gold]}\n"
    for level in range(1, 9):
        text += f"    - &b{level} {{any: [{', '.join([f'*b{level - 1}'] * 9)}]}}\n"
    with pytest.raises(SegmentError, match="expected at most 200 conditions, 12 deep, found more"):
        parse(text)


def test_a_deep_definition_is_refused() -> None:
    text = PLAIN[: PLAIN.index("where:")] + "where: " + "{not: " * 500 + "a.b = c" + "}" * 500
    with pytest.raises(SegmentError, match=r"12 deep|too deeply nested"):
        parse(text)


def test_a_name_that_is_none_lists_the_ones_there_are(tmp_path: Path) -> None:
    with pytest.raises(SegmentError, match=r"expected one of gold_members_near_stock, .*, found '\.\./x'"):
        load("../x")
    with pytest.raises(SegmentError, match="expected one of none"):
        load("anything", tmp_path)


def test_a_file_under_another_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "silver_members.yml").write_text(PLAIN)
    with pytest.raises(SegmentError, match="expected the file's own name, found name: gold_members"):
        load("silver_members", tmp_path)


def test_an_oversize_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "gold_members.yml").write_text(PLAIN + "#" * 70_000)
    with pytest.raises(SegmentError, match="expected at most 64000 bytes"):
        load("gold_members", tmp_path)


@given(st.text(max_size=200))
def test_any_text_is_a_definition_or_a_segment_error(text: str) -> None:
    with pytest.raises(SegmentError, match="expected"):  # no text of this length is a whole definition
        parse(text)
