"""Runs `feedmill produce scenario --backend llm`: shows the progress, and prints the totals of the run."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from feedmill.progress import progress
from schema.settings import load_settings

if TYPE_CHECKING:
    from broker.clients import Connection
    from producers.scenario.llm.run import LlmReport, LlmRun

UNKNOWN = "unknown"


def produce_llm(target: Connection | Path, run: LlmRun, *, as_json: bool = False, quiet: bool = False) -> LlmReport:
    """Send the run's scenarios to the topic of a connection, or write them to a file with its journal beside it.

    Progress is on stderr. The report is returned, and printed as tables or, with `as_json`, as one JSON object; `quiet`
    leaves out progress and tables. Lines on stderr say how to continue a run that its budget ended, what the endpoint
    refused, and what to do about faulty answers.

    Raises:
        FeedmillError: as `producers.scenario.llm.run.produce`.
    """
    from producers.scenario.llm.run import produce, produce_to_file

    with progress("asking", run.count, quiet=quiet) as advance:
        if isinstance(target, Path):
            report = produce_to_file(load_settings(), run, target, advance)
        else:
            report = produce(target, run, advance)
    if report.stopped is not None:
        again = f"--run {report.run} --seed {report.seed} --count {report.requested}"
        line = f"stopped: {report.stopped}, then run again with {again} to make the {report.open:,} open ones"
        print(line, file=sys.stderr, flush=True)
    for line in [*report.notes, *report.advice]:
        print(line, file=sys.stderr, flush=True)
    if as_json:
        print(json.dumps(report.as_dict()))
    elif not quiet:
        Console().print(report_tables(report))
    return report


def report_tables(report: LlmReport) -> RenderableType:
    """Return the totals of a run: its scenarios, and its calls by model and by role; in 80 columns."""
    rejected = ", ".join(f"{rows:,} {reason}" for reason, rows in report.rejected.items()) or "none"
    per_100 = "-" if report.calls_per_100 is None else f"{report.calls_per_100:g}"
    lines = [
        f"{report.accepted:,} of {report.requested:,} scenarios accepted, {report.open:,} open; rejected: {rejected}",
        f"{report.calls:,} writing calls, {per_100} per 100 accepted; {report.asked_again:,} asked for one again, "
        f"{report.retries:,} questions sent again, {report.calls_unanswered:,} calls without an answer",
    ]
    if report.faults:
        faults = ", ".join(f"{answers:,} {reason}" for reason, answers in report.faults.items())
        lines.append(f"answers refused: {faults}")
    if report.unvalidated:
        lines.append(f"{report.unvalidated:,} accepted without a validation score")
    return Group(Text("\n".join(lines)), _totals("model", report.models), _totals("role", report.roles))


def _totals(kind: str, totals: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table(kind, box=None, pad_edge=False)
    for title in ("calls", "prompt tokens", "completion tokens", "USD"):
        table.add_column(title, justify="right")
    for name, usage in totals.items():
        missing = usage["calls_without_usage"]
        usd = UNKNOWN if usage["cost_usd"] is None else f"{usage['cost_usd']:.6f}"
        mark = f" (+{missing} {UNKNOWN})" if missing else ""
        tokens = f"{usage['prompt_tokens']:,}{mark}", f"{usage['completion_tokens']:,}{mark}"
        table.add_row(Text(name), f"{usage['calls']:,}", *tokens, usd)
    return table
