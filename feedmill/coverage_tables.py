"""Makes tables for the terminal from the JSON form of a coverage report (pure)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from feedmill.heatmap import heatmap
from schema.family import Family
from streams.coverage.report import ledger_lines

_BAR_WIDTH = 30
_GAPS_SHOWN = 10


def report_tables(family: Family, report: Mapping[str, Any]) -> Group:
    """Return the whole report: accounts, bars by axis, heatmap, reasons, quotas, gaps; in 80 columns."""
    parts: list[RenderableType] = [accounting_line(report), coverage_line(report)]
    parts += [Text(line, style="bold red") for line in ledger_lines(report)]
    parts += [marginal_bars(axis, bins) for axis, bins in report["axes"].items()]
    parts += [heatmap(family, report["cells"]), reasons_table(report), quotas_table(report), gaps_table(family, report)]
    return Group(*(item for part in parts for item in (part, "")))


def accounting_line(report: Mapping[str, Any]) -> Text:
    """Return `family: rows in = clean + rejected + rerouted`, with `≠` if the sums differ."""
    line = Text(f"{report['family']}: {report['rows_in']:,} rows in ")
    line.append("= " if report["balanced"] else "≠ ", style="bold green" if report["balanced"] else "bold red")
    line.append(
        f"{report['rows_clean']:,} clean + {report['rows_rejected']:,} rejected + {report['rows_rerouted']:,} rerouted"
    )
    if report["rows_lost"]:
        line.append(f" + {report['rows_lost']:,} lost to retention", style="bold red")
    if report["rows_retracted"]:
        line.append(f"; {report['rows_retracted']:,} clean rows are retracted and not counted below")
    return line


def coverage_line(report: Mapping[str, Any]) -> Text:
    """Return a line with the numbers of covered cells, rows per cell and gaps."""
    return Text(
        f"{report['cells_covered']:,} of {report['cells_possible']:,} possible cells covered "
        f"(full cross product {report['cells_total']:,}), {report['avg_per_cell']:,.1f} rows per cell, "
        f"{len(report['gaps_to_fill']):,} gaps"
    )


def marginal_bars(axis: str, bins: Mapping[str, int]) -> Table:
    """Return the counts of one axis as bars; the largest count has the longest bar."""
    total, most = sum(bins.values()), max(bins.values(), default=0)
    table = Table(title=axis, title_justify="left", box=None, show_header=False, pad_edge=False)
    table.add_column(justify="right", no_wrap=True, min_width=12)
    table.add_column(justify="right", no_wrap=True, min_width=11)
    table.add_column(justify="right", no_wrap=True, min_width=6)
    table.add_column(no_wrap=True)
    for name, rows in bins.items():
        share = f"{rows / total:.1%}" if total else "-"
        bar = "█" * round(_BAR_WIDTH * rows / most) if most else ""
        table.add_row(Text(name), f"{rows:,}", share, Text(bar or ("▏" if rows else ""), style="blue"))
    return table


def reasons_table(report: Mapping[str, Any]) -> RenderableType:
    """Return the rejected rows by reason."""
    if not report["rejected_by_reason"]:
        return Text("Rejected, by reason: none")
    table = Table("reason", title="Rejected, by reason", title_justify="left", box=None, pad_edge=False, min_width=24)
    table.add_column("rows", justify="right")
    for reason, rows in report["rejected_by_reason"].items():
        table.add_row(Text(reason), f"{rows:,}")
    return table


def quotas_table(report: Mapping[str, Any]) -> RenderableType:
    """Return each quota with its target, its actual value, and whether it is met."""
    table = Table("quota", "kind", title="Quotas", title_justify="left", box=None, pad_edge=False)
    table.add_column("target", justify="right")
    table.add_column("actual", justify="right")
    table.add_column("")
    for quota in report["quotas"]:
        verdict = Text("met", style="green") if quota["ok"] else Text("NOT MET", style="bold red")
        table.add_row(quota["name"], quota["kind"], f"{quota['target']:g}", f"{quota['actual']:.4g}", verdict)
    return table


def gaps_table(family: Family, report: Mapping[str, Any]) -> RenderableType:
    """Return the largest gaps of a report."""
    return gap_lines(family, report["gaps_to_fill"], _GAPS_SHOWN)


def gap_lines(family: Family, gaps: Sequence[Mapping[str, Any]], shown: int | None = None) -> RenderableType:
    """Return the gaps as a table, largest first: the first `shown`, or all."""
    if not gaps:
        return Text("Gaps to fill: none", style="green")
    table = Table("cell or bin", title="Gaps to fill", title_justify="left", box=None, pad_edge=False)
    table.add_column("rows", justify="right")
    table.add_column("missing", justify="right")
    for gap in gaps[:shown]:
        where = ", ".join(f"{axis} {name}" for axis, name in gap.items() if axis not in ("count", "deficit"))
        table.add_row(Text(where), f"{gap['count']:,}", f"{gap['deficit']:,}")
    if shown is not None and len(gaps) > shown:
        table.add_row(Text(f"and {len(gaps) - shown:,} more: feedmill coverage gaps {family.name}", style="dim"))
    return table
