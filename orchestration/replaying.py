"""Reading set-aside rows again, after what made them unreadable was mended."""

from typing import Any

from orchestration import taking
from orchestration.catalog import SOURCES
from troth.errors import TrothError
from troth.settings import Settings


def replay(settings: Settings, source: str, dry_run: bool) -> dict[str, Any]:
    """Read every file of a source that has rows in quarantine again; landed files themselves are never edited.

    Raises: TrothError for a source nobody declared.
    """
    names = [each.name for each in SOURCES]
    if source not in names:
        raise TrothError(f"source: expected one of {', '.join(names)}, found {source}. Name one of them.")
    plans = taking.replan(settings.home, source)
    before = sum(sum(reasons.values()) for plan in plans for file in plan.read for reasons in file.aside.values())
    answer: dict[str, Any] = {
        "source": source,
        "files": sum(len(plan.read) for plan in plans),
        "set_aside_before": before,
        "is_dry_run": dry_run,
    }
    if dry_run:
        return answer
    took = taking.take(settings.home, plans, settings.workers)
    after = sum(reasons.total() for reasons in took.aside.values())
    return {**answer, "set_aside_now": after, "landed_now": before - after, "next": "troth run --force"}
