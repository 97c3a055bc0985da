"""What to be woken for, as alerting rules of Prometheus over what the service counts. Limits of views are the catalogue's own."""

from collections.abc import Iterator
from typing import Any

import msgspec

# Refusals that come of us and not of a person's word: nobody should see them for long.
OURS = ("projection_behind", "projection_ahead", "projection_stale", "ledger_unreadable")
UNKNOWN = "projection_missing"  # of a person nothing is known of
BOARD_SECONDS, RECOMPUTED_SECONDS, UNSEEN_EVENTS = 60, 3_600, 100_000


class Rule(msgspec.Struct, frozen=True, kw_only=True, rename={"name": "alert", "lasting": "for"}):
    """One alert: its name, what is looked at, for how long it must hold, how urgent it is, and what to do."""

    name: str
    expr: str
    lasting: str
    labels: dict[str, str]
    annotations: dict[str, str]


def rules() -> list[Rule]:
    """Every alert there is."""
    return list(_rules())


def document() -> dict[str, Any]:
    """A file of rules as Prometheus loads it."""
    plain: list[dict[str, Any]] = msgspec.to_builtins(rules())
    return {"groups": [{"name": "troth", "rules": plain}]}


def _rules() -> Iterator[Rule]:
    yield _rule(
        "TrothViewLate", "troth_view_late == 1", "5m", "warning",
        "View {{ $labels.view }} knows nothing newer than its limit of lag allows.",
        "`troth watch views` tells how late. Of stock: is a projector running, and `troth stock cycle` every 15 minutes? Of the others: did the daily run end?",
    )  # fmt: skip
    yield _rule(
        "TrothViewsUnreadable", "absent(troth_view_late)", "2m", "critical",
        "No service tells of its views: none runs, or the online store cannot be asked.",
        "Ask `/v1/health`; look at the store that TROTH_ONLINE names, or at the home's disk.",
    )  # fmt: skip
    yield _rule(
        "TrothLedgerUnreadable", "absent(troth_ledger_size)", "1m", "critical",
        "The consent ledger cannot be asked: every personal read is refused.",
        "Ask `/v1/ready`; look at the database that TROTH_LEDGER names, or at the home's disk.",
    )  # fmt: skip
    yield _rule(
        "TrothStandingBehind", f"troth_standing_lag_events > {UNSEEN_EVENTS}", "15m", "warning",
        f"Published standing has not seen {UNSEEN_EVENTS:,} events of the ledger: they are decided one by one, at every start anew.",
        "`troth run` publishes standing again.",
    )  # fmt: skip
    yield _rule(
        "TrothRefusesForItself", f"{_share('troth_feature_reads_total', 'service', 'reason', '|'.join(OURS))} > 0.01", "5m", "critical",
        "More than one in a hundred reads for {{ $labels.service }} is refused for a reason of ours, not of a person.",
        "`troth_feature_reads_total` by reason says which; feature_repo/README.md says what each means.",
    )  # fmt: skip
    yield _rule(
        "TrothKnowsFewOfThoseAsked", f"{_share('troth_feature_reads_total', 'service', 'reason', UNKNOWN)} > 0.2", "30m", "warning",
        "More than one in five read for {{ $labels.service }} is somebody nothing is known of.",
        "A caller asks with other ids than ours, or customers are missing from what was published.",
    )  # fmt: skip
    yield _rule(
        "TrothBoardBehind", f"troth_board_lag_seconds > {BOARD_SECONDS}", "2m", "critical",
        "The board of stock has shown nothing new for more than a minute: no projector runs, or it does not keep up.",
        "`troth events status` tells how far it is behind; `troth serve` keeps one.",
    )  # fmt: skip
    yield _rule(
        "TrothStockNotRecomputed", f"troth_board_recomputed_lag_seconds > {RECOMPUTED_SECONDS}", "5m", "warning",
        "The warehouse has not recomputed stock for more than an hour: what the stream cannot know is old.",
        "`troth stock cycle` by hand tells why; every 15 minutes is usual.",
    )  # fmt: skip
    yield _rule(
        "TrothReadLogFails", "increase(troth_read_log_failures_total[5m]) > 0", "0m", "critical",
        "Personal reads are refused, for they cannot be written down.",
        "Make room for `logs/` of the home, or give it back to whom the service runs as.",
    )  # fmt: skip
    yield _rule(
        "TrothAnswersFail", f"{_share('troth_http_request_seconds_count', 'route', 'status', '5..')} > 0.01", "5m", "critical",
        "More than one in a hundred requests to {{ $labels.route }} fails.",
        "The service's standard error says why; `/v1/ready` whether it should be asked at all.",
    )  # fmt: skip


def _share(metric: str, label: str, told_by: str, pattern: str) -> str:
    """The share of what a label matches in the last five minutes, by another."""
    return f'sum by ({label}) (rate({metric}{{{told_by}=~"{pattern}"}}[5m])) / sum by ({label}) (rate({metric}[5m]))'


def _rule(name: str, expr: str, lasting: str, severity: str, summary: str, remedy: str) -> Rule:
    return Rule(
        name=name, expr=expr, lasting=lasting, labels={"severity": severity}, annotations={"summary": summary, "description": remedy}
    )  # fmt: skip
