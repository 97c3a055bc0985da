"""A snapshot against the last one: only rows that say something are left, and nothing that says something is dropped."""

from pathlib import Path

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from models.stock.snapshots import LastSeen, Moved, news_of

SCHEMA = {"location_code": pl.String(), "sku": pl.String(), "units": pl.Int64()}
figures = st.dictionaries(st.tuples(st.sampled_from("ABC"), st.sampled_from("xyz")), st.integers(-2, 3), max_size=9)


def frame(told: dict[tuple[str, str], int]) -> pl.DataFrame:
    return pl.DataFrame([(*place, units) for place, units in told.items()], schema=SCHEMA, orient="row")


@given(st.lists(st.tuples(figures, st.sets(st.tuples(st.sampled_from("ABCD"), st.sampled_from("xyz")))), max_size=4))
def test_only_rows_that_differ_or_whose_position_moved_are_left(snapshots: list[tuple[dict, set]]) -> None:  # type: ignore[type-arg]
    seen, last = LastSeen(), dict[tuple[str, str], int]()
    for told, moved in snapshots:
        news = seen.news(
            frame(told),
            Moved(pl.DataFrame(sorted(moved), schema=["location_code", "sku"], orient="row") if moved else frame({})),
        )
        meant = {place: units for place, units in told.items() if last.get(place) != units or place in moved}
        assert {(place, sku): units for place, sku, units in news.rows()} == meant
        last |= told


def test_a_source_that_repeats_a_figure_it_was_not_told_has_changed_is_heard() -> None:
    seen = LastSeen()
    shelf = frame({("S001", "tent"): 10, ("S001", "rope"): 4})
    assert seen.news(shelf).height == 2
    assert seen.news(shelf).height == 0
    shipped = Moved(pl.DataFrame({"location_code": ["S001"], "sku": ["tent"]}))
    assert seen.news(shelf, shipped).rows() == [("S001", "tent", 10)]


def test_what_was_seen_outlives_the_process_and_a_file_is_read_in_parts(tmp_path: Path) -> None:
    shelf = frame({("S001", "tent"): 10, ("DC1", "tent"): 99})
    shelf.write_parquet(tmp_path / "first.parquet")
    seen = LastSeen.load(tmp_path / "seen.npz")
    assert sum(part.height for part in news_of(tmp_path / "first.parquet", seen)) == 2
    seen.save(tmp_path / "seen.npz")
    frame({("S001", "tent"): 9, ("DC1", "tent"): 99, ("S002", "tent"): 0}).write_parquet(tmp_path / "second.parquet")
    (news,) = news_of(tmp_path / "second.parquet", LastSeen.load(tmp_path / "seen.npz"))
    assert news.rows() == [("S001", "tent", 9), ("S002", "tent", 0)]
