"""What the service counts, as Prometheus reads it: sums over all workers, and how things stand at the moment it asks.

Labels come from closed lists: routes, statuses, services, views, reasons. No caller, nobody a request is about.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from feature_repo.reads import projection, readable_size
from serving.answers import Desk, ask_lags
from serving.operations.counts import AGES, BOUNDS, LAST, Labels
from troth.errors import TrothError

if TYPE_CHECKING:
    from datetime import datetime

HISTOGRAMS: dict[str, tuple[str, str, tuple[str, ...], tuple[float, ...]]] = {
    "http": ("troth_http_request_seconds", "Seconds from a request to its answer.", ("method", "route", "status"), BOUNDS),
    "age": ("troth_feature_age_seconds", "Age of the oldest row an answer rests on.", ("service",), AGES),
}  # fmt: skip
COUNTERS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "reads": ("troth_feature_reads", "Entities asked for, by service: allowed, or the reason of the refusal.", ("service", "reason")),
    "limited": ("troth_rate_limited", "Requests refused because their caller asked too often.", ("route",)),
    "unwritten": ("troth_read_log_failures", "Personal reads that were not answered, for they could not be written down.", ()),
    "forgotten": ("troth_read_log_removed", "Files of the log of personal reads that were removed, for they were old enough.", ()),
}  # fmt: skip


class Counted:
    """A collector over counts that were read and the desk as it is now."""

    def __init__(self, counts: Mapping[Labels, float], desk: Desk, at: "datetime") -> None:
        self._counts, self._desk, self._at = counts, desk, at

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        for name, (told, text, labels, bounds) in HISTOGRAMS.items():
            histogram = HistogramMetricFamily(told, text, labels=labels)
            for labelled, cells in sorted(_grouped(self._counts, name, len(labels)).items()):
                histogram.add_metric(list(labelled), buckets=_cumulated(cells, bounds), sum_value=cells.get("sum", 0.0))
            yield histogram
        for name, (told, text, labels) in COUNTERS.items():
            counter = CounterMetricFamily(told, text, labels=labels)
            if not labels:  # told from the start, or its first rise could not be seen
                counter.add_metric((), self._counts.get((name,), 0.0))
            for found, value in sorted(self._counts.items()):
                if labels and found[0] == name and len(found) == len(labels) + 1:
                    counter.add_metric(found[1:], value)
            yield counter
        for told, text, label, gauges in standing_now(self._desk, self._at):
            gauge = GaugeMetricFamily(told, text, labels=[label] if label else [])
            for of_label, number in gauges:
                gauge.add_metric([of_label] if label else [], number)
            yield gauge


def exposition(counts: Mapping[Labels, float], desk: Desk, at: "datetime", accepted: str) -> tuple[bytes, str]:
    """All of it in the format that is accepted, and that format's media type."""
    from prometheus_client import CollectorRegistry
    from prometheus_client.exposition import choose_encoder

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Counted(counts, desk, at))
    encoder, kind = choose_encoder(accepted)
    return encoder(registry), kind


def standing_now(desk: Desk, at: "datetime") -> Iterable[tuple[str, str, str | None, list[tuple[str, float]]]]:
    """Gauges: name, meaning, label, values. What cannot be read is left out, so that its absence can be alarmed on."""
    try:
        yield from _of_views(desk, at)
        _, size, seen = projection(desk.source, at)
    except (TrothError, OSError, sqlite3.Error):
        size, seen = readable_size(desk.source), None
    if size is not None:
        yield "troth_ledger_size", "Events in the consent ledger.", None, [("", size)]
    if seen is not None:
        yield "troth_standing_ledger_size", "Events of the ledger that published standing was decided on.", None, [("", seen)]  # fmt: skip
    if size is not None and seen is not None:
        yield "troth_standing_lag_events", "Events of the ledger that published standing has not seen.", None, [("", size - seen)]  # fmt: skip
    known = None if (board := desk.board()) is None else board.known()
    if known is not None and known.known_at is not None:
        yield "troth_board_lag_seconds", "Since the newest event that the board of stock shows.", None, [("", (at - known.known_at).total_seconds())]  # fmt: skip
    if known is not None and known.recomputed_at is not None:
        yield "troth_board_recomputed_lag_seconds", "Since the warehouse last recomputed the stock that the board shows.", None, [("", (at - known.recomputed_at).total_seconds())]  # fmt: skip


def _of_views(desk: Desk, at: "datetime") -> Iterable[tuple[str, str, str | None, list[tuple[str, float]]]]:
    lags = ask_lags(desk, at)
    yield "troth_view_lag_seconds", "Since the newest of what a view knows.", "view", [(each.view, each.lag_seconds) for each in lags if each.lag_seconds is not None]  # fmt: skip
    yield "troth_view_lag_limit_seconds", "How large that may be, as the catalogue declares it.", "view", [(each.view, each.lag_limit_seconds) for each in lags]  # fmt: skip
    yield "troth_view_late", "1 where it is larger, or nothing was ever published.", "view", [(each.view, float(each.is_late)) for each in lags]  # fmt: skip


def _grouped(counts: Mapping[Labels, float], name: str, labels: int) -> dict[Labels, dict[str, float]]:
    found: dict[Labels, dict[str, float]] = {}
    for each, value in counts.items():
        if each[0] == name and len(each) == labels + 2:
            found.setdefault(each[1:-1], {})[each[-1]] = value
    return found


def _cumulated(cells: Mapping[str, float], bounds: tuple[float, ...]) -> list[tuple[str, float]]:
    total, found = 0.0, []
    for bound in (*map(str, bounds), LAST):
        total += cells.get(bound, 0.0)
        found.append((bound, total))
    return found
