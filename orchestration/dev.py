"""Entry for `dagster dev -m orchestration.dev`. The one module that does something on import: Dagster asks for it."""

from orchestration.definitions import load

defs = load()
