"""The commands that run services in the foreground: `feedmill worker` and `feedmill up`."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from schema.errors import FeedmillError
from schema.registry import FAMILIES, family_named
from schema.settings import load_settings

if TYPE_CHECKING:
    from streams.worker import WorkerTotals

_LINE_INTERVAL_S = 5.0


def worker_command(
    families: Annotated[
        list[str] | None, typer.Argument(metavar="[FAMILY]...", help="Families to refine; all if none is named.")
    ] = None,
) -> None:
    """Refine raw records: validate, deduplicate and account for every one, until stopped."""
    from broker.clients import connect
    from streams.worker import run_worker

    # Told to stop before the worker listens for it: that is an orderly end too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
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
    # Threads of Faust's may outlive a failure, and would keep the process from ending.
    os._exit(status)


class WorkerLines:
    """Prints what the worker has done, at most once in a few seconds."""

    def __init__(self) -> None:
        self._printed_at = 0.0

    def __call__(self, totals: WorkerTotals) -> None:
        """Take the totals after a committed group."""
        now = time.monotonic()
        if now - self._printed_at < _LINE_INTERVAL_S:
            return
        self._printed_at = now
        print(
            f"worker: {totals.records:,} records, {totals.rows_in:,} rows in = {totals.rows_clean:,} clean + "
            f"{totals.rows_rejected:,} rejected + {totals.rows_rerouted:,} rerouted",
            flush=True,
        )


def up_command(
    workers: Annotated[int, typer.Option(min=1, max=64, help="Refine workers to run.")] = 1,
) -> None:
    """Run the broker, the refine workers and the coverage service until Ctrl-C; what ends is started again."""
    from broker.clients import connect
    from broker.topics import ensure_topics
    from feedmill.services import keep_running, running

    settings = load_settings()
    connection = connect(settings, on_progress=lambda line: print(line, flush=True))
    ensure_topics(connection, FAMILIES)
    with running(settings, connection.servers, workers) as services:
        print(f"Kafka at {connection.servers}; {workers} worker(s) and the coverage service are starting", flush=True)
        print(f"logs: {settings.data_dir / 'logs'}; live view: feedmill watch; stop with Ctrl-C", flush=True)
        keep_running(services, lambda line: print(line, flush=True))
