"""`feedmill bench generate`: the rate of generating reductions and encoding them into micro-batches, without a broker.

The peer makes the same traces in plain Python, with recursion on tuples in one process, and without encoding.
"""

from __future__ import annotations

import os
import time
from typing import Any

from bench.plain_traces import plain_rows
from producers.reduction.run import ReductionRun
from producers.run import encoded
from producers.sink import RecordLayout

_SEED = 7
_ROWS = 1_000_000
_LAYOUT = RecordLayout(partitions=4, rows_per_record=2048, record_max_bytes=1_000_000)
# The peer takes a few seconds for them.
_PEER_ROWS = 3_000


def run(rows: int = _ROWS, workers: int | None = None) -> dict[str, Any]:
    """Return the rate over at least `rows` examples with `workers` processes, start and compilation left out.

    Without `workers` there is one process per core.

    Keys: name, rate, unit, elapsed_s, rows, workers, bytes_per_row, and peers, a list of the same.
    """
    workers = workers or os.cpu_count() or 1
    measured = size = 0
    started = time.perf_counter()
    # Many more rows than wanted, because workers idle at the end of a run, which must not be measured.
    for number, parcel in enumerate(encoded(ReductionRun(rows * 4 + 10**6, _SEED, workers=workers), _LAYOUT)):
        if number >= 2 * workers:
            measured += parcel.rows
            size += sum(len(record.data) for record in parcel.payload)
            if measured >= rows:
                break
        else:
            started = time.perf_counter()
    elapsed_s = time.perf_counter() - started
    return {
        "name": "generate",
        "rate": measured / elapsed_s,
        "unit": "examples/s",
        "elapsed_s": elapsed_s,
        "rows": measured,
        "workers": workers,
        "bytes_per_row": size / measured,
        "peers": [_plain_python()],
    }


def _plain_python() -> dict[str, Any]:
    started = time.perf_counter()
    rows = 0
    for _ in plain_rows(ReductionRun(_PEER_ROWS, _SEED)):
        rows += 1
    elapsed_s = time.perf_counter() - started
    return {
        "name": "plain Python, recursion on tuples, one process, no encoding",
        "rate": rows / elapsed_s,
        "unit": "examples/s",
        "elapsed_s": elapsed_s,
        "rows": rows,
    }
