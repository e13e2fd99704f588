"""The command `feedmill produce scenario`: runs one of the backends and prints the totals of the run."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from feedmill.following import check_follow_options
from feedmill.produce_runs import (
    Count,
    Follow,
    Out,
    RunName,
    Seed,
    Workers,
    chosen_workers,
    connected,
    fill_requests,
    print_totals,
    produce_rows,
)
from schema.errors import UsageError
from schema.scenario import FAMILY

if TYPE_CHECKING:
    from broker.clients import Connection
    from producers.follow import Make
    from producers.scenario.run import ScenarioRun


class Backend(StrEnum):
    """The generator of the texts."""

    composer = "composer"
    narrow = "narrow"
    llm = "llm"


def produce_scenario_command(
    count: Count = None,
    seed: Seed = None,
    backend: Annotated[
        Backend, typer.Option(help="A grammar, a poor baseline to compare with, or a language model.")
    ] = Backend.composer,
    workers: Workers = None,
    run: RunName = "",
    out: Out = None,
    gaps_first: Annotated[
        bool, typer.Option("--gaps-first", help="Count the rows in coverage, too, so that gaps are filled first.")
    ] = False,
    follow: Follow = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Generate scenarios: moments that demand something of a character, who can or cannot give it."""
    from producers.scenario.run import ScenarioRun
    from producers.seeds import fresh_seed

    check_follow_options(count, out, follow)
    _check_backend(backend, out, follow=follow, gaps_first=gaps_first)
    seed = fresh_seed() if seed is None else seed
    print(f"seed {seed}", file=sys.stderr, flush=True)
    if follow or count is None:
        _follow_scenarios(backend, seed, run, as_json=as_json)
        return
    target = connected(FAMILY) if out is None else out
    existing = None if isinstance(target, Path) or not gaps_first else _existing(target)
    if backend is Backend.llm:
        from feedmill.llm_runs import produce_llm
        from producers.scenario.llm.run import LlmRun

        produce_llm(target, LlmRun(count, seed, run, existing=existing), as_json=as_json, quiet=as_json)
        return
    parameters = ScenarioRun(count, seed, backend.value, workers=chosen_workers(workers), run=run, existing=existing)
    _produce(parameters, target, as_json=as_json)


def _check_backend(backend: Backend, out: Path | None, *, follow: bool, gaps_first: bool) -> None:
    """Raise UsageError for options that contradict each other."""
    if gaps_first and (follow or out is not None or backend is Backend.narrow):
        raise UsageError("--gaps-first plans a run into the topic: leave out --follow, --out and --backend narrow")
    if follow and backend is Backend.narrow:
        raise UsageError("--backend narrow makes one kind of row and cannot fill requests: leave out --backend narrow")


def _existing(connection: Connection) -> Any:
    """Return the rows of each cell in the coverage report, (128,)."""
    from producers.scenario.planning import counts_by_cell
    from streams.coverage.client import open_coverage

    with open_coverage(connection) as coverage:
        return counts_by_cell(coverage.report(FAMILY.name)["cells"])


def _produce(run: ScenarioRun, target: Connection | Path, *, as_json: bool) -> None:
    where, report = produce_rows(run, target, quiet=as_json)
    from feedmill.scenario_tables import summary_table
    from producers.scenario.summary import summary

    figures = {**summary(run), "to": where, "elapsed_s": round(report.elapsed_s, 3)}
    if as_json:
        print(json.dumps(figures))
        return
    print_totals("scenarios", where, report)
    from rich.console import Console

    Console().print(summary_table(figures))


def _follow_scenarios(backend: Backend, seed: int, run: str, *, as_json: bool) -> None:
    if backend is not Backend.llm:
        fill_requests(FAMILY, seed, run, as_json=as_json)
        return
    from feedmill.following import Following, follow_requests
    from producers.scenario.llm.pace import SCENARIOS_PER_CALL, calls_at_once
    from producers.scenario.llm.run import batch_sender

    connection = connected(FAMILY)
    # Only as many rows as are written at a time, because surplus rows cost money.
    plan = Following(run or f"llm-fill-{seed:x}", seed, SCENARIOS_PER_CALL * calls_at_once(connection.settings))
    write = batch_sender(connection, plan.run, seed)
    # The models are asked, and paid, only when the rows are to be sent.
    make: Make = lambda cells, first: nullcontext(partial(write, cells, first))  # noqa: E731 - the type is the point
    follow_requests(connection, FAMILY, make, plan, as_json=as_json)
