"""The commands that run services in the foreground: `feedmill worker` and `feedmill up`."""

from __future__ import annotations

import logging
import os
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from feedmill.signals import service
from schema.errors import FeedmillError
from schema.registry import FAMILIES, family_named
from schema.settings import load_settings

if TYPE_CHECKING:
    from streams.worker import WorkerTotals

_LINE_INTERVAL_S = 5.0


@service
def worker_command(
    families: Annotated[
        list[str] | None, typer.Argument(metavar="[FAMILY]...", help="Families to refine; all if none is named.")
    ] = None,
) -> None:
    """Run a refine worker until stopped: validate, deduplicate and account for every raw record."""
    from broker.clients import connect
    from streams.worker import run_worker

    chosen = [family_named(name) for name in families or FAMILIES]
    connection = connect(load_settings())
    print(f"worker: refining {', '.join(family.name for family in chosen)} at {connection.servers}", flush=True)
    status = 0
    try:
        run_worker(connection, chosen, WorkerLines())
        print("worker: stopped in order", flush=True)
    except FeedmillError as error:
        if logging.getLogger().level <= logging.INFO:
            logging.exception("worker")
        print(f"feedmill: {' '.join(str(error).split())}", file=sys.stderr)
        status = error.exit_status
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads of Faust may outlive a failure and keep the process alive.
    os._exit(status)


class WorkerLines:
    """Prints the totals of the worker, at most once in 5 s."""

    def __init__(self) -> None:
        self._printed_at = 0.0

    def __call__(self, totals: WorkerTotals) -> None:
        """Print the totals after a committed group of raw records, if it is time."""
        now = time.monotonic()
        if now - self._printed_at < _LINE_INTERVAL_S:
            return
        self._printed_at = now
        print(
            f"worker: {totals.records:,} records, {totals.rows_in:,} rows in = {totals.rows_clean:,} clean + "
            f"{totals.rows_rejected:,} rejected + {totals.rows_rerouted:,} rerouted",
            flush=True,
        )


@service
def up_command(
    workers: Annotated[int, typer.Option(min=1, max=64, help="Refine workers to run.")] = 1,
) -> None:
    """Run the broker, the refine workers and the coverage service until Ctrl-C; restart any that ends.

    An embedded broker that ran before keeps running; one that `up` started stops with it.
    """
    from broker.topics import ensure_topics
    from feedmill.services import broker_while_needed, keep_running, running

    def show(line: str) -> None:
        print(line, flush=True)

    settings = load_settings()
    with broker_while_needed(settings, show) as connection:
        ensure_topics(connection, FAMILIES)
        with running(settings, connection.servers, workers) as services:
            show(f"Kafka at {connection.servers}; {workers} worker(s) and the coverage service are starting")
            show(f"logs: {settings.data_dir / 'logs'}; live view: feedmill watch; stop with Ctrl-C")
            keep_running(settings, connection.servers, services, show)
