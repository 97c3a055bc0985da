"""The board of stock as answers find it: there once it shows what the warehouse knows."""

from models.stock.board.reader import Board
from troth.home import Home


def open_board(home: Home) -> Board | None:
    """The home's board; None before a projector has shown the warehouse's last word there."""
    folder = home.stock / "board"
    if not (folder / "current").exists():
        return None
    board = Board(folder)
    return board if board.known().recomputed_at is not None else None
