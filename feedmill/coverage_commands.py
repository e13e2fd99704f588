"""The commands `feedmill coverage serve|report|gaps|rebuild` and `feedmill drain`."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from typing import Annotated

import typer
from rich.console import Console

from feedmill.progress import OnAdvance, progress
from feedmill.signals import service
from schema.registry import family_named
from schema.settings import load_settings

app = typer.Typer(help="Coverage: the rows that were generated, rejected, or are missing.", no_args_is_help=True)

FamilyName = Annotated[str, typer.Argument(metavar="FAMILY", help="e.g. reduction")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]


@app.command("serve")
@service
def serve_command() -> None:
    """Fold the ledgers into coverage as they grow; serve the dashboard, the API and /metrics until stopped."""
    from broker.clients import connect
    from streams.coverage.service import serve

    serve(connect(load_settings()), on_ready=lambda url: print(f"coverage service at {url}", flush=True))


@app.command("report")
def report_command(family: FamilyName, as_json: AsJson = False) -> None:
    """Report the generated rows: accounts, counts by axis and cell, quotas and gaps."""
    from broker.clients import connect
    from feedmill.coverage_tables import report_tables
    from streams.coverage.client import open_coverage

    declared = family_named(family)
    with open_coverage(connect(load_settings())) as coverage:
        report = coverage.report(family)
    if as_json:
        print(json.dumps(report))
    else:
        Console().print(report_tables(declared, report))


@app.command("gaps")
def gaps_command(family: FamilyName, as_json: AsJson = False) -> None:
    """List the cells and bins that lack rows, largest deficit first."""
    from broker.clients import connect
    from feedmill.coverage_tables import gap_lines
    from streams.coverage.client import open_coverage

    declared = family_named(family)
    with open_coverage(connect(load_settings())) as coverage:
        missing = coverage.gaps(family)
    if as_json:
        print(json.dumps({"family": family, "gaps_to_fill": missing}))
    else:
        Console().print(gap_lines(declared, missing))


@app.command("rebuild")
def rebuild_command() -> None:
    """Delete the coverage store and fold all ledgers again."""
    from broker.clients import connect
    from streams.coverage.client import rebuild

    warnings = rebuild(connect(load_settings()))
    print("coverage was folded again from the ledgers", file=sys.stderr)
    for line in warnings:
        print(f"warning: {line}", file=sys.stderr)


def drain_command(
    family: FamilyName,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds to wait at most.")] = 600.0,
    accept_lost: Annotated[
        bool, typer.Option("--accept-lost", help="Succeed even if retention removed unrefined records.")
    ] = False,
) -> None:
    """Wait until every record in raw is refined and folded into coverage."""
    from broker.clients import connect
    from streams.drain import DrainProgress, drain

    family_named(family)
    connection = connect(load_settings())
    with ExitStack() as stack:
        shown: list[tuple[int, OnAdvance]] = []

        def show(now: DrainProgress) -> None:
            if not shown:
                # The first measurement is the total; rows rerouted later only move the bar back.
                shown.append(
                    (now.offsets_left, stack.enter_context(progress(f"draining {family}", now.offsets_left, "offsets")))
                )
            total, advance = shown[0]
            note = f"{sum(now.raw.values()):,} left in raw, {sum(now.ledger.values()):,} in the ledger"
            advance(max(0, total - now.offsets_left), note)

        drain(connection, family, timeout, show, accept_lost=accept_lost)
    print(f"{family} is drained: every record in raw is refined and folded into coverage", file=sys.stderr)
