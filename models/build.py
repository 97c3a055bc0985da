"""Trains every baseline under consent, passes it through its gate, and publishes its predictions. Wiring only.

A model whose inputs have not changed is not trained again, and predictions whose inputs have not changed are not
made again: inputs are the versions of the tables read, the policy, the ledger's size and root, the settings, the
model's own source and the library versions.
"""

import hashlib
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import polars as pl

from models import registry
from models.baseline import Baseline, Fitted, InUse, ModelReport, Outcome
from models.churn import CHURN
from models.permission import FrameStanding, policy_hash
from models.recommendations import RECOMMENDATIONS
from models.rfm import RFM
from models.tables import naive, read, versions, write
from models.training import ANY_CHANNEL, PURPOSE, Consented, Keep, Standing, consented, permitted
from troth.home import Home, write_atomically

BASELINES = (RFM, CHURN, RECOMMENDATIONS)
LIBRARIES = ("numpy", "polars", "scikit-learn", "scipy")
SCORED = "SCORED"  # artifacts/<model>/SCORED: what the published predictions were made from, and for how many


@dataclass(frozen=True)
class Known:
    """What a run knows when it starts: until when, under which ledger and policy, and who is only a test."""

    as_of_at: datetime
    ledger_size: int
    ledger_root: str
    policy_hash: str
    test_customers: pl.Series


def train_all(
    home: Home,
    as_of_at: datetime,
    ledger_size: int,
    ledger_root: str,
    progress: Callable[[str], None],
    *,
    standing: Standing | None = None,
    baselines: tuple[Baseline, ...] = BASELINES,
    keep: Keep | None = None,
) -> list[ModelReport]:
    """Train, judge and publish each baseline; one report each, with what was left out and why. `keep` is told of each training.

    `as_of_at` is aware; `ledger_root` is hex. Standing is taken from the published consent tables unless handed in.
    Raises: TrothError when a table it reads is not published.
    """
    customers = read(home, "customers", ("customer_id", "is_test"))
    known = Known(
        as_of_at=naive(as_of_at),
        ledger_size=ledger_size,
        ledger_root=ledger_root,
        policy_hash=policy_hash(),
        test_customers=customers.filter(pl.col("is_test").fill_null(True))["customer_id"],
    )
    asked = standing or FrameStanding.published(home)
    reports = []
    for baseline in baselines:
        progress(baseline.name)
        reports.append(_build(home, baseline, known, asked, keep))
    return reports


def _build(home: Home, baseline: Baseline, known: Known, standing: Standing, keep: Keep | None) -> ModelReport:
    began = time.perf_counter()
    inputs = _inputs(home, baseline, known)
    latest = registry.pointed(home, baseline.name, registry.LATEST)
    last = registry.manifest(home, baseline.name, latest) if latest else {}
    if latest and last.get("inputs") == inputs:
        outcome: Outcome = "unchanged"
        version: str | None = latest
        training, metrics, failures = last["training"], last["metrics"], tuple(last["gate"]["failures"])
    else:
        candidates = baseline.rows(home, known.as_of_at)
        rows = consented(candidates, standing, known.as_of_at, known.test_customers)
        training = _training(baseline, known, rows)
        fitted = baseline.fit(rows.rows, _in_use(home, baseline))
        if fitted is None:
            outcome, version, metrics, failures = "not_enough_rows", None, {}, ()
        else:
            if keep is not None:
                answers = standing.known_at(PURPOSE, ANY_CHANNEL, known.as_of_at)
                hashes = {name: hashlib.sha256(data).hexdigest() for name, data in sorted(fitted.files.items())}
                keep(baseline.name, candidates["customer_id"].unique().sort(), answers, known.as_of_at, hashes)
            version = registry.save(home, baseline.name, fitted.files, _manifest(baseline, inputs, training, fitted))
            outcome, metrics, failures = "kept_back" if fitted.failures else "promoted", fitted.metrics, fitted.failures
            if not failures:
                registry.promote(home, baseline.name, version)
    scored, unscored = _score(home, baseline, known, standing, inputs)
    return ModelReport(
        model=baseline.name,
        outcome=outcome,
        version=version,
        version_in_use=registry.pointed(home, baseline.name),
        rows_considered=training["rows_considered"],
        rows_kept=training["rows_kept"],
        left_out=training["left_out"],
        metrics=metrics,
        failures=failures,
        scored=scored,
        unscored=unscored,
        seconds=round(time.perf_counter() - began, 3),
    )


def _score(
    home: Home, baseline: Baseline, known: Known, standing: Standing, inputs: Mapping[str, Any]
) -> tuple[int, dict[str, int]]:
    """Publish `pred_<model>` by the model in use, for those who allow its use; how many, and how many not by reason."""
    version = registry.pointed(home, baseline.name)
    made_from = {"inputs": inputs, "model_version": version}
    note = home.artifacts / baseline.name / SCORED
    pointer = home.published / baseline.table / "CURRENT"
    before = json.loads(note.read_text()) if note.exists() and pointer.exists() else {}
    if (
        before.get("made_from") == made_from
        and before["table_version"] == versions(home, [baseline.table])[baseline.table]
    ):
        return before["scored"], before["unscored"]
    predictions, unscored = _predictions(home, baseline, known, standing, version)
    table_version = write(
        home, baseline.table, predictions.with_columns(pl.lit(version, pl.String).alias("model_version"))
    )
    said = {"made_from": made_from, "table_version": table_version, "scored": predictions.height, "unscored": unscored}
    write_atomically(note, registry.canonical(said))
    return predictions.height, unscored


def _predictions(
    home: Home, baseline: Baseline, known: Known, standing: Standing, version: str | None
) -> tuple[pl.DataFrame, dict[str, int]]:
    if version is None:
        return baseline.nothing, {}
    files = registry.read(home, baseline.name, version)
    if baseline.subjects is None:
        return baseline.predict(files, pl.DataFrame()), {}
    subjects = baseline.subjects(home, known.as_of_at)
    allowed = permitted(subjects, standing, baseline.use_purpose_code, known.as_of_at, known.test_customers)
    return baseline.predict(files, allowed.rows), dict(allowed.left_out)


def _in_use(home: Home, baseline: Baseline) -> InUse | None:
    version = registry.pointed(home, baseline.name)
    if version is None:
        return None
    return InUse(
        files=registry.read(home, baseline.name, version),
        metrics=registry.manifest(home, baseline.name, version)["metrics"],
    )


def _inputs(home: Home, baseline: Baseline, known: Known) -> dict[str, Any]:
    source = Path(str(sys.modules[baseline.fit.__module__].__file__))
    return {
        "tables": versions(home, (*baseline.tables, "customers", "consent_events", "customer_identities")),
        "as_of_at": known.as_of_at.isoformat() + "Z",
        "ledger_size": known.ledger_size,
        "ledger_root": known.ledger_root,
        "policy_hash": known.policy_hash,
        "settings": dict(baseline.settings),
        "source_hash": hashlib.sha256(source.read_bytes()).hexdigest(),
        "libraries": {name: installed(name) for name in LIBRARIES},
    }


def _training(baseline: Baseline, known: Known, rows: Consented) -> dict[str, Any]:
    return {
        "purpose_code": PURPOSE,
        "features": list(baseline.features),
        "rows_considered": rows.considered,
        "rows_kept": rows.kept,
        "customers_kept": rows.rows["customer_id"].n_unique(),
        "left_out": dict(rows.left_out),
        "ledger_size": known.ledger_size,
        "ledger_root": known.ledger_root,
        "policy_hash": known.policy_hash,
    }


def _manifest(
    baseline: Baseline, inputs: Mapping[str, Any], training: Mapping[str, Any], fitted: Fitted
) -> dict[str, Any]:
    return {
        "model": baseline.name,
        "description": baseline.description,
        "use_purpose_code": baseline.use_purpose_code,
        "inputs": inputs,
        "training": training,
        "metrics": dict(fitted.metrics),
        "gate": {
            "passed": not fitted.failures,
            "failures": list(fitted.failures),
            "thresholds": dict(baseline.settings),
        },
    }
