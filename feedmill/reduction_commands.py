"""The command `feedmill produce reduction`: generates lambda-terms and their redexes."""

from __future__ import annotations

import sys
from typing import Annotated

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
from schema.reduction import FAMILY


def produce_reduction_command(
    count: Count = None,
    seed: Seed = None,
    workers: Workers = None,
    fuel: Annotated[int, typer.Option(min=1, help="Most beta steps of a trace.")] = 250,
    all_steps: Annotated[bool, typer.Option("--all-steps", help="Keep every step of a trace, not 32 at most.")] = False,
    run: RunName = "",
    out: Out = None,
    follow: Follow = False,
) -> None:
    """Generate reduction examples: lambda-terms and the span that normal order reduces next."""
    from producers.reduction.run import ReductionRun
    from producers.seeds import fresh_seed

    check_follow_options(count, out, follow)
    seed = fresh_seed() if seed is None else seed
    if follow or count is None:
        print(f"seed {seed}", file=sys.stderr, flush=True)
        fill_requests(FAMILY, seed, run)
        return
    parameters = ReductionRun(count, seed, fuel=fuel, all_steps=all_steps, workers=chosen_workers(workers), run=run)
    print(f"seed {seed}", file=sys.stderr, flush=True)
    print_totals("reductions", *produce_rows(parameters, connected(FAMILY) if out is None else out))
