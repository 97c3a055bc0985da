"""`troth stock`: the near-time cycle, how the stream and the warehouse agree, and what the board shows. Parses and prints."""

import sys
from typing import Annotated

import typer

from orchestration.options import HomeOption, JsonOption
from troth.settings import here

app = typer.Typer(no_args_is_help=True, help="Stock between runs: the 15-minute cycle, the stream, the board.")


@app.command("cycle")
def run_cycle(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Land and read what came in, recompute availability and heal the stream; every 15 minutes is usual."""
    from orchestration.cycle import cycle
    from orchestration.printing import show
    from orchestration.progress import RichDisplay, Silent

    settings = here(home)
    if as_json:
        sys.exit(show(cycle(settings, Silent()), True))
    with RichDisplay() as display:
        report = cycle(settings, display)
    show(report, False)


@app.command("project")
def project(home: HomeOption = None) -> None:
    """Show what the log tells on the board and to the holds, until stopped. `troth serve` does it too."""
    from serving.intake.projector import main

    sys.exit(main([str(here(home).home.root)]))


@app.command("drift")
def show_drift(
    rows: Annotated[int, typer.Option(help="How many differences of each report to show.", min=0)] = 10,
    reports: Annotated[int, typer.Option(help="How many reports, newest first.", min=1)] = 5,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Where the stream and the warehouse said otherwise, and why; the warehouse's word was taken."""
    import msgspec

    from orchestration.printing import show
    from serving.intake import drift

    found = [msgspec.structs.replace(each, rows=each.rows[:rows]) for each in drift.reports(here(home).home)[:reports]]
    if not found and not as_json:
        print("The warehouse has not been compared with the stream yet: run `troth serve`, then `troth stock cycle`.")
        return
    for each in [found] if as_json else found:
        show(each, as_json)


@app.command("board")
def show_board(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """What the board knows: how many positions, up to which event, how old."""
    from models.stock.board.reader import Board
    from orchestration.printing import show

    board = Board(here(home).home.stock / "board")
    known = board.known()
    told = {
        "skus": len(board.skus),
        "locations": len(board.locations),
        "log_offset": known.offset,
        "known_at": known.known_at,
        "recomputed_at": known.recomputed_at,
        "believed_at": known.believed_at,
    }
    show(told, as_json)


@app.command("count-list")
def show_count_list(
    location: Annotated[str | None, typer.Option(help="One location's list; all where it is left out.")] = None,
    top: Annotated[int, typer.Option(help="How many positions.", min=1)] = 20,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """What to count tomorrow morning: the positions whose count is worth most a minute, and why."""
    from models.stock.belief.counting import counts_worth
    from orchestration.printing import show

    show(counts_worth(here(home).home, location, top).to_dicts(), as_json)


@app.command("reliability")
def show_reliability(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """How often goods were found that were believed to be there, by how sure we were: on picks the model had not seen."""
    from models.stock.belief.model import in_use
    from orchestration.printing import show

    model = in_use(here(home).home)
    if not model.version and not as_json:
        print("No model is in use yet: expectations decide until enough picks were made to learn from.")
        return
    told = {"model_version": model.version, **dict(model.diagnostics), "reliability": model.reliability.to_dicts()}
    show(told, as_json)
