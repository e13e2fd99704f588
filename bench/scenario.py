"""`feedmill bench scenario`: scenarios composed and sent to raw by one process, pinned to one core if possible.

The run plans, composes, identifies, routes, encodes and sends; the broker runs on the other cores. A warm-up run before
leaves start-up and compilation out. Two peers are parts of the same process without a topic. The third is one refine
worker on one core that refines the rows sent, with every rule, near duplicates and share gates.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from typing import Any

from bench.environment import fresh_environment, on_cores
from bench.refine import refine_raw
from broker.clients import connect
from producers.run import encoded, generate, produce
from producers.scenario.run import ScenarioRun
from producers.sink import RecordLayout
from schema.settings import load_settings

_ROWS = 400_000
_WARM_UP_ROWS = 20_000
_SEED = 7
_LIMIT_S = 600.0
_LAYOUT = RecordLayout(partitions=1, rows_per_record=2048, record_max_bytes=1_000_000)


def run(rows: int = _ROWS) -> dict[str, Any]:
    """Return the rate of `rows` scenarios into the topic, with the peers named above.

    Keys: name, rate, unit, elapsed_s, rows, bytes_per_row, cpu_us_per_row (of this process), and peers, a list of such
    objects.
    """
    with fresh_environment("scenario", partitions=1) as connection:
        environment = connection.settings.environment(connection.servers) | {"POLARS_MAX_THREADS": "1"}
        command = [sys.executable, "-m", "bench.scenario", str(rows)]
        with on_cores({max(os.sched_getaffinity(0))} if hasattr(os, "sched_getaffinity") else None):
            done = subprocess.run(
                command, env=environment, stdout=subprocess.PIPE, text=True, check=True, timeout=_LIMIT_S
            )
        figures: dict[str, Any] = json.loads(done.stdout)
        refined = refine_raw(connection, "scenario", rows + _WARM_UP_ROWS)
    return {**figures, "peers": [*figures["peers"], refined]}


def _measured(rows: int) -> dict[str, Any]:
    """Run the benchmark and its first two peers in this process, and return the figures."""
    connection = connect(load_settings())
    produce(connection, ScenarioRun(_WARM_UP_ROWS, _SEED + 1))
    began, cpu_began_s = time.perf_counter(), time.process_time()
    report = produce(connection, ScenarioRun(rows, _SEED))
    elapsed_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu_began_s
    parts = ScenarioRun(rows // 2, _SEED)
    peers = [
        _timed("compose and identify, no routing, encoding or sending", parts, generate(parts)),
        _timed("compose, identify, route and encode, no sending", parts, encoded(parts, _LAYOUT)),
    ]
    figures = _figures("scenario: composer into the topic, one process, one core", rows, elapsed_s)
    for peer in peers:
        peer["ratio"] = figures["rate"] / peer["rate"]
    own = {"bytes_per_row": round(report.bytes / rows, 1), "cpu_us_per_row": round(cpu_s / rows * 1e6, 2)}
    return {**figures, **own, "peers": peers}


def _timed(name: str, run: ScenarioRun, blocks: Iterable[object]) -> dict[str, Any]:
    began = time.perf_counter()
    for _ in blocks:
        pass
    return _figures(name, run.count, time.perf_counter() - began)


def _figures(name: str, rows: int, elapsed_s: float) -> dict[str, Any]:
    return {"name": name, "rate": rows / elapsed_s, "unit": "examples/s", "elapsed_s": elapsed_s, "rows": rows}


if __name__ == "__main__":
    print(json.dumps(_measured(int(sys.argv[1]))))
