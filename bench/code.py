"""`feedmill bench code`: source files from disk to clean, in megabytes of source per second of one core's time.

One process reads the Python standard library with its tests, scores the documents and sends them to raw. Then one
worker refines them: it parses each document again, looks for duplicates, applies the filters and accounts for every
document. The two run one after the other, each pinned to one core if the system can do so, so the times of both add up.
A warm-up leaves the producer's start-up out, and the rate of the worker is taken between its first and its last group.
The peers are the two parts alone, and the whole with four augmentations of each document.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import time
from typing import Any

from bench.environment import fresh_environment, on_cores
from bench.refine import refine_raw
from broker.clients import Connection, connect
from producers.run import generate, produce
from producers.source_code.run import CodeRun
from schema.settings import load_settings

# Small groups, so that many are left after the first one, which the rate leaves out.
_GROUP_RECORDS = 2
_COPIES = 4.0
_LIMIT_S = 600.0
_MB = 1e6


def run(rows: int | None = None) -> dict[str, Any]:
    """Return the rate for `rows` documents of the standard library, or all, with the peers named above.

    Keys: name, rate, unit, elapsed_s, rows, megabytes, and peers, a list of such objects.
    """
    plain = _disk_to_clean(rows, copies=0.0)
    augmented = _disk_to_clean(rows, copies=_COPIES)
    peers = [*plain.pop("peers"), {**augmented, "name": f"{plain['name']}, and {_COPIES:.0f} augmentations of each"}]
    for peer in peers:
        peer.pop("peers", None)
        peer["ratio"] = plain["rate"] / peer["rate"]
    return {**plain, "peers": peers}


def _disk_to_clean(rows: int | None, copies: float) -> dict[str, Any]:
    with fresh_environment("code", partitions=1) as made:
        settings = made.settings.model_copy(
            update={"refine_group_records": _GROUP_RECORDS, "augment": {"code": copies} if copies else {}}
        )
        connection = Connection(settings, made.servers)
        produced = _in_own_process(connection, rows)
        refined = refine_raw(connection, "code", produced["rows"])
    # The rate leaves out the first group, and counts augmented rows as well.
    refine_s = refined["elapsed_s"] * refined["rows_in"] / refined["rows"]
    elapsed_s = produced["elapsed_s"] + refine_s
    return {
        "name": "code: disk to clean, one core",
        **_figures(produced["megabytes"], elapsed_s, produced["rows"]),
        "worker_peak_rss_mb": refined["worker_peak_rss_mb"],
        "peers": [
            {"name": "disk to raw", **_figures(produced["megabytes"], produced["elapsed_s"], produced["rows"])},
            {"name": "raw to clean", **_figures(produced["megabytes"], refine_s, produced["rows"])},
        ],
    }


def _in_own_process(connection: Connection, rows: int | None) -> dict[str, Any]:
    """Produce in a process of one core and return its figures."""
    environment = connection.settings.environment(connection.servers) | {"POLARS_MAX_THREADS": "1"}
    command = [sys.executable, "-m", "bench.code", *([] if rows is None else [str(rows)])]
    with on_cores({max(os.sched_getaffinity(0))} if hasattr(os, "sched_getaffinity") else None):
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True, timeout=_LIMIT_S)
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def _produced(rows: int | None) -> dict[str, Any]:
    """Send documents of the standard library to raw and return the rate."""
    connection = connect(load_settings())
    documents = CodeRun(count=rows, paths=[sysconfig.get_paths()["stdlib"]])
    megabytes = sum(int(frame["text"].str.len_bytes().sum()) for frame in generate(documents)) / _MB
    began = time.perf_counter()
    report = produce(connection, documents)
    return _figures(megabytes, time.perf_counter() - began, report.rows)


def _figures(megabytes: float, elapsed_s: float, rows: int) -> dict[str, Any]:
    return {
        "rate": megabytes / elapsed_s,
        "unit": "MB of source/s",
        "elapsed_s": elapsed_s,
        "rows": rows,
        "megabytes": round(megabytes, 2),
    }


if __name__ == "__main__":
    print(json.dumps(_produced(int(sys.argv[1]) if len(sys.argv) > 1 else None)))
