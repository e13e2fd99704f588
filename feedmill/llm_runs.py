"""Runs `feedmill produce scenario --backend llm`: shows the progress, and prints the totals of the run."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from feedmill.progress import progress
from schema.errors import ConfigError, ProducerError

if TYPE_CHECKING:
    from broker.clients import Connection
    from producers.scenario.llm.run import LlmReport, LlmRun
    from schema.settings import Settings

UNKNOWN = "unknown"


def require_openai() -> None:
    """Raise ConfigError, naming the extra to install, if the openai package is missing."""
    if find_spec("openai") is None:
        raise ConfigError("--backend llm needs openai: install the extra with `pip install feedmill[llm]`")


def produce_llm(connection: Connection, run: LlmRun, *, as_json: bool = False, quiet: bool = False) -> LlmReport:
    """Ask models for the run's scenarios, with progress on stderr; print and return the report.

    The report is printed as tables, or with `as_json` as one JSON object; `quiet` leaves out progress and tables. If
    the budget ended the run early, a line on stderr says how to continue it.

    Raises:
        ConfigError: openai is not installed, or the settings contradict each other.
        UsageError, ProducerError, BrokerError: as `producers.scenario.llm.run.produce`.
    """
    require_openai()
    from producers.scenario.llm.run import produce

    with progress("asking", run.count, quiet=quiet) as advance:
        report = produce(connection, run, advance)
    if report.stopped is not None:
        again = f"--run {report.run} --seed {report.seed} --count {report.requested}"
        line = f"stopped: {report.stopped}, then run again with {again} to make the {report.open:,} open ones"
        print(line, file=sys.stderr, flush=True)
    if as_json:
        print(json.dumps(report.as_dict()))
    elif not quiet:
        Console().print(report_tables(report))
    return report


def llm_sender(connection: Connection, run: str, seed: int) -> Callable[[Sequence[Mapping[str, str]], int], None]:
    """Return a function that asks models for one scenario for each cell, for a producer that follows requests.

    Each batch is its own run, named after the number of its first row. The budgets apply to all batches together.

    The returned function raises ProducerError if a budget is spent, and the errors of
    `producers.scenario.llm.run.produce`.
    """
    require_openai()
    from producers.scenario.llm.run import LlmRun, produce

    current = [connection]

    def send(cells: Sequence[Mapping[str, str]], first: int) -> None:
        batch = LlmRun(cells=cells, seed=seed, run=f"{run}-{first}")
        report = produce(current[0], batch, is_new=True)
        if report.stopped is not None and any(totals["calls_without_usage"] for totals in report.models.values()):
            raise ProducerError(report.stopped)
        if report.stopped is not None:
            raise ProducerError(
                f"the budget of run {run} is spent: raise FEEDMILL_LLM_BUDGET_TOKENS or FEEDMILL_LLM_BUDGET_USD, then "
                "follow again"
            )
        current[0] = replace(current[0], settings=_less(current[0].settings, report))

    return send


def _less(settings: Settings, report: LlmReport) -> Settings:
    """Return `settings` with the budgets that are left after `report`."""
    # An overspent budget becomes negative; no call starts under a budget of 0 or less.
    budgets: dict[str, Any] = {}
    if settings.llm_budget_tokens is not None:
        budgets["llm_budget_tokens"] = settings.llm_budget_tokens - report.tokens
    if settings.llm_budget_usd is not None and report.cost_usd is not None:
        budgets["llm_budget_usd"] = settings.llm_budget_usd - report.cost_usd
    return settings.model_copy(update=budgets)


def report_tables(report: LlmReport) -> RenderableType:
    """Return the totals of a run: its scenarios, and its calls by model and by role; in 80 columns."""
    rejected = ", ".join(f"{rows:,} {reason}" for reason, rows in report.rejected.items()) or "none"
    per_100 = "-" if report.calls_per_100 is None else f"{report.calls_per_100:g}"
    lines = [
        f"{report.accepted:,} of {report.requested:,} scenarios accepted, {report.open:,} open; rejected: {rejected}",
        f"{report.calls:,} writing calls, {per_100} per 100 accepted; {report.asked_again:,} asked for one again, "
        f"{report.retries:,} questions sent again, {report.calls_unanswered:,} calls without an answer",
    ]
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
