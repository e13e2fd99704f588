"""What `feedmill produce scenario --backend llm` does: a run with its progress, and what it came to."""

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
    """Raise ConfigError, naming the extra to install, where the client is missing."""
    if find_spec("openai") is None:
        raise ConfigError("--backend llm needs openai: install the extra with `pip install feedmill[llm]`")


def produce_llm(connection: Connection, run: LlmRun, *, as_json: bool = False, quiet: bool = False) -> LlmReport:
    """Ask models for the run's scenarios, with progress on stderr; print and return what it came to.

    Printed is a table, or with `as_json` one JSON object, nothing if `quiet`; a run that its budget ended early says so
    in a line on stderr.

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
        line = f"stopped: {report.stopped}, then run again with {again} for the {report.open:,} that are open"
        print(line, file=sys.stderr, flush=True)
    if as_json:
        print(json.dumps(report.as_dict()))
    elif not quiet:
        Console().print(report_tables(report))
    return report


def llm_sender(connection: Connection, run: str, seed: int) -> Callable[[Sequence[Mapping[str, str]], int], None]:
    """Return what asks models for one scenario for each cell, for a producer that follows requests.

    Each batch is a run of its own, named after its first number; the budgets are those of all batches together.

    The function returned raises ProducerError once a budget is spent, and what `producers.scenario.llm.run.produce`
    raises.
    """
    require_openai()
    from producers.scenario.llm.run import LlmRun, produce

    left = [connection]

    def send(cells: Sequence[Mapping[str, str]], first: int) -> None:
        batch = LlmRun(cells=cells, seed=seed, run=f"{run}-{first}")
        report = produce(left[0], batch, is_new=True)
        if report.stopped is not None and any(totals["calls_without_usage"] for totals in report.models.values()):
            raise ProducerError(report.stopped)
        if report.stopped is not None:
            raise ProducerError(
                f"the budget of run {run} is spent: raise FEEDMILL_LLM_BUDGET_TOKENS or FEEDMILL_LLM_BUDGET_USD, then "
                "follow again"
            )
        left[0] = replace(left[0], settings=_less(left[0].settings, report))

    return send


def _less(settings: Settings, report: LlmReport) -> Settings:
    """Return `settings` with the budgets that `report` leaves."""
    # What is spent, and more, leaves a budget of 0 or less, under which no call starts.
    left: dict[str, Any] = {}
    if settings.llm_budget_tokens is not None:
        left["llm_budget_tokens"] = settings.llm_budget_tokens - report.tokens
    if settings.llm_budget_usd is not None and report.cost_usd is not None:
        left["llm_budget_usd"] = settings.llm_budget_usd - report.cost_usd
    return settings.model_copy(update=left)


def report_tables(report: LlmReport) -> RenderableType:
    """Return what a run came to: its scenarios, and its calls by model and by role; in 80 columns."""
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
    for name, found in totals.items():
        missing = found["calls_without_usage"]
        usd = UNKNOWN if found["cost_usd"] is None else f"{found['cost_usd']:.6f}"
        mark = f" (+{missing} {UNKNOWN})" if missing else ""
        tokens = f"{found['prompt_tokens']:,}{mark}", f"{found['completion_tokens']:,}{mark}"
        table.add_row(Text(name), f"{found['calls']:,}", *tokens, usd)
    return table
