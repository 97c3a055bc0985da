"""Segments that were described in a home: where they lie, who saved them, under which version, and who is told that another was quicker."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from models.errors import ModelsError
from models.segments import definition, described, kept
from models.segments.conditions import Comparison, Lookalike
from models.segments.definition import SegmentError
from models.segments.described import ChangedError
from models.segments.export import export
from tests.integration.segment_shop import AS_OF, EVERYBODY, Shop, plain_segment
from troth.home import Home

GOLD = Comparison("customers", "tier_code", "=", ("gold",))


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return Shop(Home(tmp_path_factory.mktemp("home")))


def test_what_is_saved_is_found_beside_what_comes_with_troth(shop: Shop) -> None:
    segment = plain_segment(EVERYBODY, name="beside", description="Käse: 'und' \"Brot\"\n=1+1")
    assert described.save(shop.home, segment, "ada", AS_OF, None) == segment
    assert {"beside", "lapsed_regulars"} <= set(described.names(shop.home))
    assert described.load(shop.home, "beside") == segment
    assert described.load(shop.home, "lapsed_regulars") == definition.load("lapsed_regulars")
    assert described.is_own(shop.home, "beside")
    assert not described.is_own(shop.home, "lapsed_regulars")
    with pytest.raises(SegmentError, match=r"expected one of .*beside.*, found '\.\./beside'"):
        described.load(shop.home, "../beside")


@pytest.mark.parametrize("name", ["lapsed_regulars", "new", "exports"])
def test_a_name_that_is_anothers_or_an_address_is_refused(shop: Shop, name: str) -> None:
    for started_from in (None, definition.load("lapsed_regulars").hash):
        with pytest.raises(SegmentError, match="expected a name of its own"):
            described.save(shop.home, plain_segment(EVERYBODY, name=name), "ada", AS_OF, started_from)


def test_a_new_one_does_not_take_the_place_of_another(shop: Shop) -> None:
    described.save(shop.home, plain_segment(EVERYBODY, name="first"), "ada", AS_OF, None)
    with pytest.raises(SegmentError, match="found a segment that has it"):
        described.save(shop.home, plain_segment(GOLD, name="first"), "eve", AS_OF, None)
    assert described.load(shop.home, "first").where == EVERYBODY


def test_of_two_who_change_the_same_the_second_is_told_by_whom(shop: Shop) -> None:
    first = described.save(shop.home, plain_segment(EVERYBODY, name="both"), "ada", AS_OF, None)
    hers = described.save(shop.home, replace(first, where=GOLD), "ada", AS_OF + timedelta(minutes=1), first.hash)
    with pytest.raises(ChangedError, match="found it changed by ada at 2026-05-01 02:01 UTC") as told:
        described.save(shop.home, replace(first, owner="bob"), "bob", AS_OF + timedelta(minutes=2), first.hash)
    assert told.value.current == hers
    assert described.load(shop.home, "both") == hers
    his = described.save(shop.home, replace(first, owner="bob"), "bob", AS_OF + timedelta(minutes=3), hers.hash)
    assert [(each.saved_by, each.hash) for each in described.history(shop.home, "both")] == [
        ("ada", first.hash), ("ada", hers.hash), ("bob", his.hash),
    ]  # fmt: skip


def test_saving_what_is_there_already_leaves_no_trace(shop: Shop) -> None:
    segment = described.save(shop.home, plain_segment(EVERYBODY, name="again"), "ada", AS_OF, None)
    described.save(shop.home, segment, "bob", AS_OF, segment.hash)
    assert len(described.history(shop.home, "again")) == 1


def test_a_version_is_raised_when_something_went_out_under_it_and_not_before(shop: Shop, tmp_path: Path) -> None:
    first = described.save(shop.home, plain_segment(EVERYBODY, name="raised", version=7), "ada", AS_OF, None)
    assert first.version == 1
    draft = described.save(shop.home, replace(first, where=GOLD), "ada", AS_OF, first.hash)
    assert draft.version == 1
    export(shop.home, draft, tmp_path / "out", AS_OF)
    assert kept.gone_out(shop.home, "raised") == {1: draft.hash}
    assert described.save(shop.home, draft, "ada", AS_OF, draft.hash).version == 1
    changed = described.save(shop.home, replace(draft, owner="bob", version=1), "ada", AS_OF, draft.hash)
    assert changed.version == 2
    assert described.save(shop.home, replace(changed, owner="eve"), "ada", AS_OF, changed.hash).version == 2
    export(shop.home, described.load(shop.home, "raised"), tmp_path / "again", AS_OF)


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"where": Comparison("customers", "shoe_size", "=", ("43",))}, "expected a field of customers"),
        ({"purpose": "fun"}, "purpose: expected one of"),
        ({"channels": ("pigeon",)}, "channel: expected one of"),
        ({"where": Lookalike("churn", 50, "wrong")}, "expected another segment to start from, found itself"),
        ({"where": Lookalike("churn", 50, "nobody_knows")}, "segment: expected one of"),
    ],
)
def test_what_could_not_be_asked_is_not_saved(shop: Shop, named: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelsError, match=message):
        described.save(shop.home, replace(plain_segment(EVERYBODY, name="wrong"), **named), "ada", AS_OF, None)
    assert "wrong" not in described.names(shop.home)


def test_a_lookalike_may_start_from_a_segment_of_the_home(shop: Shop) -> None:
    described.save(shop.home, plain_segment(GOLD, name="golden"), "ada", AS_OF, None)
    like = described.save(
        shop.home, plain_segment(Lookalike("churn", 50, "golden"), name="like_golden"), "ada", AS_OF, None
    )
    with pytest.raises(SegmentError, match="found like_golden"):
        described.remove(shop.home, "golden", described.load(shop.home, "golden").hash)
    described.remove(shop.home, "like_golden", like.hash)
    described.remove(shop.home, "golden", described.load(shop.home, "golden").hash)
    assert "golden" not in described.names(shop.home)
    assert len(described.history(shop.home, "golden")) == 1


def test_what_went_out_or_comes_with_troth_is_not_removed(shop: Shop, tmp_path: Path) -> None:
    sent = described.save(shop.home, plain_segment(EVERYBODY, name="sent"), "ada", AS_OF, None)
    export(shop.home, sent, tmp_path / "sent", AS_OF)
    for name in ("sent", "lapsed_regulars", "../sent"):
        with pytest.raises(SegmentError):
            described.remove(shop.home, name, sent.hash)
    assert "sent" in described.names(shop.home)
