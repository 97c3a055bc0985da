"""A segment's file is read strictly: what is wrong is named with its place, what was expected and what to do."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.segments.conditions import COUNTED, OPERATORS, PRESENCE, Condition, Happened, Lookalike, Unless, leaves
from models.segments.definition import (
    Comparison,
    Group,
    Rank,
    Segment,
    SegmentError,
    likes,
    load,
    names,
    parse,
    written,
)

PLAIN = """
name: gold_members
version: 3
description: Gold members who bought lately.
owner: loyalty_team
purpose: marketing
channels: [email]
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
    assert (segment.name, segment.version, segment.purpose, segment.channels) == (
        "gold_members", 3, "marketing", ("email",),
    )  # fmt: skip
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
    assert len(list(leaves(segment.where))) == 3


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
        (
            changed("customers.tier_code = gold", "customers.tier_code like g%"),
            r"with one of = != < <= > >= in, or `<event>",
        ),
        (changed("in CA, OR", "in CA,, OR"), r"where.all\[2\].any\[2\].not: expected values between the commas"),
        (changed("customers.tier_code = gold", "17"), r"where.all\[1\]: expected .* found int 17"),
        (changed("  all:", "  most:"), r"where: expected .* one of all, any, not, lookalike, found keys most"),
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
            "name: x\nversion: 1\ndescription: d\nowner: o\npurpose: p\nchannels: [c]\nwhere: {all: []}",
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


WORDS = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)
VALUES = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"], exclude_characters="\x00"), max_size=12)


def compared(subject: st.SearchStrategy[str]) -> st.SearchStrategy[Comparison]:
    one = st.builds(
        lambda subject, name, how, value: Comparison(subject, name, how, (value,)),
        subject, WORDS, st.sampled_from([each for each in OPERATORS if each != "in"]), VALUES,
    )  # fmt: skip
    several = st.builds(
        lambda subject, name, values: Comparison(subject, name, "in", tuple(values)),
        subject, WORDS, st.lists(VALUES, min_size=1, max_size=3),
    )  # fmt: skip
    presence = st.builds(
        lambda subject, name, how: Comparison(subject, name, how, ()), subject, WORDS, st.sampled_from(PRESENCE)
    )
    return one | several | presence


LEAVES = st.one_of(
    compared(WORDS),
    st.builds(
        Happened,
        event=WORDS,
        filters=st.lists(compared(st.just("")), max_size=3).map(tuple),
        counted=st.sampled_from(["times", "units", "net_cents"]),
        operator=st.sampled_from(sorted(COUNTED.values())),
        count=st.integers(0, 999_999_999),
        hours=st.integers(1, 24 * 3_660),
        unless=st.none()
        | st.builds(
            Unless, WORDS, st.lists(compared(st.just("")), max_size=2).map(tuple), WORDS, st.integers(1, 24 * 3_660)
        ),
    ),
    st.builds(Lookalike, WORDS, st.integers(1, 100), st.none() | WORDS),
)
CONDITIONS: st.SearchStrategy[Condition] = st.recursive(
    LEAVES,
    lambda inner: st.builds(
        lambda kind, some: Group(kind, tuple(some[:1] if kind == "not" else some)),
        st.sampled_from(["all", "any", "not"]),
        st.lists(inner, min_size=1, max_size=3),
    ),
    max_leaves=5,
)
SEGMENTS = st.builds(
    Segment,
    name=WORDS,
    version=st.integers(1, 1_000_000),
    description=st.text(st.characters(codec="utf-8", categories=["L", "N", "P"]), min_size=1, max_size=20),
    owner=WORDS,
    purpose=WORDS,
    channels=st.lists(WORDS, min_size=1, max_size=3, unique=True).map(tuple),
    holdout_percent=st.integers(0, 90),
    where=CONDITIONS,
    rank=st.none()
    | st.builds(
        lambda subject, name, order, top: Rank(Comparison(subject, name, "known", ()), order, top),
        WORDS, WORDS, st.sampled_from(["highest", "lowest"]), st.integers(1, 1_000_000_000),
    ),
)  # fmt: skip


@given(SEGMENTS)
def test_a_definition_that_is_written_reads_as_it_was_and_keeps_its_hash(segment: Segment) -> None:
    again = parse(written(segment))
    assert again == segment
    assert again.hash == segment.hash


def test_events_windows_lookalikes_and_ranks_are_said_in_a_line() -> None:
    said = (
        PLAIN[: PLAIN.index("where:")]
        + """
where:
  all:
    - viewed category_name = Tents at least 2 times in 2 weeks
    - not: bought category_name in "Salt, and Pepper", Tents and net_cents >= 500 in 90 days
    - bought exactly 0 units in 36 hours
    - ordered channel_type = web at least 5000 net_cents in 90 days
    - viewed sku is known at least 2 times in 14 days and not bought net_cents > 0 same sku in 5 weeks
    - customers.last_seen_at > 30 days ago
    - customers.home_location_code is known
    - lookalike: {score: churn, like: silver_members, middle_percent: 80}
rank: {by: customer_purchases.net_cents_90d, top: 500}
"""
    )
    segment = parse(said)
    assert isinstance(segment.where, Group)
    assert segment.where.conditions == (
        Happened("viewed", (Comparison("", "category_name", "=", ("Tents",)),), "times", ">=", 2, 336),
        Group("not", (
            Happened("bought", (
                Comparison("", "category_name", "in", ("Salt, and Pepper", "Tents")),
                Comparison("", "net_cents", ">=", ("500",)),
            ), "times", ">=", 1, 2_160),
        )),
        Happened("bought", (), "units", "=", 0, 36),
        Happened("ordered", (Comparison("", "channel_type", "=", ("web",)),), "net_cents", ">=", 5_000, 2_160),
        Happened(
            "viewed", (Comparison("", "sku", "known", ()),), "times", ">=", 2, 336,
            Unless("bought", (Comparison("", "net_cents", ">", ("0",)),), "sku", 840),
        ),
        Comparison("customers", "last_seen_at", ">", ("30 days ago",)),
        Comparison("customers", "home_location_code", "known", ()),
        Lookalike("churn", 80, "silver_members"),
    )  # fmt: skip
    assert segment.rank == Rank(Comparison("customer_purchases", "net_cents_90d", "known", ()), "highest", 500)
    assert likes(segment) == ["silver_members"]


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("bought in 90 fortnights", r"line 10, where.all\[1\]: expected .* found 'bought in 90 fortnights'"),
        ("bought in 0 days", r"line 10, where.all\[1\]: expected a window of an hour to ten years, found 0 days"),
        ("bought in 9999 weeks", "expected a window of an hour to ten years, found 9999 weeks"),
        ("bought tents at least 2 times in 90 days", r"where.all\[1\]: expected `<field> <operator> <value>` .* found 'tents'"),
        ('bought sku = "half in 90 days', "expected one value in double quotes, found '\"half'"),
        ("bought sku in A,,B in 90 days", "expected values between the commas, found an empty one"),
        ("customers.tier_code is gone", r"line 10, where.all\[1\]: expected"),
        ("{lookalike: {score: churn}}", r"where.all\[1\].lookalike: expected score and top_percent, or .* found keys score"),
        ("{lookalike: {score: churn, top_percent: 101}}", "expected a whole number of percent from 1 to 100, found int 101"),
        ("{lookalike: {score: Churn, top_percent: 5}}", "lookalike.score: expected a name, found str 'Churn'"),
        (f"customers.tier_code = {'x' * 3_000}", "expected a line of at most 2000 characters, found 3022"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_line_is_named_with_its_line(said: str, message: str) -> None:
    with pytest.raises(SegmentError, match=message):
        parse(changed("customers.tier_code = gold", said))


@pytest.mark.parametrize(
    ("rank", "message"),
    [
        ("rank: {by: customers.tier_code}", "line 14, rank: expected by, top and, if wanted, order, found keys by"),
        ("rank: {by: tier_code, top: 5}", "line 14, rank.by: expected `<subject>.<field>`, found str 'tier_code'"),
        ("rank: {by: a.b, top: 0}", "line 14, rank.top: expected a whole number from 1 to 1000000000, found 0"),
        ("rank: {by: a.b, top: 5, order: first}", "line 14, rank.order: expected highest or lowest, found str 'first'"),
        ("channels: email", "the key channels twice"),
    ],
)
def test_what_is_wrong_in_a_rank_is_named_with_its_line(rank: str, message: str) -> None:
    with pytest.raises(SegmentError, match=message):
        parse(PLAIN + rank)


@pytest.mark.parametrize("said", ["email", "[]", "[email, 7]", "[email, email]"])
def test_channels_are_a_list_of_different_names(said: str) -> None:
    with pytest.raises(SegmentError, match="line 7, channels: expected"):
        parse(changed("channels: [email]", f"channels: {said}"))


@given(st.text(max_size=200))
def test_any_text_is_a_definition_or_a_segment_error(text: str) -> None:
    with pytest.raises(SegmentError, match="expected"):  # no text of this length is a whole definition
        parse(text)
