"""The process of one contender: `python -m bench.feed.measuring KEY PARQUET BATCH_SIZE`.

It speaks JSON lines on stdout. The first is the `tally` and the `padding_share` of an untimed pass. Then each line on
stdin asks for one timed pass, which answers `elapsed_s` and `cpu_s`. The process ends with stdin.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path

import pyarrow as pa
import torch

from bench.feed.contenders import CONTENDERS
from bench.feed.peers import Passes
from bench.feed.tensors import tally_of_batches


def one_core_threads() -> None:
    """Limit torch and Arrow to one thread; environment variables of this process limit Polars and OpenMP."""
    torch.set_num_threads(1)
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)


def timed_pass(one_pass: Passes, rows: int) -> dict[str, float]:
    """Return the seconds that one pass takes, and its CPU seconds in all threads and finished child processes.

    Raises:
        RuntimeError: the pass gave another number of rows.
    """
    began, cpu_began = time.perf_counter(), _cpu_s()
    count = sum(len(tensors.tokens) for tensors in one_pass())
    figures = {"elapsed_s": time.perf_counter() - began, "cpu_s": _cpu_s() - cpu_began}
    if count != rows:
        raise RuntimeError(f"a pass gave {count} rows, but the first pass gave {rows}")
    return figures


def _cpu_s() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def main(key: str, stored: str, batch_size: str) -> None:
    """Measure the contender `key` as often as stdin asks."""
    # Libraries also print on stdout, so that is redirected to stderr.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    one_core_threads()
    one_pass = CONTENDERS[key].prepare(Path(stored), int(batch_size))
    tally, padding_share = tally_of_batches(one_pass())
    print(json.dumps({"tally": tally, "padding_share": padding_share}), file=answers)
    for _ in sys.stdin:
        print(json.dumps(timed_pass(one_pass, tally.rows)), file=answers)


if __name__ == "__main__":
    main(*sys.argv[1:])
