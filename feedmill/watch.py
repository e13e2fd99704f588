"""`feedmill watch`: shows the offsets, rates and lag of all topics live in the terminal.

It reads the offsets of every stage and the positions of the refine workers once a second, and changes nothing. Records
are micro-batches, so rates here are records per second; the coverage report has the rows.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table

from schema.record import STAGES
from schema.registry import FAMILIES
from schema.settings import load_settings

if TYPE_CHECKING:
    from broker.clients import Connection

_WINDOW_S = 10.0


@dataclass
class Flow:
    """The end offsets of one topic over the last seconds."""

    seen: list[tuple[float, int]] = field(default_factory=list)

    def rate(self, now: float, end: int) -> float:
        """Add an end offset and return the offsets per second over the window."""
        self.seen.append((now, end))
        while now - self.seen[0][0] > _WINDOW_S:
            self.seen.pop(0)
        began, first = self.seen[0]
        return (end - first) / (now - began) if now > began else 0.0


def watch_command(
    interval: Annotated[float, typer.Option(min=0.2, help="Seconds between updates.")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Show one table, then exit.")] = False,
) -> None:
    """Show every stage's topics, rates and lag, live, until Ctrl-C."""
    from broker.clients import connect
    from broker.kept_clients import kept_clients

    with kept_clients(connect(load_settings(), start=False)) as connection:
        watch(connection, interval, once)


def watch(connection: Connection, interval_s: float, once: bool) -> None:
    """Draw every stage's topics, once or until Ctrl-C."""
    flows: dict[str, Flow] = {}
    console = Console()
    if once:
        console.print(_look(connection, flows))
        return
    # A pipe or a log cannot be redrawn: one table follows the other.
    while not console.is_terminal:
        console.print(_look(connection, flows))
        time.sleep(interval_s)
    with Live(_look(connection, flows), console=console, refresh_per_second=4) as live:
        while True:
            time.sleep(interval_s)
            live.update(_look(connection, flows))


def _look(connection: Connection, flows: dict[str, Flow]) -> Table:
    from broker.topics import extents, list_topics, topic_name

    table = Table("family", "stage", title=f"Kafka at {connection.servers}")
    for name in ("partitions", "offsets", "offsets/s", "waiting"):
        table.add_column(name, justify="right")
    existing = set(list_topics(connection))
    for family in FAMILIES:
        for stage in STAGES:
            topic = topic_name(connection.settings, family, stage)
            if topic not in existing:
                continue
            offsets = extents(connection, topic)
            total = sum(extent.end - extent.begin for extent in offsets.values())
            rate = flows.setdefault(topic, Flow()).rate(time.monotonic(), sum(each.end for each in offsets.values()))
            waiting = _waiting(connection, family, topic, {p: extent.end for p, extent in offsets.items()})
            table.add_row(
                family, stage, str(len(offsets)), f"{total:,}", f"{rate:,.1f}", waiting if stage == "raw" else ""
            )
    if not table.rows:
        table.caption = "no topics yet: produce something first (feedmill produce reduction --count 20000)"
    return table


def _waiting(connection: Connection, family: str, topic: str, ends: Mapping[int, int]) -> str:
    from broker.topics import committed_positions
    from streams.positions import position_group

    positions = committed_positions(connection, position_group(connection.settings, family), topic)
    return f"{sum(end - positions.get(partition, 0) for partition, end in ends.items()):,}"
