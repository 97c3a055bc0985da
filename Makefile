# Two commands: `make run` and `make test`. The first of them sets the environment up.
PYTHON ?= python3
VENV := .venv
PIP_QUIET ?= -q

.PHONY: run test lint types borders lock clean

run: $(VENV)/ready
	$(VENV)/bin/troth run

test: $(VENV)/ready
	$(VENV)/bin/python -m pytest

lint: $(VENV)/ready
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: $(VENV)/ready
	$(VENV)/bin/mypy

borders: $(VENV)/ready
	$(VENV)/bin/lint-imports

# Pinned and hashed: requirements.txt holds every package down to the last, with version and digest, and no address.
# --no-deps: nothing is left to resolve, and pip 23 would look for extras that the file has already spelled out.
$(VENV)/ready: requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"Python: expected 3.11 or later, found {sys.version.split()[0]}. Set PYTHON=<path of a newer one>.")'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install $(PIP_QUIET) --disable-pip-version-check --no-deps --require-hashes -r requirements.txt
	$(VENV)/bin/python -m pip install $(PIP_QUIET) --disable-pip-version-check --no-deps --no-build-isolation -e .
	$(VENV)/bin/python -m compileall -q $(VENV)/lib >/dev/null 2>&1 || true
	touch $@

# Needs uv. Writes versions and digests for every platform and Python from 3.11.
lock:
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header \
		--extra dev -o requirements.txt pyproject.toml build-requirements.in

clean:
	rm -rf $(VENV) dbt_project/target
