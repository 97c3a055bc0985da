"""Small raw tables for tests: one plain default per column of a contract, and named changes.

`raw_home(folder, {"raw_pos__sale_lines": [{"sku": "SKU-00007"}, ...]})` writes every raw table as the landing does,
an empty file with the schema where no row is given. What is not named takes the default.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl

from orchestration.identities import resolve_identities
from orchestration.sources import consent, ecommerce, loyalty, pos, stock, wms
from orchestration.sources.contract import Contract
from troth.home import Home
from troth.settings import TELEMETRY_OFF

CONTRACTS: dict[str, Contract] = {
    contract.table: contract
    for module in (pos, ecommerce, wms, loyalty, consent, stock)
    for contract in module.CONTRACTS
}
UTC_TIME = pl.Datetime("us", "UTC")
CONSENT_TABLES: dict[str, dict[str, pl.DataType]] = {
    "consent_ledger": {
        "leaf_index": pl.Int64(),
        **dict.fromkeys(("subject_id", "event_type", "purpose_code", "channel_code"), pl.String()),
        **dict.fromkeys(("occurred_at", "recorded_at", "received_at"), UTC_TIME),
        "notice_id": pl.String(),
        "notice_version": pl.Int64(),
        **dict.fromkeys(
            (
                *("language_code", "capture_method", "capture_place", "actor_type", "jurisdiction_code", "signal_id"),
                *("actor_id", "linked_subject_id", "link_type"),
            ),
            pl.String(),
        ),
        "ledger_size": pl.Int64(),
    },
    "consent_policy": {
        **dict.fromkeys(("purpose_code", "channel_code", "legal_basis", "jurisdiction_code", "mechanism"), pl.String()),
        **dict.fromkeys(("expires_after_days", "confirm_within_days"), pl.Int64()),
        "is_refused_by_gpc": pl.Boolean(),
    },
    "consent_notices": {"notice_id": pl.String(), "minimum_version": pl.Int64(), "silence_version": pl.Int64()},
    "consent_links": {
        **dict.fromkeys(("subject_id", "other_subject_id"), pl.String()),
        **dict.fromkeys(("linked_at", "split_at", "unlinked_at"), UTC_TIME),
        "is_proved": pl.Boolean(),
    },
}
MORNING = datetime(2025, 3, 3, 8, tzinfo=UTC)
PURPOSES = ("personalization", "analytics", "model_training", "profile_unification", "third_party_sharing")
CHANNELS = ("email", "sms", "push", "post", "in_app", "onsite")
POLICY = [
    {"purpose_code": "service", "channel_code": "*", "legal_basis": "contract"},
    *(
        {"purpose_code": purpose, "channel_code": "*", "is_refused_by_gpc": purpose == "third_party_sharing"}
        for purpose in PURPOSES
    ),
    *({"purpose_code": "marketing", "channel_code": channel} for channel in CHANNELS),
]
# Where a type's default would not do.
DEFAULTS: dict[str, dict[str, Any]] = {
    "raw_pos__transactions": {"store_code": "1", "workstation_code": "1", "transaction_type": "retail"},
    "raw_pos__sale_lines": {"store_code": "1", "workstation_code": "1", "line_type": "sale", "unit_price_cents": 1000,
                            "discount_cents": 0, "net_cents": 1000, "tax_cents": 80},
    "raw_ecommerce__products": {"sku": "SKU-00001", "gtin": "00614141000012", "inventory_item_id": "9000000001",
                                "category_name": "Tents", "price_cents": 1000, "cost_cents": 600},
    "raw_ecommerce__customers": {"is_email_verified": True, "region_code": "CA", "country_code": "US"},
    "raw_ecommerce__orders": {"source_name": "web", "fulfillment_method": "ship_to_home", "currency_code": "USD",
                              "net_cents": 1000, "tax_cents": 80, "gross_cents": 1080, "shipping_cents": 0, "discount_cents": 0},
    "raw_ecommerce__order_lines": {"sku": "SKU-00001", "unit_price_cents": 1000, "net_cents": 1000, "tax_cents": 80},
    "raw_ecommerce__refunds": {"shipping_cents": 0, "shipping_tax_cents": 0, "adjustment_cents": 0, "adjustment_tax_cents": 0},
    "raw_ecommerce__fulfillments": {"sku": "SKU-00001", "status_code": "success"},
    "raw_ecommerce__refund_lines": {"sku": "SKU-00001", "restock_type": "return", "net_cents": 1000, "tax_cents": 80},
    "raw_ecommerce__adjustments": {"adjustment_type": "stock", "net_cents": 0},
    "raw_ecommerce__inventory_levels": {"inventory_item_id": "9000000001", "location_id": "7000000001", "available_units": 0},
    "raw_ecommerce__events": {"call_type": "track", "event_name": "Product Viewed", "device_type": "mobile"},
    "raw_wms__locations": {"location_code": "S001", "location_type": "store", "location_name": "Pier 9", "gln": "0614141000012",
                           "pos_store_code": "1", "ecommerce_location_id": "7000000001", "timezone_name": "America/Los_Angeles",
                           "region_code": "CA", "country_code": "US", "opens_at": "09:00", "closes_at": "21:00"},
    "raw_wms__epcis_events": {"event_type": "ObjectEvent", "action": "OBSERVE", "biz_step": "stock_taking",
                              "utc_offset": "+00:00", "biz_location": "0614141000012", "gtin": "00614141000012"},
    "raw_wms__stock_advice": {"gln": "0614141000012", "sku": "SKU-00001", "quantity_type": "on_hand"},
    "raw_wms__shipments": {"ship_from_gln": "0614141000012", "sku": "SKU-00001"},
    "raw_wms__picks": {"location_code": "S001", "sku": "SKU-00001", "pick_status": "picked"},
    "raw_loyalty__members": {"tier_code": "basic", "points_balance": 0, "region_code": "CA"},
    "raw_loyalty__points": {"entry_type": "accumulate"},
    "raw_consent__signals": {"event_type": "grant", "capture_place": "web_banner", "actor_type": "subject"},
    "consent_ledger": {"event_type": "grant", "purpose_code": "personalization", "channel_code": "*", "notice_id": "web_banner",
                       "notice_version": 1, "language_code": "en", "capture_method": "banner_accept",
                       "capture_place": "web_banner", "actor_type": "subject", "jurisdiction_code": "US-CA"},
    "consent_policy": {"legal_basis": "consent", "jurisdiction_code": "*", "mechanism": "opt_in", "expires_after_days": None,
                       "confirm_within_days": None, "is_refused_by_gpc": False},
    "consent_notices": {"notice_id": "web_banner", "minimum_version": 1, "silence_version": None},
    "consent_links": {"split_at": None, "unlinked_at": None, "is_proved": True},
}  # fmt: skip
PLAIN: dict[type[pl.DataType], Any] = {
    pl.String: "x",
    pl.Int64: 1,
    pl.Boolean: False,
    pl.Float64: 1.0,
    pl.Date: date(2025, 3, 3),
}


def schema_of(table: str) -> dict[str, pl.DataType]:
    """A raw table's columns and Polars types, provenance included."""
    return CONTRACTS[table].schema if table in CONTRACTS else CONSENT_TABLES[table]


def row(table: str, number: int, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The `number`-th row of a table: defaults, then the named changes. Ids default to the row's number.

    Optional columns are null unless named. `*_ref` and `subject_id` are written as given: a test makes up its own tokens.
    """
    columns = schema_of(table)
    unknown = set(changes) - set(columns)
    if unknown:
        raise KeyError(f"{table}: expected columns of the contract, found {sorted(unknown)}. Correct the test.")
    needed = {c.name for c in CONTRACTS[table].columns if c.required} if table in CONTRACTS else set(columns)
    built: dict[str, Any] = {}
    for name, kind in columns.items():
        if name in changes:
            built[name] = changes[name]
        elif name in DEFAULTS.get(table, {}):
            built[name] = DEFAULTS[table][name]
        elif name in ("source_file", "file_hash"):
            built[name] = f"{table}.test"
        elif name in ("record_offset", "leaf_index"):
            built[name] = number
        elif name.endswith(("_at", "_at_local")) and name in {*needed, "received_at"}:
            built[name] = MORNING if kind == UTC_TIME else MORNING.replace(tzinfo=None)
        elif name in ("actor_id", "linked_subject_id", "link_type"):
            built[name] = None
        elif name in needed and name.endswith("_id"):
            built[name] = str(number)
        elif name in needed:
            built[name] = {"currency_code": "USD", "sku": "SKU-00001"}.get(name, PLAIN.get(type(kind)))
        else:
            built[name] = None
    return built


def raw_home(folder: Path, rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> Path:
    """Write all raw tables under `folder` and return it: schema files, and the given rows in one day folder each."""
    given = {"consent_policy": POLICY, "consent_notices": [{}], **rows}
    for table in (*CONTRACTS, *CONSENT_TABLES):
        schema = schema_of(table)
        built = [row(table, number, changes) for number, changes in enumerate(given.get(table, ()), start=1)]
        if table == "consent_ledger":
            for leaf_index, leaf in enumerate(built):
                leaf.update(leaf_index=leaf_index, ledger_size=len(built))
        frame = pl.DataFrame(built, schema=schema, orient="row")
        place = folder / table
        if table in CONTRACTS:
            (place / "day=2025-03-03").mkdir(parents=True)
            pl.DataFrame(schema=schema).write_parquet(place / "schema.parquet")
            frame.write_parquet(place / "day=2025-03-03" / "data.parquet")
        else:
            place.mkdir(parents=True)
            frame.write_parquet(place / "data.parquet")
    return folder


def build_marts(raw: Path, folder: Path, as_of_at: str, only: Sequence[str] = (), **variables: Any) -> Path:
    """Identities as known by then and `dbt build` of the whole project over `raw`, unit tests included, or of `only` these tables and what
    they rest on; gives the warehouse file.

    Raises: AssertionError with what dbt said when a model or a test fails.
    """
    project = Path(__file__).parent.parent / "dbt_project"
    warehouse = folder / "warehouse.duckdb"
    resolve_identities(Home(raw.parent), datetime.fromisoformat(as_of_at), lambda *_: None)
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("dbt")), "build", "--project-dir", str(project), "--profiles-dir", str(project),
            "--vars", json.dumps({"as_of_at": as_of_at, **variables}),
            *(("--exclude-resource-type", "unit_test", "--indirect-selection", "cautious", "--select", *(f"+{table}" for table in only)) if only else ()),
        ],
        env={
            **os.environ, **TELEMETRY_OFF, "TROTH_RAW": str(raw), "TROTH_WAREHOUSE": str(warehouse),
            "DBT_TARGET_PATH": str(folder / "target"), "DBT_LOG_PATH": str(folder / "logs"),
        },
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]
    return warehouse


def rows_of(warehouse: Path, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
    """Rows of a query on a built warehouse; `?` stands for a parameter."""
    import duckdb

    with duckdb.connect(str(warehouse), read_only=True) as connection:
        return connection.execute(query, parameters).fetchall()
