"""`feedmill bench refine`: one refine worker on a full raw topic, pinned to one core if the system can do so.

Everything is on: decoding, all rules, the redex check, deduplication, accounting, transactions. The rate is taken
between the broker's time stamps of the first and the last ledger record. It leaves out start-up and the rebuilding of
state, and includes every group of raw records after the first. The broker runs on the other cores.
"""

from __future__ import annotations

import os
import time
from typing import Any

from bench.environment import ProcessUsage, fresh_environment, on_cores
from broker.clients import Connection
from broker.committed import committed_records, has_records
from broker.topics import committed_positions, topic_name
from feedmill.services import ServiceError, start
from producers.reduction.run import ReductionRun
from producers.run import produce
from schema import ledger
from schema.record import LEDGER, RAW, decode
from streams.positions import position_group

_ROWS = 2_000_000
_LIMIT_S = 600.0
# Each look takes broker time from the worker.
_LOOK_INTERVAL_S = 1.0


def run(rows: int = _ROWS) -> dict[str, Any]:
    """Refine `rows` reductions with one worker on one core and return the figures."""
    with fresh_environment("reduction", partitions=1) as connection:
        produce(connection, ReductionRun(count=rows, seed=1, workers=os.cpu_count() or 1))
        return refine_raw(connection, "reduction", rows)


def refine_raw(connection: Connection, family: str, rows: int) -> dict[str, Any]:
    """Refine the `rows` rows in the one partition of raw with one worker on one core and return the figures."""
    with on_cores({max(os.sched_getaffinity(0))} if hasattr(os, "sched_getaffinity") else None):
        worker = start(connection.settings, connection.servers, "worker", ["worker"])
    watched = ProcessUsage(worker.process.pid)
    try:
        deadline = time.monotonic() + _LIMIT_S
        while _is_waiting(connection, family):
            worker.check()
            if time.monotonic() > deadline:
                raise ServiceError(f"not refined in {_LIMIT_S:.0f} s: {worker.last_words()}")
            time.sleep(_LOOK_INTERVAL_S)
    finally:
        watched.stop()
        worker.stop()
    stamps = _ledger(connection, family)
    elapsed_s = (stamps[-1][0] - stamps[0][0]) / 1000
    counted = sum(rows_in for _, rows_in in stamps[1:])
    return {
        "name": "refine: one worker, one core, everything on",
        "rate": counted / elapsed_s,
        "unit": "examples/s",
        "elapsed_s": elapsed_s,
        "rows": counted,
        "rows_in": sum(rows_in for _, rows_in in stamps),
        "peers": [],
        "worker_peak_rss_mb": round(watched.peak_rss_bytes / 1e6),
        "worker_cpu_us_per_row": round(watched.cpu_s / rows * 1e6, 2),
    }


def _is_waiting(connection: Connection, family: str) -> bool:
    topic = topic_name(connection.settings, family, RAW)
    positions = committed_positions(connection, position_group(connection.settings, family), topic)
    return any(has_records(connection, topic, {0: positions.get(0, 0)}).values())


def _ledger(connection: Connection, family: str) -> list[tuple[int, int]]:
    """Return (time stamp in ms, rows in) of every ledger record, in order."""
    topic = topic_name(connection.settings, family, LEDGER)
    columns = {"rows_in": ledger.COLUMNS["rows_in"]}
    return [
        (record.timestamp, int(decode(record.value, columns, 10**6)["rows_in"].sum()))
        for record in committed_records(connection, topic)
    ]
