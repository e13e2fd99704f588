"""Parts that the demos of all families share: services, draining with progress, coverage, and the closing tables."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from feedmill.progress import progress
from schema.registry import FAMILIES, family_named
from schema.settings import Settings

if TYPE_CHECKING:
    from broker.clients import Connection
    from feedmill.services import Service

_DRAIN_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class Pace:
    """The pace of one step of the demo: items, their unit, and seconds."""

    stage: str
    items: float
    unit: str
    seconds: float


@contextmanager
def services_of(settings: Settings, connection: Connection) -> Iterator[list[Service]]:
    """Run a worker and the coverage service until the end of the block; the topics of all families exist.

    Raises:
        ServiceError: a service does not start.
    """
    from broker.topics import ensure_topics
    from feedmill.services import running

    ensure_topics(connection, FAMILIES)
    with running(settings, connection.servers) as services:
        yield services


def drain_shown(connection: Connection, services: list[Service], family: str) -> None:
    """Wait until all raw records of the family are refined and counted, with a progress bar.

    Raises:
        ServiceError: a service ended.
        DrainTimeoutError: it took over ten minutes.
    """
    from streams.drain import DrainProgress, drain

    most = [1]
    with progress("refine", 100, "percent") as advance:

        def show(left: DrainProgress) -> None:
            for service in services:
                service.check()
            most[0] = max(most[0], left.offsets_left)
            advance(100 - 100 * left.offsets_left / most[0], f"{left.offsets_left:,} offsets left")

        drain(connection, family, _DRAIN_TIMEOUT_S, show)


def show_coverage(connection: Connection, name: str, console: Console) -> dict[str, Any]:
    """Print the family's heatmap, totals and quotas, and return its coverage report."""
    from feedmill.coverage_tables import coverage_line, quotas_table
    from feedmill.heatmap import heatmap
    from streams.coverage.client import open_coverage

    with open_coverage(connection) as coverage:
        report = coverage.report(name)
    console.print()
    console.print(heatmap(family_named(name), report["cells"]))
    console.print(coverage_line(report))
    console.print(quotas_table(report))
    return report


def show_paces(paces: list[Pace], console: Console) -> None:
    """Print the pace of each step as a table."""
    table = Table("stage", "rate", "unit", "seconds", title="rates", title_justify="left")
    for pace in paces:
        rate = pace.items / max(pace.seconds, 1e-9)
        table.add_row(pace.stage, f"{rate:,.0f}" if rate >= 100 else f"{rate:.2f}", pace.unit, f"{pace.seconds:.1f}")
    console.print()
    console.print(table)


def suggest(console: Console, *commands: tuple[str, str]) -> None:
    """Print commands to try next, each with its purpose."""
    console.print("\nTry next:", style="bold")
    for command, purpose in commands:
        console.print(f"  .venv/bin/{command}   [dim]{purpose}[/]", soft_wrap=True, highlight=False)
