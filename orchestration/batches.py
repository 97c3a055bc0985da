"""What a landed batch must look like as a whole: Great Expectations on the rows one run took, table by table.

Row by row the contract has spoken already (`conform`); a batch can still be wrong as a batch: columns missing, a key
that is mostly repeats, a column suddenly empty. Suites follow from the contracts. Results and data docs are kept under
`reports/gx` of the home. Great Expectations runs on its pandas engine: through SQLAlchemy its metrics fail on DuckDB.
"""

import contextlib
import logging
import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from orchestration.sources.contract import Column, Contract
from troth.home import Home

# A batch above this is judged on a fixed, evenly spaced sample: pandas keeps text as objects, about 60 bytes a cell.
LARGEST_BATCH = 500_000
# Repeats of a key are normal (late copies, changes); a batch that is mostly repeats is a stuck exporter.
LEAST_DISTINCT_SHARE = 0.5
LARGEST_SHARE_ASIDE = 0.05


@dataclass(frozen=True)
class BatchResult:
    """Verdict on one table's batch: rows judged, expectations met and not met (in words)."""

    table: str
    rows: int
    expectations: int
    failures: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return not self.failures


def validate_batches(home: Home, contracts: Sequence[Contract], days: dict[str, set[str]]) -> list[BatchResult]:
    """Judge what landed on the given days (by source) and rebuild the data docs. One result per table with rows."""
    batches = [(contract, _batch(home, contract, days.get(contract.source, set()))) for contract in contracts]
    present = [(contract, batch) for contract, batch in batches if batch is not None]
    if not present:
        return []
    with _quiet():
        import great_expectations as gx

        root = home.reports / "gx"
        root.mkdir(parents=True, exist_ok=True)
        context = gx.get_context(mode="file", project_root_dir=root)
        context.variables.progress_bars = {"globally": False}
        results = [_validate(gx, context, contract, batch) for contract, batch in present]
        context.build_data_docs()
    return results


def few_aside(rows: int, aside: int) -> bool:
    """Whether the rows set aside are few beside those kept. Up to 20 are never many: a small file may be mostly wrong."""
    return aside <= max(20, LARGEST_SHARE_ASIDE * (rows + aside))


def _batch(home: Home, contract: Contract, days: Iterable[str]) -> pl.DataFrame | None:
    paths = [home.raw / contract.table / f"day={day}" / "data.parquet" for day in sorted(days)]
    paths = [path for path in paths if path.exists()]
    if not paths:
        return None
    rows = pl.scan_parquet(paths).select(pl.len()).collect().item()
    step = -(-rows // LARGEST_BATCH)
    # Columns nothing is expected of stay behind; contact data among them.
    names = [column.name for column in contract.columns if _expected_of(column) or column.name in contract.key]
    return pl.scan_parquet(paths).select(names).gather_every(step).collect() if rows else None


def _expected_of(column: Column) -> bool:
    return column.required or bool(column.values) or column.minimum is not None


def _validate(gx: Any, context: Any, contract: Contract, batch: pl.DataFrame) -> BatchResult:
    import great_expectations.expectations as gxe

    expectations: list[Any] = [
        gxe.ExpectTableColumnsToMatchSet(column_set=batch.columns, exact_match=True),
        gxe.ExpectTableRowCountToBeBetween(min_value=1),
    ]
    for column in contract.columns:
        if column.required and not column.token_of:
            expectations.append(gxe.ExpectColumnValuesToNotBeNull(column=column.name))
        if column.values:
            expectations.append(gxe.ExpectColumnValuesToBeInSet(column=column.name, value_set=list(column.values)))
        if column.minimum is not None:
            expectations.append(gxe.ExpectColumnValuesToBeBetween(column=column.name, min_value=column.minimum))
    if len(contract.key) == 1:
        expectations.append(
            gxe.ExpectColumnProportionOfUniqueValuesToBeBetween(
                column=contract.key[0], min_value=LEAST_DISTINCT_SHARE, max_value=1
            )
        )
    suite = context.suites.add_or_update(gx.ExpectationSuite(name=contract.table, expectations=expectations))
    source = context.data_sources.add_or_update_pandas(contract.table)
    definition = source.add_dataframe_asset("landed").add_batch_definition_whole_dataframe("landed")
    validation = context.validation_definitions.add_or_update(
        gx.ValidationDefinition(name=contract.table, data=definition, suite=suite)
    )
    # BOOLEAN_ONLY keeps values, which may be personal, out of the stored results.
    outcome = validation.run(batch_parameters={"dataframe": batch.to_pandas()}, result_format="BOOLEAN_ONLY")
    failures = tuple(
        f"{result.expectation_config.type} {result.expectation_config.kwargs.get('column', '')}".strip()
        for result in outcome.results
        if not result.success
    )
    return BatchResult(contract.table, batch.height, len(outcome.results), failures)


@contextlib.contextmanager
def _quiet() -> Any:
    """Great Expectations prints progress bars and warns of its own future; neither is news to the reader of a run."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    logging.getLogger("great_expectations").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
