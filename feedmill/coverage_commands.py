"""The commands `feedmill coverage serve|report|gaps|rebuild` and `feedmill drain`."""

from __future__ import annotations

import json
import sys
import time
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from broker.clients import connect
from schema.registry import family_named
from schema.settings import load_settings

app = typer.Typer(help="Coverage: what was generated, what was rejected, what is missing.", no_args_is_help=True)

_PLAIN_LINE_INTERVAL_S = 5.0

FamilyName = Annotated[str, typer.Argument(metavar="FAMILY", help="e.g. reduction")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]


@app.command("serve")
def serve_command() -> None:
    """Fold the ledgers as they grow; serve the dashboard, the API and /metrics until stopped."""
    from streams.coverage.service import serve

    serve(connect(load_settings()), on_ready=lambda url: print(f"coverage service at {url}", flush=True))


@app.command("report")
def report_command(family: FamilyName, as_json: AsJson = False) -> None:
    """Say what was generated: the accounting, marginals, cells, quotas and gaps."""
    from feedmill.coverage_tables import report_tables
    from streams.coverage.client import open_coverage

    declared = family_named(family)
    with open_coverage(connect(load_settings())) as coverage:
        report = coverage.report(family)
    if as_json:
        _print_json(report)
    else:
        Console().print(report_tables(declared, report))


@app.command("gaps")
def gaps_command(family: FamilyName, as_json: AsJson = False) -> None:
    """List what is missing, largest deficit first."""
    from feedmill.coverage_tables import gap_lines
    from streams.coverage.client import open_coverage

    family_named(family)
    with open_coverage(connect(load_settings())) as coverage:
        missing = coverage.gaps(family)
    if as_json:
        _print_json({"family": family, "gaps_to_fill": missing})
    else:
        Console().print(gap_lines(missing))


@app.command("rebuild")
def rebuild_command() -> None:
    """Throw the coverage store away and fold the ledgers anew."""
    from streams.coverage.client import rebuild

    rebuild(connect(load_settings()))
    print("coverage was folded anew from the ledgers", file=sys.stderr)


def drain_command(
    family: FamilyName,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds to wait at most.")] = 600.0,
) -> None:
    """Wait until all that is in raw is refined and folded."""
    from streams.drain import DrainProgress, drain

    family_named(family)
    connection = connect(load_settings())
    console = Console(stderr=True)
    if console.is_terminal:
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(f"draining {family}", total=None)

            def show(progress: DrainProgress) -> None:
                most = max(bar.tasks[task].total or 0, progress.offsets_left, 1)
                bar.update(task, total=most, completed=most - progress.offsets_left, description=_left(progress))

            drain(connection, family, timeout, show)
    else:
        spoken_at = float("-inf")

        def tell(progress: DrainProgress) -> None:
            nonlocal spoken_at
            if progress.offsets_left and time.monotonic() - spoken_at > _PLAIN_LINE_INTERVAL_S:
                spoken_at = time.monotonic()
                print(f"draining {family}: {_left(progress)}", file=sys.stderr, flush=True)

        drain(connection, family, timeout, tell)
    print(f"{family} is drained: all of raw is refined and folded", file=sys.stderr)


def _left(progress: Any) -> str:
    return f"{sum(progress.raw.values()):,} offsets left in raw, {sum(progress.ledger.values()):,} in the ledger"


def _print_json(value: dict[str, Any]) -> None:
    print(json.dumps(value))
