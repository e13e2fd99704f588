"""Prometheus metrics of the coverage reports, read at each scrape, in their own registry."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

# Report key -> the label `kind` of the row counter.
_ROWS = {
    "rows_in": "in",
    "rows_clean": "clean",
    "rows_rejected": "rejected",
    "rows_rerouted": "rerouted",
    "rows_augmented": "augmented",
    "rows_lost": "lost",
    "rows_retracted": "retracted",
}


class CoverageCollector(Collector):
    """Collects metrics from the reports of all families.

    `reports` returns the reports at each scrape; `troubles` returns {family: why it is not folded}.
    """

    def __init__(
        self, reports: Callable[[], Iterable[Mapping[str, Any]]], troubles: Callable[[], Mapping[str, str]]
    ) -> None:
        self._reports = reports
        self._troubles = troubles

    def describe(self) -> Iterable[Metric]:
        """Return no descriptions, so that registering does not read the store."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Yield the metrics of one scrape."""
        entries = CounterMetricFamily("feedmill_ledger_entries", "Raw records accounted for", labels=["family"])
        rows = CounterMetricFamily("feedmill_rows", "Rows by outcome", labels=["family", "kind"])
        rejected = CounterMetricFamily("feedmill_rejected_rows", "Rows by broken rule", labels=["family", "reason"])
        cells = GaugeMetricFamily("feedmill_coverage_cells", "Cells by state", labels=["family", "state"])
        quotas = GaugeMetricFamily("feedmill_quota_ok", "1 if the quota is met", labels=["family", "quota"])
        stale = GaugeMetricFamily("feedmill_coverage_stale", "1 if the ledger cannot be folded", labels=["family"])
        foreign = CounterMetricFamily("feedmill_foreign_ledger_records", "Passed over", labels=["family"])
        troubles = self._troubles()
        for report in self._reports():
            family = report["family"]
            stale.add_metric([family], float(family in troubles))
            foreign.add_metric([family], sum(each["records"] for each in report["foreign_records"]))
            entries.add_metric([family], report["entries"])
            for key, kind in _ROWS.items():
                rows.add_metric([family, kind], report[key])
            for reason, count in report["rejected_by_reason"].items():
                rejected.add_metric([family, reason], count)
            for state in ("total", "possible", "covered"):
                cells.add_metric([family, state], report[f"cells_{state}"])
            for quota in report["quotas"]:
                quotas.add_metric([family, quota["name"]], float(quota["ok"]))
        return entries, rows, rejected, cells, quotas, stale, foreign


def metrics_registry(
    reports: Callable[[], Iterable[Mapping[str, Any]]], troubles: Callable[[], Mapping[str, str]]
) -> CollectorRegistry:
    """Return a registry with only the coverage metrics; takes the arguments of `CoverageCollector`."""
    registry = CollectorRegistry()
    registry.register(CoverageCollector(reports, troubles))
    return registry
