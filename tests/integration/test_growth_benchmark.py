"""What the benchmark of growth tells, of small stores and with all its steps in one process."""

from pathlib import Path
from typing import Any

from benchmarks import growth, materialize

STEPS = {"materialize": materialize.step, "growth": growth.step}


def in_here(who: str, kind: str, source: Path, place: str, *more: Path, module: str = "materialize") -> dict[str, Any]:
    return STEPS[module](who, kind, source, place, *more)


def test_every_figure_of_every_store_stands_beside_the_same_of_a_tenth_of_the_rows(tmp_path: Path) -> None:
    found = {each.name: each for each in growth.measure("small", tmp_path / "growth.svg", in_here)}
    less, more = growth.SIZES["small"]
    names = {name.removesuffix(f"_{less}") for name in found if name.endswith(f"_{less}")}
    assert names == {
        f"{kind}_{what}"
        for kind in ("redis", "sqlite")
        for what in (
            "materialize", "materialize_peak", "stored", "publish", "publish_changed", "near_time_1_p50", "near_time_1000_p50",
            *(f"read_{count}_{at}" for count in (1, 10, 100) for at in ("p50", "p99")),
        )
    }  # fmt: skip
    assert len(found) == 2 * len(names)
    for name in names:
        one, ten = found[f"{name}_{less}"], found[f"{name}_{more}"]
        assert (one.peer_value, ten.peer_value, ten.peer) == (None, one.value, f"{less:,} rows")
        assert one.value > 0
        assert (ten.goal is None) == name.endswith("_p99")
        assert ten.conditions["rows"] == more
    assert "<svg" in (tmp_path / "growth.svg").read_text()[:1_000]
