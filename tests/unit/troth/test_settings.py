from pathlib import Path

import pytest

from troth.errors import TrothError
from troth.settings import from_environment


def test_the_home_is_var_unless_told_otherwise(tmp_path: Path) -> None:
    assert from_environment({}).home.root.name == "var"
    assert from_environment({"TROTH_HOME": str(tmp_path)}).home.root == tmp_path
    assert from_environment({"TROTH_HOME": "/elsewhere"}, tmp_path).home.root == tmp_path


@pytest.mark.parametrize("workers", ["none", "0", "-1", "1.5"])
def test_a_senseless_number_of_workers_is_refused(workers: str) -> None:
    with pytest.raises(TrothError, match="TROTH_WORKERS: expected a whole number from 1"):
        from_environment({"TROTH_WORKERS": workers})
