"""Real data through the whole graph: does everything come back, to the penny and to the piece?

The UCI "Online Retail" file (CC BY 4.0, Chen 2015, doi 10.24432/C5BW33): 541,909 lines of a UK web shop. Its own sums are the peer.
"""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.harness import Measure, conditions
from troth.errors import TrothError

SUMMARY = "Real data (UCI Online Retail) through `troth run`: money, pieces and refusals against the file itself"
FILE = Path(__file__).resolve().parents[2] / "shared" / "data" / "online_retail.parquet"
MAPPING = Path(__file__).resolve().parents[1] / "examples" / "online_retail.yml"


def measure(scale: str | None, data: Path | None = None) -> Iterator[Measure]:
    """Differences in pence and pieces (goal 0), the share of people refused as `never_asked` (goal 1), seconds.

    Raises: TrothError when the file is not there.
    """
    import polars as pl

    file = data or FILE
    if not file.is_file():
        raise TrothError(f"online_retail: expected the file at {file}, found none. Give it with --data.")
    said = pl.read_parquet(file, columns=["Quantity", "UnitPrice"]).select(
        pieces=pl.col("Quantity").sum(), money=(pl.col("Quantity") * pl.col("UnitPrice")).sum()
    )
    pieces, pence = int(said["pieces"][0]), round(float(said["money"][0]) * 100)
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        found = _run(Path(folder), file)
        seconds = time.monotonic() - began
    state = conditions(file=file.name, lines=541_909, rows=found["rows"])
    yield Measure("money_difference", abs(found["pence"] - pence), "pence", "lower", 0, conditions=state)
    yield Measure("pieces_difference", abs(found["pieces"] - pieces), "pieces", "lower", 0, conditions=state)
    yield Measure(
        "cancellations_became_returns_or_refunds", found["given_back"], "lines", "higher", 9_288, conditions=state
    )
    yield Measure("people_refused_never_asked", found["never_asked"], "share", "higher", 1, conditions=state)
    yield Measure("run_from_file_to_features", seconds, "seconds", conditions=state)


def _run(root: Path, file: Path) -> dict[str, Any]:
    import polars as pl

    from orchestration.progress import Silent
    from orchestration.run import run
    from orchestration.sources.mapped import land_mapped, load_mapping
    from troth.published import current
    from troth.settings import here

    settings = here(root)
    land_mapped(settings.home, load_mapping(MAPPING), file)
    report = run(settings, Silent(), sample=False)

    def table(name: str) -> pl.DataFrame:
        return pl.read_parquet(current(settings.home, name))

    lines, returns, refunds = table("order_lines"), table("returns"), table("refunds")
    adjusted = pl.read_parquet(settings.home.raw / "raw_ecommerce__adjustments" / "**" / "*.parquet")
    asked = table("consent_standing").filter(pl.col("purpose_code") != "service")

    kept = refunds.filter(pl.col("return_line_id").is_null())
    given_back = {"net_cents": (refunds,), "quantity_units": (returns, kept)}  # money by refunds, goods by returns

    def total(column: str) -> int:
        back = sum(int(frame[column].sum()) for frame in given_back[column])
        return int(lines[column].sum()) - back + int(adjusted[column].sum())

    return {
        "rows": sum(source.rows for source in report.sources),
        "pence": total("net_cents"),
        "pieces": total("quantity_units"),
        "given_back": returns.height + kept.height,
        "never_asked": (asked["reason_code"] == "never_asked").mean(),
    }
