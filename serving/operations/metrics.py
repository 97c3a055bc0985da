"""What the service counts, as Prometheus reads it: sums over all workers, and how things stand at the moment it asks.

Labels come from closed lists: routes, statuses, services, views, reasons. No caller, nobody a request is about.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from feature_repo import catalogue
from feature_repo.packed import to_microseconds
from feature_repo.reads import projection
from serving.answers import Desk
from serving.operations.counts import AGES, BOUNDS, LAST, Labels

if TYPE_CHECKING:
    from datetime import datetime

HISTOGRAMS: dict[str, tuple[str, str, tuple[str, ...], tuple[float, ...]]] = {
    "http": ("troth_http_request_seconds", "Seconds from a request to its answer.", ("method", "route", "status"), BOUNDS),
    "age": ("troth_feature_age_seconds", "Age of the oldest row an answer rests on.", ("service",), AGES),
}  # fmt: skip
COUNTERS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "reads": ("troth_feature_reads", "Entities asked for, by service: allowed, or the reason of the refusal.", ("service", "reason")),
    "limited": ("troth_rate_limited", "Requests refused because their caller asked too often.", ("route",)),
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
            for found, value in sorted(self._counts.items()):
                if found[0] == name and len(found) == len(labels) + 1:
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
    _, size, seen = projection(desk.source, at)
    now = to_microseconds(at)
    views = (*catalogue.VIEWS, *catalogue.INDEXES)
    stand = zip(views, desk.source.store.standings(views), strict=True)
    lags = [(view.name, (now - each.as_of_us) / 1e6) for view, each in stand if each.as_of_us]
    yield "troth_view_lag_seconds", "Since the newest row of a published view was true.", "view", lags
    if size is not None:
        yield "troth_ledger_size", "Events in the consent ledger.", None, [("", size)]
    if seen is not None:
        yield "troth_standing_ledger_size", "Events of the ledger that published standing was decided on.", None, [("", seen)]  # fmt: skip
    if size is not None and seen is not None:
        yield "troth_standing_lag_events", "Events of the ledger that published standing has not seen.", None, [("", size - seen)]  # fmt: skip
    board = desk.board()
    known_at = None if board is None else board.known().known_at
    if known_at is not None:
        yield "troth_board_lag_seconds", "Since the newest event that the board of stock shows.", None, [("", (at - known_at).total_seconds())]  # fmt: skip


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
