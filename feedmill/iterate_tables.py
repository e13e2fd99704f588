"""The table of `feedmill iterate`: a row for each round, and for its control."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table


def prompts_line(chosen: Mapping[str, Any]) -> str:
    """Return a line on the chosen prompts."""
    found, judged = chosen["found"], chosen["judged"]
    return (
        f"prompts: {chosen['training']:,} for training (of {found['training']:,} functions, {judged['training']:,} "
        f"compiled), {chosen['held_out']:,} held out (of {found['held_out']:,}, {judged['held_out']:,} compiled; "
        f"{chosen['overlapping']:,} left out, because they share 13 words with a training row)"
    )


def rounds_table(results: Mapping[str, Any]) -> Table:
    """Return the table of all rounds so far, at most 80 characters wide.

    `compiles` is the share of held-out prompts, with its 95% interval in percent. The three columns after it are
    averages over what compiles. `written` has the share of an expert's completions that compile.
    """
    table = Table(
        *("round", "compiles (95%)", "warn", "idiom", "doc", "written", "kept", "new", "loss"),
        box=None,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for column in table.columns:
        column.no_wrap = True
    for column in table.columns[1:]:
        column.justify = "right"
    control = {row["round"]: row for row in results["control"]}
    for row in results["rounds"]:
        table.add_row(*_cells(str(row["round"]), row))
        if row["round"] in control:
            table.add_row(*_cells("control", control[row["round"]]))
    return table


def _cells(name: str, row: Mapping[str, Any]) -> list[str]:
    low, high = (100 * bound for bound in row["compile_rate_interval"] or (0.0, 0.0))
    written = row.get("written")
    return [
        name,
        f"{row['compile_rate'] or 0.0:.1%} ({low:.1f}-{high:.1f})",
        _shown(row["avg_warnings"], 1),
        *(_shown(row[key], 2) for key in ("avg_idiomatic_score", "doc_comment_rate")),
        "" if written is None else f"{written['samples']:,}, {written['compile_rate']:.0%}",
        *(f"{row[key]:,}" if key in row else "" for key in ("kept", "new_on_clean")),
        f"{row['first_loss']:.2f}-{row['last_loss']:.2f}" if "first_loss" in row else "",
    ]


def _shown(value: float | None, places: int) -> str:
    return "-" if value is None else f"{value:.{places}f}"
