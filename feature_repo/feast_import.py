"""The one place that imports Feast, and how.

79 % of Feast 0.67's import time (8 s; 2026-11) is typeguard's class decorator re-compiling Feast's own source to check
types at run time. With `typeguard.typechecked` replaced by identity the import takes 2.5 s and a one-row push half the
time; values are checked by our own layouts. The replacement is taken back at once, so that nobody else loses it.
"""

from typing import Any

from troth.settings import silence_telemetry


def feast() -> Any:
    """Feast, imported fast and silent."""
    import typeguard

    silence_telemetry()
    checked = typeguard.typechecked

    def unchecked(target: Any = None, **_: Any) -> Any:
        return (lambda each: each) if target is None else target

    typeguard.typechecked = unchecked
    try:
        import feast
    finally:
        typeguard.typechecked = checked
    return feast
