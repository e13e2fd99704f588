"""Makes tables for the terminal from the JSON figures of a storm (pure)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text


def storm_tables(figures: Mapping[str, Any]) -> Group:
    """Return the faults with their recovery times, the rows sent, unexpected ends, and the verdict."""
    faults = Table("fault", title="Faults, and seconds until all work moved again", title_justify="left", box=None)
    for name in ("times", "median", "max"):
        faults.add_column(name, justify="right")
    for kind, times in figures["faults"].items():
        seconds = figures["recovery"].get(kind, {})
        measured = (f"{seconds[key]:.1f}" if key in seconds else "-" for key in ("median_s", "max_s"))
        faults.add_row(kind, str(times), *measured)
    poison = sum(figures["poison"].values())
    lines = [
        Text(
            f"{figures['rows']:,} rows in {figures['records']:,} raw records; {poison:,} poison records of "
            f"{len(figures['poison'])} kinds; drained in {figures['drain_s']:.0f} s"
        )
    ]
    lines += [Text(f"ended by itself: {process}, {times} times") for process, times in figures["ends"].items()]
    lines += [Text(f"did not recover: {kind}", style="bold red") for kind in figures["unrecovered"]]
    verdict = Text("the audit is exact", style="bold green") if figures["ok"] else Text(why(figures), style="bold red")
    return Group(faults, *lines, verdict)


def why(figures: Mapping[str, Any]) -> str:
    """Return one line that says why the service did not survive a storm."""
    fault, coverage = figures["audit"]["first_fault"], figures["audit"]["coverage"]
    if figures["drain_error"]:
        return str(figures["drain_error"])
    if fault:
        offset = "" if fault["offset"] is None else f" offset {fault['offset']}"
        return f"the audit found a fault: {fault['topic']}/{fault['partition']}{offset}: {fault['what']}"
    if not coverage["compared"]:
        return str(coverage["note"])
    return f"{figures['audit']['waiting']} raw records were not refined"
