"""`feedmill bench pipeline`: producer -> raw -> refine -> clean and ledger -> DuckDB, all on this machine at once.

The services start first. The clock runs from the first generated chunk until everything is refined and folded. The
broker, the worker, the coverage service and the producer's processes share the machine's cores.
"""

from __future__ import annotations

import os
import time
from typing import Any

from bench.environment import ProcessUsage, fresh_environment
from feedmill.services import running
from producers.reduction.run import ReductionRun
from producers.run import produce
from streams.coverage.client import open_coverage
from streams.drain import drain

_ROWS = 3_000_000
_WARM_UP_ROWS = 20_000
_PARTITIONS = 2
_WORKERS = 2
_LIMIT_S = 1800.0


def run(rows: int = _ROWS) -> dict[str, Any]:
    """Send `rows` reductions through the whole service and return the figures."""
    with (
        fresh_environment("reduction", _PARTITIONS) as connection,
        running(connection.settings, connection.servers, _WORKERS) as services,
    ):
        watched = {service.name: ProcessUsage(service.process.pid) for service in services}
        # A warm-up run, in which the services join, compile and connect.
        produce(connection, ReductionRun(count=_WARM_UP_ROWS, seed=2))
        drain(connection, "reduction", _LIMIT_S)
        before = {name: each.cpu_s for name, each in watched.items()}

        began = time.monotonic()
        produce(connection, ReductionRun(count=rows, seed=1, workers=os.cpu_count() or 1))
        produced_s = time.monotonic() - began
        drain(connection, "reduction", _LIMIT_S)
        elapsed_s = time.monotonic() - began
        for each in watched.values():
            each.stop()
        with open_coverage(connection) as coverage:
            report = coverage.report("reduction")
    return {
        "name": "pipeline: generate, refine, fold",
        "rate": rows / elapsed_s,
        "unit": "examples/s",
        "elapsed_s": elapsed_s,
        "rows": rows,
        "peers": [],
        "produced_s": round(produced_s, 2),
        "rows_clean": report["rows_clean"],
        "balanced": report["rows_in"] == rows + _WARM_UP_ROWS,
        "peak_rss_mb": {name: round(each.peak_rss_bytes / 1e6) for name, each in watched.items()},
        "cpu_us_per_row": {name: round((each.cpu_s - before[name]) / rows * 1e6, 2) for name, each in watched.items()},
    }
