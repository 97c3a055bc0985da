import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from models.promise.asking import PromiseError, Spot
from orchestration.cli import app
from serving.promising.shapes import spot_of
from tests.unit.serving.test_promising import Counter


def test_a_promise_is_asked_for_on_a_terminal(tmp_path: Path) -> None:
    Counter(tmp_path, datetime.now(UTC))
    asked = ["ask", "promise", "--home", str(tmp_path), "--sku", "KETTLE", "--sku", "NOPE", "--units", "2", "--near", "10025", "--partial"]  # fmt: skip
    told = CliRunner().invoke(app, [*asked, "--json"])
    answer = json.loads(told.stdout)
    assert (answer["lines"], answer["left_out"]) == ([{"sku": "KETTLE", "units": 2}], [{"sku": "NOPE", "units": 1}])
    shown = CliRunner().invoke(app, asked).stdout
    assert shown.startswith(answer["text"][:20])
    assert "ship_to_home: unknown_sku NOPE" in shown


def test_a_place_is_a_postal_code_or_a_position() -> None:
    assert spot_of("10025") == Spot(postal_code="10025")
    assert spot_of("40.79, -73.97") == Spot(latitude=40.79, longitude=-73.97)
    for wrong in ("40.79,", "91,0", "1,2,3"):
        with pytest.raises(PromiseError, match="near: expected"):
            spot_of(wrong)
