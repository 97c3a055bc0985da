import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.stock import positions
from models.stock.positions import Positions

PLACES = st.tuples(st.sampled_from(["S001", "S002", "DC1"]), st.integers(0, 40).map("sku {}".format))


def frame(places: list[tuple[str, str]]) -> pl.DataFrame:
    return pl.DataFrame(places, schema={"location_code": pl.String, "sku": pl.String}, orient="row")


@pytest.mark.parametrize("small", [1_000_000, -1_000_000], ids=["by a matrix", "by a sorted list"])
@given(known=st.lists(PLACES, unique=True, max_size=20), asked=st.lists(PLACES, max_size=20))
def test_every_position_has_its_row_however_thinly_names_are_spread(
    small: int, known: list[tuple[str, str]], asked: list[tuple[str, str]]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(positions, "_SMALL", small)
        found = Positions(frame(known))
    rows = {place: row for row, place in enumerate(known)}
    expected = [rows.get(place, len(known)) for place in asked]
    assert found.rows_of(asked).tolist() == expected
    assert found.rows(frame(asked)["sku"], frame(asked)["location_code"]).tolist() == expected


def test_a_position_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="once"):
        Positions(frame([("S001", "tent"), ("S001", "tent")]))
