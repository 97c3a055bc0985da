import multiprocessing
import shutil
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.stock.atp import PARTS, Stock, available
from models.stock.board.layout import BoardError
from models.stock.board.reader import Board
from models.stock.board.writer import BoardWriter

AT = datetime(2026, 3, 2, 9, tzinfo=UTC)
TENTS = [("S001", "tent"), ("S002", "tent")]


def on_hand(*units: int) -> dict[str, np.ndarray]:
    return {"on_hand_units": np.array(units)}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    with BoardWriter(tmp_path) as writer:
        assert writer.needs_rewriting
        writer.write(TENTS, {**on_hand(5, 2), "held_units": np.array([1, 4])}, np.array([7, 8]), offset=3)
        writer.believe(TENTS, np.array([[0.9, 0.5], [0.25, 0.0]]), AT)
        writer.tell(3, AT)
        board = Board(tmp_path)
        cells = board.cells([*TENTS, ("S009", "tent"), ("S001", "rope")])
    assert cells.available_units.tolist() == [4, 0, 0, 0]
    assert cells.is_known.tolist() == [True, True, False, False]
    assert cells.data["last_event_at"].tolist() == [7, 8, 0, 0]
    assert cells.found_probability(1)[:2] == pytest.approx([0.9, 0.25], abs=2e-5)
    assert cells.found_probability(np.array([0, 2, 1, 1])) == pytest.approx([1, 0, 0, 0])
    assert cells.found_probability(99)[0] == pytest.approx(0.5, abs=2e-5)
    assert (board.known().offset, board.known().known_at, board.known().believed_at) == (3, AT, AT)


def test_a_belief_is_never_told_higher_than_it_is(tmp_path: Path) -> None:
    believed = np.linspace(0, 1, 999)[:, None]
    positions = [(f"S{number:03}", "tent") for number in range(999)]
    with BoardWriter(tmp_path) as writer:
        writer.believe(positions, believed, AT)
    told = Board(tmp_path).cells(positions).found_probability(1)
    assert (told <= believed[:, 0]).all()
    assert np.abs(told - believed[:, 0]).max() < 1 / 65_535


def test_rows_hold_every_location_of_a_sku(tmp_path: Path) -> None:
    with BoardWriter(tmp_path) as writer:
        writer.write([*TENTS, ("S002", "rope")], on_hand(5, 2, 3))
        cells, locations = Board(tmp_path).rows(["rope", "tent", "stove"])
    assert list(locations) == ["S001", "S002"]
    assert cells.available_units.tolist() == [[0, 3], [5, 2], [0, 0]]
    assert cells.is_known.tolist() == [[False, True], [True, True], [False, False]]


def test_parts_that_are_not_given_stay(tmp_path: Path) -> None:
    with BoardWriter(tmp_path) as writer:
        writer.write(TENTS, on_hand(5, 2))
        writer.write(TENTS[:1], {"committed_units": np.array([2])})
        assert Board(tmp_path).cells(TENTS).available_units.tolist() == [3, 2]


def test_a_reader_follows_a_board_that_outgrows_its_room(tmp_path: Path) -> None:
    with BoardWriter(tmp_path, skus=1, locations=1) as writer:
        writer.write(TENTS[:1], on_hand(5))
        writer.tell(1, AT)
        board = Board(tmp_path)
        for number in range(2, 40):
            writer.write([(f"S{number:03}", f"sku {number}")], on_hand(number))
        assert board.cells([("S001", "tent"), ("S039", "sku 39"), ("S039", "tent")]).available_units.tolist() == [
            5,
            39,
            0,
        ]
        assert board.known().offset == 1
        assert len(list(tmp_path.glob("generation-*"))) == 1


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 5), st.lists(st.integers(-50, 50), min_size=7, max_size=7)),
        max_size=30,
    )
)
@settings(max_examples=30, deadline=None)
def test_a_board_shows_the_last_that_was_written_whatever_the_order_of_names(
    writes: list[tuple[int, int, list[int]]],
) -> None:
    import tempfile

    told: dict[tuple[str, str], Stock] = {}
    with tempfile.TemporaryDirectory() as folder, BoardWriter(Path(folder), skus=1, locations=1) as writer:
        for location, sku, units in writes:
            position = (f"S{location}", f"sku {sku}")
            told[position] = Stock(*units)
            writer.write([position], {part: np.array([value]) for part, value in zip(PARTS, units, strict=True)})
        cells = Board(Path(folder)).cells(list(told))
    assert cells.available_units.tolist() == [available(stock) for stock in told.values()]


def test_there_is_one_writer(tmp_path: Path) -> None:
    with BoardWriter(tmp_path), pytest.raises(BoardError, match="only writer"):
        BoardWriter(tmp_path)
    BoardWriter(tmp_path).close()


def test_nobody_reads_a_board_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BoardError, match="found none"):
        Board(tmp_path)


def test_a_position_twice_and_absurd_counts_are_refused(tmp_path: Path) -> None:
    with BoardWriter(tmp_path) as writer:
        with pytest.raises(BoardError, match="once"):
            writer.write([TENTS[0], TENTS[0]], on_hand(1, 2))
        with pytest.raises(BoardError, match="pieces"):
            writer.write(TENTS[:1], on_hand(2**31))


def test_a_half_written_cell_is_not_read_and_the_next_writer_begins_anew(tmp_path: Path) -> None:
    with BoardWriter(tmp_path) as writer:
        writer.write(TENTS, on_hand(5, 2))
        # As a kill in the middle leaves it.
        writer._header[0]["is_writing"] = 1
        writer._cells[0, 0]["version"] |= 1
    board = Board(tmp_path)
    with pytest.raises(BoardError, match="half written"):
        board.cells(TENTS)
    with BoardWriter(tmp_path) as writer:
        assert writer.needs_rewriting
        assert not board.cells(TENTS).is_known.any()
        writer.write(TENTS, on_hand(5, 2))
    assert board.cells(TENTS).available_units.tolist() == [5, 2]
    with BoardWriter(tmp_path) as writer:
        assert not writer.needs_rewriting


def test_what_a_start_of_the_machine_left_is_written_anew(tmp_path: Path) -> None:
    with BoardWriter(tmp_path) as writer:
        writer.write(TENTS, on_hand(5, 2))
    (tmp_path / "boot").write_text("another start")
    with BoardWriter(tmp_path) as writer:
        assert writer.needs_rewriting
    shutil.rmtree(tmp_path)


def _write_pairs(folder: Path, rounds: int) -> None:
    """Cells whose parts are all the same number: a mixed cell was read half written."""
    positions = [(f"S{number:03}", "tent") for number in range(40)]
    with BoardWriter(folder) as writer:
        for number in range(1, rounds):
            same = np.full(len(positions), number)
            writer.write(positions, dict.fromkeys(PARTS, same), same, offset=number)


def test_readers_never_see_half_a_cell_while_another_process_writes(tmp_path: Path) -> None:
    with BoardWriter(tmp_path) as writer:
        writer.write([("S000", "tent")], on_hand(0))
    board = Board(tmp_path)
    process = multiprocessing.get_context("spawn").Process(target=_write_pairs, args=(tmp_path, 3_000))
    process.start()
    seen = set()
    try:
        while process.is_alive():
            cells, _ = board.rows(["tent"])
            data = cells.data[cells.is_known]
            for part in PARTS[1:]:
                assert (data[part] == data["committed_units"]).all()
            assert (data["last_event_at"] == data["offset"]).all()
            seen.update(data["offset"].tolist())
    finally:
        process.kill()
        process.join()
    assert len(seen) > 10
