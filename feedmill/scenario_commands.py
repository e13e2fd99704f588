"""The command `feedmill produce scenario`: runs one of the backends and prints the totals of the run."""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import nullcontext
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from feedmill.following import check_follow_options
from feedmill.progress import progress
from schema.errors import UsageError
from schema.registry import family_named
from schema.settings import load_settings

if TYPE_CHECKING:
    from broker.clients import Connection
    from producers.follow import Make
    from producers.scenario.run import ScenarioRun

FAMILY = "scenario"


class Backend(StrEnum):
    """The generator of the texts."""

    composer = "composer"
    narrow = "narrow"
    llm = "llm"


def produce_scenario_command(
    count: Annotated[int | None, typer.Option(min=1, help="Exact number of examples to generate.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, max=2**63 - 1, help="Random and printed if not given.")] = None,
    backend: Annotated[
        Backend, typer.Option(help="A grammar, a poor baseline to compare with, or a language model.")
    ] = Backend.composer,
    workers: Annotated[int | None, typer.Option(min=1, max=256, help="Processes; one per core if not given.")] = None,
    run: Annotated[str, typer.Option(help="Name of this run in the ledger; made from the seed if not given.")] = "",
    out: Annotated[Path | None, typer.Option(help="Write this JSONL file instead of a topic.")] = None,
    gaps_first: Annotated[
        bool, typer.Option("--gaps-first", help="Count the rows in coverage, too, so that gaps are filled first.")
    ] = False,
    follow: Annotated[bool, typer.Option("--follow", help="Fill the gaps that coverage requests, then end.")] = False,
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
    connection = None if out is not None else _connected()
    existing = _existing(connection) if gaps_first and connection is not None else None
    if backend is Backend.llm:
        if connection is not None:
            from feedmill.llm_runs import produce_llm
            from producers.scenario.llm.run import LlmRun

            produce_llm(connection, LlmRun(count, seed, run, existing=existing), as_json=as_json, quiet=as_json)
        return
    parameters = ScenarioRun(count, seed, backend.value, workers or os.cpu_count() or 1, run, existing)
    _produce(parameters, connection, out, as_json=as_json)


def _check_backend(backend: Backend, out: Path | None, *, follow: bool, gaps_first: bool) -> None:
    """Raise UsageError for options that contradict each other."""
    if gaps_first and (follow or out is not None or backend is Backend.narrow):
        raise UsageError("--gaps-first plans a run into the topic: leave out --follow, --out and --backend narrow")
    if follow and backend is Backend.narrow:
        raise UsageError("--backend narrow makes one kind of row and cannot fill requests: leave out --backend narrow")
    if out is not None and backend is Backend.llm:
        raise UsageError("--backend llm writes to the topic, so that no paid answer is lost: leave out --out")


def _connected() -> Connection:
    from broker.clients import connect
    from broker.topics import ensure_topics

    connection = connect(load_settings())
    ensure_topics(connection, [FAMILY])
    return connection


def _existing(connection: Connection) -> Any:
    """Return the rows of each cell in the coverage report, (128,)."""
    from producers.scenario.planning import counts_by_cell
    from streams.coverage.client import open_coverage

    with open_coverage(connection) as coverage:
        return counts_by_cell(coverage.report(FAMILY)["cells"])


def _produce(run: ScenarioRun, connection: Connection | None, out: Path | None, *, as_json: bool) -> None:
    from producers.scenario import run as producing

    began = time.monotonic()
    with progress("generating", run.count, quiet=as_json) as advance:
        if connection is None:
            where = str(out)
            producing.write_jsonl(run, Path(where), advance)
        else:
            where = f"{connection.settings.namespace}.{FAMILY}.raw"
            producing.produce(connection, run, advance)
    elapsed_s = time.monotonic() - began
    from feedmill.scenario_tables import summary, summary_table

    figures = {**summary(run), "to": where, "elapsed_s": round(elapsed_s, 3)}
    if as_json:
        print(json.dumps(figures))
        return
    print(f"{run.count:,} scenarios of run {run.run} -> {where} in {elapsed_s:.1f} s", file=sys.stderr)
    from rich.console import Console

    Console().print(summary_table(figures))


def _follow_scenarios(backend: Backend, seed: int, run: str, *, as_json: bool) -> None:
    from feedmill.following import Following, follow_requests, maker

    connection, family = _connected(), family_named(FAMILY)
    if backend is Backend.llm:
        from feedmill.llm_runs import llm_sender
        from producers.scenario.llm.prompts import SCENARIOS_PER_CALL

        # Only as many rows as are written at a time, because surplus rows cost money.
        plan = Following(run or f"llm-fill-{seed:x}", seed, SCENARIOS_PER_CALL * connection.settings.llm_concurrency)
        write = llm_sender(connection, plan.run, seed)
        # The models are asked, and paid, only when the rows are to be sent.
        make: Make = lambda cells, first: nullcontext(partial(write, cells, first))  # noqa: E731 - the type is the point
    else:
        from producers.scenario.filling import fill

        plan = Following(run or f"scenario-fill-{seed:x}", seed, connection.settings.rows_per_record)
        make = maker(connection, family, fill, plan)
    follow_requests(connection, family, make, plan, as_json=as_json)
