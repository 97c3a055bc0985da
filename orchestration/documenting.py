"""dbt's documentation of the project as one page that loads nothing: for the console, which shows it in a box."""

import json
import os
import subprocess
import tempfile
from pathlib import Path

from orchestration.warehouse import PROJECT, WarehouseError, dbt_environment, dbt_executable
from serving.operations.tools import DBT_SITE
from troth.home import Home, write_atomically


def write_docs(home: Home) -> Path:
    """Write the page into the home. Opens no warehouse: columns are those declared. Raises: WarehouseError with what dbt said."""
    with tempfile.TemporaryDirectory() as folder:
        places = {
            "TROTH_WAREHOUSE": str(Path(folder) / "empty.duckdb"),
            "DBT_TARGET_PATH": folder,
            "DBT_LOG_PATH": str(Path(folder) / "logs"),
        }
        os.environ.update(
            {**dbt_environment(home, None), **places}
        )  # dbt inherits it; the command that asked ends with it
        any_time = json.dumps({"as_of_at": "1970-01-01T00:00:00Z"})
        command = ["docs", "generate", "--static", "--empty-catalog", "--project-dir", str(PROJECT), "--vars", any_time]
        done = subprocess.run(
            [dbt_executable(), "--quiet", *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        made = Path(folder) / DBT_SITE
        if done.returncode != 0 or not made.exists():
            said = done.stdout.decode(errors="replace")[-4_000:]
            raise WarehouseError(f"dbt docs: expected them made, found errors. Mend them:\n{said}")
        page = home.root / "dbt" / DBT_SITE
        write_atomically(page, made.read_bytes())
    return page
