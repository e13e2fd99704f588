"""The command `feedmill produce addition` of the template family. Part `commands`."""

from __future__ import annotations

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
from tests.family_template.declaration import FAMILY


def produce_addition_command(
    count: Count = None,
    seed: Seed = None,
    workers: Workers = None,
    run: RunName = "",
    out: Out = None,
    follow: Follow = False,
) -> None:
    """Generate additions of two numbers."""
    from producers.seeds import fresh_seed
    from tests.family_template.producer import AdditionRun

    check_follow_options(count, out, follow)
    seed = fresh_seed() if seed is None else seed
    if count is None:
        fill_requests(FAMILY, seed, run)
        return
    parameters = AdditionRun(count, seed, workers=chosen_workers(workers), run=run)
    print_totals("additions", *produce_rows(parameters, connected(FAMILY) if out is None else out))
