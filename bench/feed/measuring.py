"""The process that measures one contender: `python -m bench.feed.measuring KEY PARQUET BATCH_SIZE PASSES`.

Its starter pins it to a core. The last line on stdout is a JSON object: `rate`, `elapsed_s` and `cpu_s` of the median
pass, `rows` of each, the `padding_share`, and the `tally` of the first, untimed pass.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from bench.feed.contenders import CONTENDERS
from bench.feed.tensors import tally_of_batches


def measure(key: str, stored: Path, batch_size: int, passes: int) -> dict[str, Any]:
    """Return the figures of `passes` timed passes, an odd number, of the contender `key` over the rows in `stored`.

    Raises:
        RuntimeError: two passes gave different numbers of rows.
    """
    # Where the system cannot pin a process, it still is one thread that works.
    torch.set_num_threads(1)
    one_pass = CONTENDERS[key].prepare(stored, batch_size)
    tally, padding_share = tally_of_batches(one_pass())
    timed = []
    for _ in range(passes):
        began, cpu_began = time.perf_counter(), time.process_time()
        rows = sum(len(tensors.tokens) for tensors in one_pass())
        timed.append((time.perf_counter() - began, time.process_time() - cpu_began))
        if rows != tally.rows:
            raise RuntimeError(f"a pass gave {rows} rows after one of {tally.rows}")
    elapsed_s, cpu_s = sorted(timed)[passes // 2]
    return {
        "rate": tally.rows / elapsed_s,
        "elapsed_s": elapsed_s,
        "rows": tally.rows,
        "cpu_s": cpu_s,
        "padding_share": padding_share,
        "tally": tally,
    }


if __name__ == "__main__":
    key, stored, batch_size, passes = sys.argv[1:]
    print(json.dumps(measure(key, Path(stored), int(batch_size), int(passes))))
