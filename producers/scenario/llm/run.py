"""Run the language-model backend: plan the cells, ask for scenarios, and send every answered call to the topic.

A call's record, with its rows, verdicts and tokens, is acknowledged before the next answer is counted. A run that is
started again under its name resumes from these records; only calls that were in flight are asked again.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy.typing as npt

from broker.clients import Connection
from producers.scenario.llm import journal
from producers.scenario.llm.client import RetryPolicy
from producers.scenario.llm.faults import advice
from producers.scenario.llm.journal import PLAN, Entry, JournalFile, JournalWriter
from producers.scenario.llm.prompts import WRITING_ROLES, models
from producers.scenario.llm.scheduler import Scheduler
from producers.scenario.llm.state import RunState
from producers.seeds import check_seed
from schema.errors import ConfigError, ProducerError, UsageError
from schema.scenario import FAMILY
from schema.settings import Settings

Cell = Mapping[str, str]
# Called with the number of settled scenarios, and a note on calls and costs.
OnProgress = Callable[[int, str], None]

# Restricted, because the run's name is part of every id and a model must repeat the ids.
_RUN_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True, eq=False)
class LlmRun:
    """The parameters of a run.

    Attributes:
        count: scenarios to ask for; if `cells` are given, their number.
        seed: seed of the plan and value of the rows' `seed` column, 0 <= seed < 2^63; it does not affect the texts.
        run: the run's name in records, journal and ledger; if empty, it is made from the seed.
        cells: the cell of each scenario, {axis: bin}; planned if None.
        existing: rows that each cell already has, (128,), for the plan.

    Raises:
        UsageError: a value is out of range.
    """

    count: int = 0
    seed: int = 0
    run: str = ""
    cells: Sequence[Cell] | None = None
    existing: npt.NDArray[Any] | None = None

    def __post_init__(self) -> None:
        if self.cells is not None:
            object.__setattr__(self, "count", len(self.cells))
        if self.count < 0:
            raise UsageError(f"count is {self.count}: give 0 or more")
        check_seed(self.seed)
        if not self.run:
            object.__setattr__(self, "run", f"llm-{self.seed:x}")
        if not _RUN_NAME.fullmatch(self.run):
            raise UsageError(f"run is {self.run!r}: use up to 64 letters, digits, dots, - and _, as ids contain it")

    def plan(self) -> dict[str, Any]:
        """Return the run's plan in the form of the journal: count, seed, and the cell index of each scenario."""
        grid = [tuple(cell.values()) for cell in FAMILY.cells()]
        if self.cells is not None:
            indices = [grid.index(tuple(cell[axis] for axis in FAMILY.cell_axes)) for cell in self.cells]
        else:
            # Imported here because it loads compiled code, which a process that only describes a run does not need.
            from producers.scenario.planning import plan

            indices = plan(self.count, self.seed, self.existing).tolist()
        return {"count": self.count, "seed": self.seed, "given": self.cells is not None, "cells": indices}


@dataclass(frozen=True)
class LlmReport:
    """The totals of a run, including its earlier parts if it was resumed.

    Attributes:
        requested, accepted: numbers of scenarios.
        rejected: {reason: scenarios given up}; `open` is the number of all others.
        faults: {reason: answers refused for it}, also those of scenarios that were accepted later.
        advice: a line for each fault that the user can do something about.
        notes: a line for each response format that the endpoint refused.
        calls: answered writing calls; `calls_per_100` is their number per 100 accepted scenarios.
        calls_resumed: answered calls of all roles that were on the topic when this part began.
        calls_unanswered: calls given up after all tries; they are not in `calls` and not metered.
        asked_again: writing calls that asked again for a single scenario; `retries`: tries after the first one.
        unvalidated: accepted rows that should have a validation score but have none.
        models, roles: answered calls with their tokens and USD (None if unknown), by model and by role.
        stopped: an error line if the run ended early, else None.
    """

    run: str
    seed: int
    requested: int
    accepted: int
    rejected: dict[str, int]
    open: int
    calls: int
    calls_per_100: float | None
    calls_resumed: int
    calls_unanswered: int
    asked_again: int
    retries: int
    unvalidated: int
    tokens: int
    cost_usd: float | None
    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    roles: dict[str, dict[str, Any]] = field(default_factory=dict)
    stopped_by_budget: bool = False
    stopped: str | None = None
    elapsed_s: float = 0.0
    faults: dict[str, int] = field(default_factory=dict)
    advice: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return asdict(self)


def produce(
    connection: Connection,
    run: LlmRun,
    on_progress: OnProgress | None = None,
    *,
    policy: RetryPolicy | None = None,
    is_new: bool = False,
) -> LlmReport:
    """Ask for the run's scenarios and send them to `scenario.raw`; every call is acknowledged when this returns.

    The whole raw topic is searched for the run's journal, unless `is_new` is true.

    Raises:
        UsageError: a run of this name exists with other parameters.
        ConfigError: openai is not installed, or the settings contradict each other.
        ProducerError: the endpoint refuses, does not answer, or truncates prompts, or the first ten calls gave no
            acceptable scenario; the run can be resumed.
        BrokerError: the broker cannot be reached.
        DeliveryError: the broker did not accept a record.
    """
    _require_openai()
    with JournalWriter(connection, run.run) as writer:
        entries = [] if is_new else journal.read(connection, run.run)
        return _ask_all(connection.settings, run, writer, entries, on_progress, policy)


def produce_to_file(
    settings: Settings,
    run: LlmRun,
    path: Path,
    on_progress: OnProgress | None = None,
    *,
    policy: RetryPolicy | None = None,
) -> LlmReport:
    """Ask for the run's scenarios and write the accepted ones to `path` as JSON lines; needs no broker.

    The journal is in the file `path` + ".journal". Every answered call is in it before the next answer is counted, so
    a run with the same path and parameters resumes.

    Raises:
        UsageError: the journal is of a run with another name or other parameters, or a file cannot be written.
        ConfigError, ProducerError: as `produce`.
    """
    _require_openai()
    with JournalFile(path, run.run) as writer:
        return _ask_all(settings, run, writer, writer.entries, on_progress, policy)


def _ask_all(
    settings: Settings,
    run: LlmRun,
    writer: JournalWriter | JournalFile,
    entries: Sequence[Entry],
    on_progress: OnProgress | None,
    policy: RetryPolicy | None,
) -> LlmReport:
    started = time.monotonic()
    chosen = models(settings)
    plan = _plan(run, entries, writer)
    grid = list(FAMILY.cells())
    cells = {f"{run.run}-{number}": grid[index] for number, index in enumerate(plan["cells"])}
    state = RunState(cells, chosen, entries)
    resumed = state.meter.total.calls
    scheduler = Scheduler(settings, run.run, run.seed, state, writer, policy or RetryPolicy())
    stopped = asyncio.run(scheduler.ask_all(on_progress))
    report = _report(run, state, resumed, stopped, time.monotonic() - started)
    return replace(report, notes=scheduler.notes)


def batch_sender(connection: Connection, run: str, seed: int) -> Callable[[Sequence[Cell], int], None]:
    """Return a function that asks models for one scenario for each cell, for a producer that follows requests.

    Each batch is its own run, named after the number of its first row. The budgets apply to all batches together.

    Raises:
        ConfigError: openai is not installed.

    The returned function raises ProducerError if a budget is spent, and the errors of `produce`.
    """
    _require_openai()
    current = [connection]

    def send(cells: Sequence[Cell], first: int) -> None:
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


def _require_openai() -> None:
    """Raise ConfigError, naming the extra to install, if the openai package is missing."""
    if find_spec("openai") is None:
        raise ConfigError("--backend llm needs openai: install the extra with `pip install feedmill[llm]`")


def _plan(run: LlmRun, entries: Sequence[Entry], writer: JournalWriter | JournalFile) -> Mapping[str, Any]:
    """Return the plan that the journal begins with; a new journal gets one."""
    plans = [entry.plan for entry in entries if entry.role == PLAN and entry.plan is not None]
    if not plans:
        plan = run.plan()
        writer.send(Entry(call=0, role=PLAN, plan=plan), [])
        return plan
    plan = dict(plans[0])
    asked = {"count": run.count, "seed": run.seed, "given": run.cells is not None}
    if run.cells is not None:
        asked["cells"] = run.plan()["cells"]
    if any(plan[name] != value for name, value in asked.items()):
        raise UsageError(
            f"run {run.run} was started for {plan['count']:,} scenarios with seed {plan['seed']}: give these again "
            "to resume it, or give another --run"
        )
    return plan


def _report(run: LlmRun, state: RunState, resumed: int, stopped: str | None, elapsed_s: float) -> LlmReport:
    meter = state.meter
    calls, accepted = meter.calls(*WRITING_ROLES), len(state.accepted)
    reasons = sorted(state.rejected.values())
    return LlmReport(
        run=run.run,
        seed=run.seed,
        requested=len(state.cells),
        accepted=accepted,
        rejected={reason: reasons.count(reason) for reason in dict.fromkeys(reasons)},
        open=len(state.open),
        calls=calls,
        calls_per_100=round(100 * calls / accepted, 2) if accepted else None,
        calls_resumed=resumed,
        calls_unanswered=state.unanswered,
        asked_again=state.asked_again,
        retries=state.retries,
        unvalidated=state.unvalidated,
        tokens=meter.total.tokens,
        cost_usd=meter.total.cost_usd,
        models={model: totals.as_dict() for model, totals in sorted(meter.by_model.items())},
        roles={role: totals.as_dict() for role, totals in sorted(meter.by_role.items())},
        stopped_by_budget=stopped is not None,
        stopped=stopped,
        elapsed_s=elapsed_s,
        faults=dict(sorted(state.refusals.items())),
        advice=advice(sorted(state.refusals)),
    )
