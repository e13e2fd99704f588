"""Makes the tables of `feedmill eval rust` and `feedmill eval python`: figures with their targets, and counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table

_SHARES = ("compile_rate", "doc_comment_rate", "pass_rate")
_COUNTS = {
    "filter_reasons": "filtered because",
    "errors_by_code": "compile error",
    "warnings_by_lint": "warning",
    "test_failures": "tests did not pass because",
    "bad_lines": "line that is no sample",
}
_SHOWN = 12


def code_evaluation_tables(report: Mapping[str, Any]) -> RenderableType:
    """Return all tables of a report, one below the other."""
    counts = [_counts(title, report[key]) for key, title in _COUNTS.items() if report.get(key)]
    return Group(_figures(report), *(item for table in counts for item in ("", table)))


def _figures(report: Mapping[str, Any]) -> Table:
    table = Table("figure", "value", "target", "", box=None, pad_edge=False)
    table.columns[1].justify = "right"
    for name in ("evaluated_samples", "filtered_samples"):
        table.add_row(name, f"{report[name]:,}")
    warnings = next(name for name in report["targets"] if name.endswith("_warnings"))
    for name in ("compile_rate", warnings, "avg_idiomatic_score", "doc_comment_rate", "pass_rate"):
        if name == "pass_rate" and not report["tested_samples"]:
            continue
        target = report["targets"].get(name)
        met = "" if target is None or target["met"] is None else "[green]met[/]" if target["met"] else "[red]missed[/]"
        table.add_row(name, _value(name, report), "" if target is None else _target(name, target["target"]), met)
    table.add_row("samples a minute", f"{report['samples_per_minute'] or 0:,.0f}")
    table.add_row("sandbox", report["sandbox"])
    return table


def _target(name: str, target: str) -> str:
    comparison, bound = target.split()
    return f"{comparison} {float(bound):.0%}" if name in _SHARES else target


def _value(name: str, report: Mapping[str, Any]) -> str:
    value = report[name]
    if value is None:
        return "-"
    shown = f"{value:.1%}" if name in _SHARES else f"{value:.2f}"
    if name == "compile_rate":
        low, high = report["compile_rate_interval"]
        shown += f" ({low:.1%}-{high:.1%})"
    return shown


def _counts(title: str, counts: Mapping[str, int]) -> Table:
    table = Table(title, "number", box=None, pad_edge=False)
    table.columns[1].justify = "right"
    for name, number in sorted(counts.items(), key=lambda item: -item[1])[:_SHOWN]:
        table.add_row(name, f"{number:,}")
    if len(counts) > _SHOWN:
        table.add_row(f"{len(counts) - _SHOWN:,} others", "")
    return table
