"""The asset graph: landed files to raw tables, raw tables to the ledger, to marts, to features, to what is learned.

Wiring only. What each step does is in the room it belongs to; here it gets its name, its upstream and its checks.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg
from dagster_dbt import DagsterDbtTranslator, dbt_assets

from feature_repo import catalogue
from orchestration import batches, lineage, near_time, purpose_gate, stages, taking, warehouse
from orchestration.catalog import SOURCES, contracts
from orchestration.raw import read_table
from orchestration.resources import Dbt, HomeResource, Reading, Reporter
from orchestration.sources.contract import Contract, Source
from serving.operations.tools import data_docs

# A trading day exists once something has landed for it: the newcomer's export may start in 2010, the sample last spring.
TRADING_DAY = "trading_day"
TRADING_DAYS = dg.DynamicPartitionsDefinition(name=TRADING_DAY)
# Whatever follows from raw tables follows by itself once something upstream is new (sensor `follow_upstream`).
FOLLOWS = dg.AutomationCondition.eager()


def raw_tables(source: Source) -> dg.AssetsDefinition:
    """One Dagster asset per raw table of a source, read together because one file feeds several of them."""

    @dg.multi_asset(
        name=f"take_{source.name}",
        specs=[_raw_spec(contract) for contract in source.contracts],
        partitions_def=TRADING_DAYS,
        backfill_policy=dg.BackfillPolicy.single_run(),
        check_specs=[
            dg.AssetCheckSpec(name, asset=contract.table, blocking=True, description=promise)
            for contract in source.contracts
            for name, promise in (
                (
                    "keeps_its_contract",
                    "The landed batch meets the Great Expectations suite that follows from its contract.",
                ),
                (
                    "sets_few_rows_aside",
                    f"At most {batches.LARGEST_SHARE_ASIDE:.0%} of the rows landed were set aside.",
                ),
            )
        ],
    )
    def take(
        context: dg.AssetExecutionContext,
        troth: HomeResource,
        reporter: dg.ResourceParam[Reporter],
        readers: dg.ResourceParam[Reading],
    ) -> Iterator[Any]:
        with readers.of(troth) as pool:
            plans = pool.plan(source.name, set(context.partition_keys))
            pool.take(plans, lambda done, total: reporter.advance(f"read {source.name}", done, total))
        # The days as they stand, not only what is new in them: a check that failed fails again until it is mended.
        took = taking.taken(troth.home, source.name, context.partition_keys)
        reporter.advance(f"check {source.name}", 0, 1)
        verdicts = {v.table: v for v in batches.validate_batches(troth.home, source.contracts, took.days)}
        reporter.advance(f"check {source.name}", 1, 1)
        for contract in source.contracts:
            aside: Mapping[str, int] = took.aside.get(contract.table, {})
            rows = took.rows[contract.table]
            yield dg.MaterializeResult(
                contract.table, metadata={"rows": rows, "set_aside": sum(aside.values()), "reasons": dict(aside)}
            )
            verdict = verdicts.get(contract.table)
            yield dg.AssetCheckResult(
                asset_key=contract.table,
                check_name="keeps_its_contract",
                passed=verdict is None or verdict.passed,
                metadata={
                    "rows": verdict.rows if verdict else 0,
                    "expectations": verdict.expectations if verdict else 0,
                    "not_met": list(verdict.failures) if verdict else [],
                    "data_docs": dg.MetadataValue.path(str(data_docs(troth.home))),
                },
            )
            yield dg.AssetCheckResult(
                asset_key=contract.table,
                check_name="sets_few_rows_aside",
                passed=batches.few_aside(rows, sum(aside.values())),
                metadata={"rows": rows, "set_aside": sum(aside.values()), "reasons": dict(aside)},
            )

    return take


def _raw_spec(contract: Contract) -> dg.AssetSpec:
    return dg.AssetSpec(
        contract.table,
        description=contract.description,
        group_name=contract.source,
        kinds={"polars", "parquet"},
        freshness_policy=dg.FreshnessPolicy.time_window(fail_window=_hours(contract.freshness_hours)),
        metadata={
            "dagster/column_schema": dg.TableSchema(
                columns=[
                    dg.TableColumn(
                        column.name,
                        column.type,
                        description=column.description,
                        constraints=dg.TableColumnConstraints(nullable=not column.required),
                        tags={} if column.personal == "none" else {"personal": column.personal},
                    )
                    for column in contract.columns
                ]
            ),
            "key": list(contract.key),
        },
    )


def _hours(hours: int) -> Any:
    from datetime import timedelta

    return timedelta(hours=hours)


@dg.multi_asset(
    name="append_consents",
    specs=[
        dg.AssetSpec(
            "consent_ledger",
            deps=["raw_consent__signals"],
            group_name="consent", automation_condition=FOLLOWS,
            description="Every consent event with its place in the ledger. One row per event.",
            kinds={"sqlite"},
        ),
        dg.AssetSpec("consent_policy", group_name="consent", automation_condition=FOLLOWS, description="What is asked, by purpose, channel and jurisdiction. One row each."),
        dg.AssetSpec("consent_links", group_name="consent", automation_condition=FOLLOWS, description="Which identities were joined, and when: what the ledger was told, up to the identities published last. One row per pair and time."),
        dg.AssetSpec("consent_notices", group_name="consent", automation_condition=FOLLOWS, description="Notices and the oldest version whose grants still hold. One row per notice."),
    ],
    check_specs=[
        dg.AssetCheckSpec(
            "verifies", asset="consent_ledger", blocking=True,
            description="The root derived again from every entry on disk equals the signed checkpoint.",
        ),
        dg.AssetCheckSpec(
            "leaves_no_signal_out", asset="consent_ledger", blocking=True,
            description="Every captured signal is in the ledger: one that is left out could be a withdrawal.",
        ),
    ],
)  # fmt: skip
def append_consents(troth: HomeResource, reporter: dg.ResourceParam[Reporter]) -> Iterator[Any]:
    done = stages.append_consents(troth.home, troth.clock, reporter.advance)
    reporter.tell("ledger", done)
    yield dg.MaterializeResult("consent_ledger", metadata=stages.as_metadata(done))
    yield dg.MaterializeResult("consent_links")
    yield dg.MaterializeResult("consent_policy")
    yield dg.MaterializeResult("consent_notices")
    yield dg.AssetCheckResult(asset_key="consent_ledger", check_name="verifies", passed=done.verified)
    yield dg.AssetCheckResult(
        asset_key="consent_ledger",
        check_name="leaves_no_signal_out",
        passed=not done.aside,
        metadata={"left_out": done.aside},
    )


@dg.multi_asset(
    name="resolve_identities",
    specs=[
        dg.AssetSpec(
            table,
            deps=["raw_ecommerce__customers", "raw_ecommerce__orders", "raw_ecommerce__refund_lines", "raw_ecommerce__events",
                  "raw_loyalty__members", "raw_pos__transactions", "raw_steward__decisions", "consent_ledger"],
            group_name="identity", automation_condition=FOLLOWS, kinds={"splink"}, description=description,
        )
        for table, description in (
            ("identity_members", "Which customer each identifier is of, and how it came to be. One row per identifier."),
            ("identity_contacts", "Identifiers that a customer's records show and nothing proves: a refusal travels over them. One row per identifier and customer."),
            ("identity_links", "Pairs of records that were weighed, and what was decided. One row per pair."),
            ("identity_changes", "What became of customers from run to run: who was joined, parted, renamed. One row per change and identifier."),
        )
    ],
)  # fmt: skip
def resolve_identities(troth: HomeResource, reporter: dg.ResourceParam[Reporter]) -> Iterator[dg.MaterializeResult]:
    row = stages.resolve_identities(troth.home, reporter.advance)
    reporter.tell("resolution", row)
    yield dg.MaterializeResult("identity_members", metadata=stages.as_metadata(row))
    yield dg.MaterializeResult("identity_contacts")
    yield dg.MaterializeResult("identity_links", metadata={"pairs": sum(row.decisions.values()), **row.decisions})
    yield dg.MaterializeResult("identity_changes", metadata={"identifiers_moved": row.moved})


@dg.asset(
    deps=["raw_ecommerce__customers", "raw_ecommerce__orders", "raw_loyalty__members"],
    group_name="consent",
    automation_condition=FOLLOWS,
    kinds={"sqlite"},
)
def vault(troth: HomeResource, reporter: dg.ResourceParam[Reporter]) -> dg.MaterializeResult:
    """Contact points under their tokens, encrypted: the only place besides raw that holds them. One row per token."""
    return dg.MaterializeResult(metadata={"contact_points": stages.fill_vault(troth.home)})


@dg.asset(group_name="stock", kinds={"parquet"})
def stock_belief(troth: HomeResource) -> dg.MaterializeResult:
    """Safety stock as belief asked for it, for SQL to read; empty while nothing was believed. One row per location, SKU and decision."""
    believed = read_table(troth.home, "stock_belief")
    return dg.MaterializeResult(metadata={"rows": 0 if believed is None else believed.height})


@dg.asset(
    group_name="consent",
    automation_condition=FOLLOWS,
    kinds={"sql"},
    check_specs=[
        dg.AssetCheckSpec(
            "covers_every_use", asset="purpose_flow", blocking=True,
            description="No personal data reaches a use of the code that its purpose does not cover, by any column of any table.",
        ),
        dg.AssetCheckSpec(
            "has_breakers_that_hold", asset="purpose_flow", blocking=True,
            description="Every breaker is what it says, as far as the SQL can tell.",
        ),
        dg.AssetCheckSpec(
            "covers_what_the_home_describes", asset="purpose_flow",
            description="The same of segments and destinations described in the home: one with a finding is refused by itself.",
        ),
    ],
)  # fmt: skip
def purpose_flow(troth: HomeResource) -> Iterator[Any]:
    """Which personal data reaches which use, and whether its purpose covers it: checked before anything is published. One row per column."""
    found = purpose_gate.verdict(troth.home, troth.clock)
    of_code = [each.sentence for each in found.findings if not each.is_of_home]
    of_home = [each.sentence for each in found.findings if each.is_of_home]
    yield dg.MaterializeResult(
        metadata={"columns": len(found.places), "uses": len(found.uses), "checked_at": found.checked_at.isoformat()}
    )
    for name, sentences in (
        ("covers_every_use", of_code),
        ("has_breakers_that_hold", found.faults),
        ("covers_what_the_home_describes", of_home),
    ):
        yield dg.AssetCheckResult(
            check_name=name, passed=not sentences, metadata={"found": sentences[: purpose_gate.MOST_TOLD]},
            severity=dg.AssetCheckSeverity.WARN if name == "covers_what_the_home_describes" else dg.AssetCheckSeverity.ERROR,
        )  # fmt: skip


class Translator(DagsterDbtTranslator):  # type: ignore[misc]  # dagster-dbt is not typed
    """dbt names are asset keys, nothing added: lineage from `raw_` to `ftr_` joins up by itself."""

    def __init__(self) -> None:
        super().__init__()
        self._lineage = lineage.known(warehouse.parsed())

    def get_asset_key(self, dbt_resource_props: Mapping[str, Any]) -> dg.AssetKey:
        return dg.AssetKey(dbt_resource_props["name"])

    def get_group_name(self, dbt_resource_props: Mapping[str, Any]) -> str | None:
        folders = dbt_resource_props["fqn"][1:-1]
        return "_".join(folders[:1]) or None

    def get_automation_condition(self, dbt_resource_props: Mapping[str, Any]) -> dg.AutomationCondition:
        return FOLLOWS

    def get_metadata(self, dbt_resource_props: Mapping[str, Any]) -> Mapping[str, Any]:
        columns = self._lineage.get(dbt_resource_props["name"], {})
        return {
            **super().get_metadata(dbt_resource_props),
            "dagster/column_lineage": dg.TableColumnLineage(
                {
                    column: [
                        dg.TableColumnDep(asset_key=dg.AssetKey(table), column_name=name) for table, name in sources
                    ]
                    for column, sources in columns.items()
                }
            ),
        }


def marts(manifest: Mapping[str, Any]) -> dg.AssetsDefinition:
    """Every dbt model under its own name, built by one `dbt build`, tests as asset checks; then published."""

    @dbt_assets(manifest=manifest, name="build_marts", dagster_dbt_translator=Translator(), pool=warehouse.POOL)  # type: ignore[untyped-decorator]
    def build_marts(
        context: dg.AssetExecutionContext,
        troth: HomeResource,
        dbt: Dbt,
        reporter: dg.ResourceParam[Reporter],
    ) -> Iterator[Any]:
        offset = near_time.known_offset(troth.home)
        yield from warehouse.build(context, troth.home, dbt, stages.known_until(troth.home), reporter.advance)
        purpose_gate.hold(troth.home, troth.clock)
        published = warehouse.publish_tables(troth.home, list(warehouse.published_models(manifest)))
        near_time.announce_stock(troth.home, offset)
        context.log.info(
            f"published {sum(changed for _, changed in published.values())} changed tables of {len(published)}"
        )

    made: dg.AssetsDefinition = build_marts
    return made


def _online(view: str) -> str:
    """Asset key of a view in the online store; a few views have the name of the mart they serve."""
    return f"online_{view}"


@dg.multi_asset(
    name="publish_features",
    can_subset=True,
    specs=[
        dg.AssetSpec(
            _online(view.name),
            skippable=True,
            deps=[view.table, "purpose_flow"],
            description=view.description,
            group_name="features_online",
            automation_condition=FOLLOWS,
            kinds={"feast", "sqlite"},
        )
        for view in (*catalogue.VIEWS, *catalogue.INDEXES)
    ],
)
def publish_features(
    context: dg.AssetExecutionContext, troth: HomeResource, reporter: dg.ResourceParam[Reporter]
) -> Iterator[dg.MaterializeResult]:
    purpose_gate.hold(troth.home, troth.clock)
    # All views, whatever was selected: a version that is online already costs nothing.
    rows = stages.publish_features(troth.home, reporter.advance)
    reporter.tell("features", rows)
    for row in rows:
        if dg.AssetKey(_online(row.view)) in context.selected_asset_keys:
            yield dg.MaterializeResult(_online(row.view), metadata=stages.as_metadata(row))


@dg.multi_asset_check(
    name="watch_views",
    specs=[
        dg.AssetCheckSpec(
            "keeps_its_limit_of_lag",
            asset=_online(view.name),
            description=f"What the view knows is no older than {view.lag_limit}, by its version or by the stream.",
        )
        for view in (*catalogue.VIEWS, *catalogue.INDEXES)
    ],
    can_subset=True,
)
def watch_views(context: dg.AssetCheckExecutionContext, troth: HomeResource) -> Iterator[dg.AssetCheckResult]:
    """By the clock, between runs: it looks at what is online, and nothing waits for it."""
    from serving.answers import ask_lags, clock_of

    asked = {key.asset_key for key in context.selected_asset_check_keys}
    for lag in ask_lags(troth.home, clock_of(troth.home).now()):
        if (key := dg.AssetKey(_online(lag.view))) in asked:
            yield dg.AssetCheckResult(
                asset_key=key, check_name="keeps_its_limit_of_lag", passed=not lag.is_late, metadata=stages.as_metadata(lag)
            )  # fmt: skip


@dg.multi_asset(
    name="train_models",
    specs=[
        dg.AssetSpec(
            f"pred_{model}",
            deps=["ftr_customer_purchases", "ftr_customer_engagement", "order_lines", "products", "consent_events", "customer_identities", "customers", "purpose_flow"],
            group_name="models", automation_condition=FOLLOWS,
            kinds={"scikitlearn"},
            description=f"What the {model} model says, learned from rows whose consent for model_training held.",
        )
        for model in ("rfm", "churn", "recommendations")
    ],
)  # fmt: skip
def train_models(troth: HomeResource, reporter: dg.ResourceParam[Reporter]) -> Iterator[dg.MaterializeResult]:
    purpose_gate.hold(troth.home, troth.clock)
    rows = stages.train_models(troth.home, troth.clock, reporter.advance)
    reporter.tell("models", rows)
    for row in rows:
        yield dg.MaterializeResult(f"pred_{row.model}", metadata=stages.as_metadata(row))


@dg.asset(
    deps=[
        "customers",
        "consent_standing",
        "orders",
        "ftr_customer_purchases",
        "ftr_customer_engagement",
        "pred_rfm",
        "purpose_flow",
    ],
    group_name="segments",
    automation_condition=FOLLOWS,
)
def segments(troth: HomeResource, reporter: dg.ResourceParam[Reporter]) -> dg.MaterializeResult:
    """Members of every described segment: matched, may be contacted, refused by reason. One row per segment."""
    purpose_gate.hold(troth.home, troth.clock)
    rows = stages.preview_segments(troth.home, reporter.advance)
    reporter.tell("segments", rows)
    return dg.MaterializeResult(metadata={f"{row.segment} {row.channel}": stages.as_metadata(row) for row in rows})


@dg.asset(
    deps=["customers", "consent_standing", "orders", "web_events", "ftr_customer_purchases", "segments"],
    group_name="segments",
    automation_condition=FOLLOWS,
)
def segment_results(troth: HomeResource, reporter: dg.ResourceParam[Reporter]) -> dg.MaterializeResult:
    """What segments that went out did: people written to beside people held out, with bounds. One look per segment."""
    return dg.MaterializeResult(metadata=stages.measure_results(troth.home, reporter.advance))


@dg.multi_asset(
    name="believe_stock",
    specs=[
        dg.AssetSpec(
            name, deps=["stock_movements", "stock_picks", "stock_counts", "products", "locations"], group_name="models",
            automation_condition=FOLLOWS, kinds={"parquet"}, description=description,
        )
        for name, description in (
            ("pred_stock_belief", "How many pieces can be found, believed from what moved, was counted and was looked for; and the safety stock that follows. One row per location and SKU."),
            ("pred_stock_counts", "What to count next: the positions whose count is worth most a minute, and why. One row per location and SKU."),
        )
    ],
)  # fmt: skip
def believe_stock(troth: HomeResource, reporter: dg.ResourceParam[Reporter]) -> Iterator[dg.MaterializeResult]:
    row = stages.believe_stock(troth.home, reporter.advance)
    reporter.tell("belief", row)
    yield dg.MaterializeResult("pred_stock_belief", metadata=stages.as_metadata(row))
    yield dg.MaterializeResult("pred_stock_counts", metadata={"rows": row.worth_counting})


def all_assets(manifest: Mapping[str, Any]) -> list[dg.AssetsDefinition]:
    return [
        *(raw_tables(source) for source in SOURCES),
        append_consents,
        resolve_identities,
        vault,
        purpose_flow,
        stock_belief,
        marts(manifest),
        publish_features,
        train_models,
        believe_stock,
        segments,
        segment_results,
    ]


__all__ = ["TRADING_DAYS", "all_assets", "contracts"]
