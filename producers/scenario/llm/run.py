"""A run of the language-model backend: plans its cells, asks for them, puts every call on the topic as it is answered.

A call's record, with its rows, verdicts and tokens, is acknowledged before the next answer is counted. A run started
again under its name goes on from what stands there; only calls that were in flight when it ended are asked again.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy.typing as npt

from broker.clients import Connection
from producers.scenario.llm import journal
from producers.scenario.llm.client import RetryPolicy
from producers.scenario.llm.conversation import Conversation
from producers.scenario.llm.journal import PLAN, Entry, Standing
from producers.scenario.llm.routing import WRITING_ROLES, models
from producers.scenario.llm.sending import CallSender
from producers.seeds import check_seed
from schema.errors import UsageError
from schema.scenario import FAMILY

Cell = Mapping[str, str]
# Called with the scenarios that are settled so far, and a note on what they took.
OnProgress = Callable[[int, str], None]

# It stands in every id, which a model must repeat.
_RUN_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True, eq=False)
class LlmRun:
    """The parameters of a run.

    Attributes:
        count: scenarios to ask for; the number of `cells` where these are given.
        seed: of the plan and of the rows' `seed` column, 0 <= seed < 2^63; texts are the models' own.
        run: the name under which records, journal and ledger count this run; made from the seed where empty.
        cells: the cell of each scenario, {axis: bin}; planned where None.
        existing: rows that each cell has already, (128,), for the plan.

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
            raise UsageError(f"run {self.run!r} cannot be part of an id: use up to 64 letters, digits, dots, - and _")

    def plan(self) -> dict[str, Any]:
        """Return the run's plan as it stands in the journal: count, seed, and the cell index of each scenario."""
        grid = [tuple(cell.values()) for cell in FAMILY.cells()]
        if self.cells is not None:
            indices = [grid.index(tuple(cell[axis] for axis in FAMILY.cell_axes)) for cell in self.cells]
        else:
            # Compiled code is loaded where it is used, not where a run is only described.
            from producers.scenario.planning import plan

            indices = plan(self.count, self.seed, self.existing).tolist()
        return {"count": self.count, "seed": self.seed, "given": self.cells is not None, "cells": indices}


@dataclass(frozen=True)
class LlmReport:
    """What a run came to, all its parts together where it was resumed.

    Attributes:
        requested, accepted: scenarios; `rejected` has those given up, by reason, `open` counts the others.
        calls: writing calls that were answered; `calls_per_100` is how many of them 100 accepted scenarios took.
        calls_resumed: calls of all roles that stood on the topic when this run began.
        calls_unanswered: calls given up after all their tries; not among `calls`, and nothing of them is metered.
        asked_again: writing calls that asked for a single scenario once more; `retries`: questions sent once more.
        unvalidated: accepted rows without the validation score that they should have.
        models, roles: answered calls with their tokens and USD (None where unknown), by model and by role.
        stopped: why the run ended early, in a line; None where it did not.
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

    All of the raw topic is searched for the run's journal, unless the caller knows that the run `is_new`.

    Raises:
        UsageError: the run's name stands for one with other parameters.
        ConfigError: the settings contradict each other.
        ProducerError: the endpoint refuses, gives no answer, or cuts off what it is asked; the run may be resumed.
        BrokerError: the broker cannot be reached; DeliveryError: it did not take a record.
    """
    started = time.monotonic()
    chosen = models(connection.settings)
    with CallSender(connection, run.run) as sender:
        entries = [] if is_new else journal.read(connection, run.run)
        standing = _standing(run, entries, sender)
        resumed = standing.meter.total.calls
        conversation = Conversation(
            connection.settings, chosen, run.run, run.seed, standing, sender, policy or RetryPolicy()
        )
        stopped = asyncio.run(conversation.hold(on_progress))
    return _report(run, standing, resumed, stopped, time.monotonic() - started)


def _standing(run: LlmRun, entries: Sequence[Entry], sender: CallSender) -> Standing:
    """Return where the run stands by its journal, which is begun with the plan where there is none."""
    plans = [entry.plan for entry in entries if entry.role == PLAN and entry.plan is not None]
    if plans:
        plan = dict(plans[0])
        asked = {"count": run.count, "seed": run.seed, "given": run.cells is not None}
        if run.cells is not None:
            asked["cells"] = run.plan()["cells"]
        if any(plan[name] != value for name, value in asked.items()):
            raise UsageError(
                f"run {run.run} was begun for {plan['count']:,} scenarios with seed {plan['seed']}: give those again "
                "to go on with it, or name another --run"
            )
    else:
        plan = run.plan()
        sender.send(Entry(call=0, role=PLAN, plan=plan), [])
    grid = list(FAMILY.cells())
    standing = Standing({f"{run.run}-{number}": grid[index] for number, index in enumerate(plan["cells"])})
    for entry in entries:
        standing.apply(entry)
    return standing


def _report(run: LlmRun, standing: Standing, resumed: int, stopped: str | None, elapsed_s: float) -> LlmReport:
    meter = standing.meter
    calls, accepted = meter.calls(*WRITING_ROLES), len(standing.accepted)
    reasons = sorted(standing.rejected.values())
    return LlmReport(
        run=run.run,
        seed=run.seed,
        requested=len(standing.cells),
        accepted=accepted,
        rejected={reason: reasons.count(reason) for reason in dict.fromkeys(reasons)},
        open=len(standing.open),
        calls=calls,
        calls_per_100=round(100 * calls / accepted, 2) if accepted else None,
        calls_resumed=resumed,
        calls_unanswered=standing.unanswered,
        asked_again=standing.asked_again,
        retries=standing.retries,
        unvalidated=standing.unvalidated,
        tokens=meter.total.tokens,
        cost_usd=meter.total.cost_usd,
        models={model: totals.as_dict() for model, totals in sorted(meter.by_model.items())},
        roles={role: totals.as_dict() for role, totals in sorted(meter.by_role.items())},
        stopped_by_budget=stopped is not None,
        stopped=stopped,
        elapsed_s=elapsed_s,
    )
