"""What the benchmark of pages asks for, on a small retailer."""

from pathlib import Path

from benchmarks import pages


def test_every_kind_of_page_is_asked_for_by_somebody_who_may_and_the_limit_is_below(ran_home: Path) -> None:
    found = {each.name: each for each in pages.measure("tiny", ran_home)}
    for kind in (
        "segments/{name}",
        "customers/{",
        "orders/{",
        "goods/{",
        "operations/breaks",
        "engineering/models/{",
        "audit",
        "audit/subjects/{",
    ):
        page = next(each for name, each in found.items() if name.startswith(f"GET /console/{kind}"))
        assert page.value > 0
        assert page.conditions["asked"] == pages.SIZES["tiny"].rounds
        assert page.conditions["addresses"] >= (4 if kind in ("customers/{", "orders/{", "goods/{") else 1)
    beside = found["every page beside a static answer"]
    assert beside.ratio is not None
    assert beside.ratio > 1
