"""The command `feedmill produce reduction`: generates lambda-terms and their redexes."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from feedmill.following import check_follow_options
from feedmill.progress import progress
from schema.registry import family_named
from schema.settings import load_settings


def produce_reduction_command(
    count: Annotated[int | None, typer.Option(min=1, help="Exact number of examples to generate.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, max=2**63 - 1, help="Random and printed if not given.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, max=256, help="Processes; one per core if not given.")] = None,
    fuel: Annotated[int, typer.Option(min=1, help="Most beta steps of a trace.")] = 250,
    all_steps: Annotated[bool, typer.Option("--all-steps", help="Keep every step of a trace, not 32 at most.")] = False,
    run: Annotated[str, typer.Option(help="Name of this run in the ledger; made from the seed if not given.")] = "",
    out: Annotated[Path | None, typer.Option(help="Write this JSONL file instead of a topic.")] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Fill the gaps that coverage requests, then end.")] = False,
) -> None:
    """Generate reduction examples: lambda-terms and the span that normal order reduces next."""
    from producers.reduction import run as producing
    from producers.reduction.recipe import ReductionRun
    from producers.seeds import fresh_seed

    check_follow_options(count, out, follow)
    if follow or count is None:
        _follow_reductions(fresh_seed() if seed is None else seed, run)
        return
    parameters = ReductionRun(
        count=count,
        seed=fresh_seed() if seed is None else seed,
        workers=workers or os.cpu_count() or 1,
        fuel=fuel,
        all_steps=all_steps,
        run=run,
    )
    print(f"seed {parameters.seed}", file=sys.stderr, flush=True)
    began = time.monotonic()
    if out is not None:
        with progress("generating", count) as advance:
            producing.write_jsonl(parameters, out, advance)
        where = str(out)
    else:
        from broker.clients import connect
        from broker.topics import ensure_topics

        connection = connect(load_settings())
        ensure_topics(connection, ["reduction"])
        with progress("generating", count) as advance:
            producing.produce(connection, parameters, advance)
        where = f"{connection.settings.namespace}.reduction.raw"
    elapsed_s = time.monotonic() - began
    print(f"{count:,} reductions of run {parameters.run} -> {where} in {elapsed_s:.1f} s", file=sys.stderr)


def _follow_reductions(seed: int, run: str) -> None:
    from broker.clients import connect
    from feedmill.following import Following, follow_requests, maker
    from producers.reduction.filling import fill

    print(f"seed {seed}", file=sys.stderr, flush=True)
    connection, family = connect(load_settings()), family_named("reduction")
    plan = Following(run or f"reduction-fill-{seed:x}", seed, connection.settings.rows_per_record)
    follow_requests(connection, family, maker(connection, family, fill, plan), plan, as_json=False)
