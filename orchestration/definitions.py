"""What `dagster dev` loads: one graph, its jobs, schedules, sensor and resources."""

from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import dagster as dg

from orchestration import activations, lineage, taking, warehouse
from orchestration.assets import TRADING_DAY, TRADING_DAYS, all_assets, watch_views
from orchestration.catalog import SOURCES, contracts
from orchestration.instance import dagster_home
from orchestration.near_time import land_log
from orchestration.resources import Dbt, HomeResource, Reading, Reporter
from troth.home import Home
from troth.settings import Settings, here

RAW = dg.AssetSelection.assets(*(contract.table for contract in contracts()))
AVAILABILITY = (
    dg.AssetSelection.assets("ftr_sku_location_availability").upstream()
    - RAW
    - dg.AssetSelection.groups("consent", "identity")
)

AVAILABILITY_CYCLE = AVAILABILITY | dg.AssetSelection.assets("online_sku_location_availability", "online_availability")


def build_definitions(settings: Settings, manifest: Path) -> dg.Definitions:
    """The whole graph for one home. Nothing happens on import; this function is the seam tests use."""
    import json

    home = settings.home
    assets = all_assets(json.loads(manifest.read_bytes()))
    take_landed = dg.define_asset_job(
        "take_landed", selection=RAW, description="Read what has landed for a trading day."
    )
    daily_close = dg.define_asset_job(
        "daily_close", selection=dg.AssetSelection.all() - RAW, description="Ledger, marts, features, models, segments."
    )
    availability = dg.define_asset_job(
        "availability_cycle",
        selection=AVAILABILITY_CYCLE,
        description="Stock and availability only, from what is already read.",
    )
    lags = dg.define_asset_job(
        "watch_lags",
        selection=dg.AssetSelection.checks(watch_views),
        description="How old what each online view knows is, against its limit.",
    )
    return dg.Definitions(
        assets=assets,
        asset_checks=[watch_views],
        jobs=[take_landed, daily_close, availability, lags, *activations.JOBS],
        schedules=[
            dg.ScheduleDefinition(job=daily_close, cron_schedule="30 2 * * *", execution_timezone="UTC"),
            dg.ScheduleDefinition(job=availability, cron_schedule="*/15 * * * *", execution_timezone="UTC"),
            dg.ScheduleDefinition(job=lags, cron_schedule="7/15 * * * *", execution_timezone="UTC"),
            *activations.schedules(home),
        ],
        sensors=[
            new_files(home, take_landed),
            dg.AutomationConditionSensorDefinition("follow_upstream", target=dg.AssetSelection.all() - RAW),
        ],
        resources=resources(settings),
    )


def resources(
    settings: Settings, reporter: Reporter | None = None, readers: taking.Readers | None = None
) -> dict[str, Any]:
    return {
        "troth": HomeResource(root=str(settings.home.root), workers=settings.workers),
        "dbt": Dbt(
            project_dir=str(warehouse.PROJECT),
            profiles_dir=str(warehouse.PROJECT),
            dbt_executable=warehouse.dbt_executable(),
        ),
        "reporter": reporter or Reporter(),
        "readers": Reading(readers),
    }


def new_files(home: Home, job: Any) -> dg.SensorDefinition:
    """Lands what came in over HTTP, looks for landed files that are not taken yet and asks for a run per trading day."""

    @dg.sensor(name="new_files", job=job, minimum_interval_seconds=30, description="Runs for files that have landed.")
    def new_files(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        land_log(home)
        plans = [plan for source in SOURCES for plan in taking.plan(home, source.name)]
        if not plans:
            return dg.SkipReason(f"nothing new under {home.landing}")
        days = sorted({plan.day for plan in plans})
        known = context.instance.get_dynamic_partitions(TRADING_DAY)
        content = {day: sorted(f.sha256 for plan in plans if plan.day == day for f in plan.read) for day in days}
        keys = {day: f"{day}:{sha256(''.join(hashes).encode()).hexdigest()[:16]}" for day, hashes in content.items()}
        return dg.SensorResult(
            run_requests=[dg.RunRequest(run_key=keys[day], partition_key=day) for day in days],
            dynamic_partitions_requests=[TRADING_DAYS.build_add_request([d for d in days if d not in known])],
            cursor=datetime.now(UTC).isoformat(),
        )

    return new_files


def load() -> dg.Definitions:
    """Definitions of this process's home, for `dagster dev -m orchestration.dev`."""
    settings = here()
    dagster_home(settings.home)
    warehouse.export_environment(settings.home)
    manifest = warehouse.manifest(settings.home)
    lineage.refresh(manifest.parent)
    return build_definitions(settings, manifest)
