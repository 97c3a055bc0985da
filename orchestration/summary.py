"""What a run tells the person who started it: figures gathered from the home, and the closing tables.

Figures come from what was published and recorded, not from what steps say of themselves. No personal data.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import polars as pl

from orchestration import taking
from orchestration.catalog import SOURCES
from serving.operations.runs import BeliefRow, DuplicatesRow, IdentityRow, RunReport, SourceRow, StockRow
from troth.home import Home
from troth.published import current


def source_rows(home: Home) -> list[SourceRow]:
    """Per source: what has been taken so far, from the records of taking."""
    rows = []
    for source in SOURCES:
        took = taking.taken(home, source.name)
        tables = [contract.table for contract in source.contracts]
        reasons: Counter[str] = Counter()
        for table in tables:
            reasons.update(took.aside.get(table, {}))
        files = took.files_of.get(source.name, 0)
        rows.append(
            SourceRow(
                source.name,
                files,
                took.duplicates_of.get(source.name, 0),
                sum(took.rows[table] for table in tables),
                reasons.total(),
                dict(reasons.most_common()),
            )
        )
    return rows


def identity_counts(home: Home) -> tuple[dict[str, int], int]:
    """Source identities by type, and the customers they became (test accounts apart)."""
    identities = pl.read_parquet(current(home, "customer_identities"), columns=["identity_type", "identity_ref"])
    counts = identities.unique().group_by("identity_type").len().sort("identity_type")
    customers = pl.read_parquet(current(home, "customers"), columns=["is_test"])
    return dict(counts.iter_rows()), customers.filter(~pl.col("is_test")).height


def duplicates_row(home: Home) -> DuplicatesRow:
    """The sums of customer_duplicates."""
    sums = pl.read_parquet(current(home, "customer_duplicates")).sum()
    return DuplicatesRow(
        joined=int(sums["joined_profile_count"][0]), saved_cents=int(sums["joined_cost_cents"][0]),
        expected=float(sums["expected_duplicates"][0]), left_cents=int(sums["expected_cost_cents"][0]),
        split_cents=int(sums["expected_split_cents"][0]), double_mailings=float(sums["expected_double_mailings"][0]),
    )  # fmt: skip


def stock_rows(home: Home) -> list[StockRow]:
    """SKU x location positions and units on hand, as each source reports them and as one belief."""
    positions = pl.read_parquet(
        current(home, "stock_positions"), columns=["reported_source_name", "reported_units", "on_hand_units"]
    )
    reported = (
        positions.filter(pl.col("reported_source_name").is_not_null())
        .group_by("reported_source_name")
        .agg(pl.len(), pl.col("reported_units").sum())
        .sort("reported_source_name")
    )
    rows = [StockRow(f"{source} reports", count, int(units or 0)) for source, count, units in reported.iter_rows()]
    return [*rows, StockRow("unified", positions.height, int(positions["on_hand_units"].sum() or 0))]


def render(report: RunReport) -> Iterable[Any]:
    """Rich tables, in the order a person asks: what came in, who, what stock, which consent, whom we may reach."""
    from rich.table import Table

    def table(title: str, *columns: str, rows: Iterable[tuple[object, ...]]) -> Table:
        made = Table(title=title, title_justify="left", title_style="bold", header_style="dim", expand=False)
        for i, column in enumerate(columns):
            made.add_column(column, justify="left" if i == 0 or column in ("reasons", "outcome", "root") else "right")
        for row in rows:
            made.add_row(*(f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row))
        return made

    yield table(
        "Sources", "source", "files", "copies", "rows read", "set aside", "reasons",
        rows=[(s.source, s.files, s.duplicate_files, s.rows, s.aside, _reasons(s.reasons)) for s in report.sources],
    )  # fmt: skip
    yield table(
        "People", "source identities", "count",
        rows=[*report.identities.items(), ("[bold]customers[/]", report.customers)],
    )  # fmt: skip
    if report.belief:
        yield table("Shelves", "of positions", "count", rows=_shelves(report.belief))
    if report.resolution:
        yield table("Who is who", "of records", "count", rows=_who_is_who(report.resolution, report.duplicates))
    yield table(
        "Stock",
        "SKU x location",
        "positions",
        "units on hand",
        rows=[(s.source, s.positions, s.units) for s in report.stock],
    )
    if report.ledger:
        root = f"{report.ledger.root[:16]}..."
        yield table(
            "Consent ledger", "events", "new", "of links", "root", "state",
            rows=[(report.ledger.size, report.ledger.appended, report.ledger.links, root, "[green]verified[/]" if report.ledger.verified else "[red]DOES NOT VERIFY[/]")],
        )  # fmt: skip
    yield table(
        "Segments", "segment", "purpose", "matched", "may be contacted", "refused", "reasons",
        rows=[(s.segment, f"{s.purpose}/{s.channel}", s.matched, s.may_be_contacted, sum(s.refused.values()), _reasons(s.refused)) for s in report.segments],
    )  # fmt: skip
    yield table(
        "Features online",
        "view",
        "rows",
        "written",
        "unchanged",
        rows=[(f.view, f.rows, f.written, f.skipped) for f in report.features],
    )
    yield table(
        "Models", "model", "learned from", "left out", "reasons", "outcome",
        rows=[(m.model, m.rows, sum(m.left_out.values()), _reasons(m.left_out), m.outcome) for m in report.models],
    )  # fmt: skip
    yield table("Checks", "passed", "failed", rows=[(report.checks.passed, report.checks.failed)])
    yield table(
        "Time",
        "stage",
        "seconds",
        rows=[
            *((s.stage, f"{s.seconds:.1f}") for s in report.stages),
            ("[bold]all[/]", f"{sum(s.seconds for s in report.stages):.1f}"),
        ],
    )


def _shelves(found: BeliefRow) -> Iterable[tuple[object, ...]]:
    yield "believed", f"{found.positions:,}"
    yield "recorded, and more likely empty than not", f"{found.doubtful:,}"
    yield "safety stock decided otherwise", f"{found.safety_changes:,}"
    if found.is_learned_now:
        yield f"picks that a model was learned from ({found.model_version[:12]})", f"{found.picks:,}"


def _who_is_who(found: IdentityRow, duplicates: DuplicatesRow | None) -> Iterable[tuple[object, ...]]:
    decided = found.decisions
    yield "records of people", found.records
    yield "identifiers", found.identities
    yield "customers, test accounts included", found.customers
    yield "likely pairs joined", decided.get("joined", 0) + decided.get("forced", 0)
    yield "below the bar", decided.get("below_the_bar", 0)
    yield "outweighed by their groups", decided.get("outweighed", 0)
    yield "not allowed by consent", decided.get("not_allowed", 0)
    yield "kept apart by a steward", decided.get("forbidden", 0)
    yield "identifiers that moved", found.moved
    if duplicates:
        yield (
            f"duplicates expected still, {duplicates.left_cents / 100:,.2f} a year "
            f"(joining {duplicates.joined:,} saves {duplicates.saved_cents / 100:,.2f})",
            f"{duplicates.expected:,.1f}",
        )


def _reasons(counts: dict[str, int], most: int = 3) -> str:
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    rest = len(ranked) - most
    return ", ".join(f"{reason} {count:,}" for reason, count in ranked[:most]) + (
        f" (+{rest} more)" if rest > 0 else ""
    )
