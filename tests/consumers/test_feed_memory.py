"""A feed's memory is bounded by bytes: long rows make short windows, and few batches wait."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl

from broker.clients import Connection
from consumers.batches import Batch
from consumers.feed import Feed, FeedOptions
from tests import reductions
from tests.consumers.test_blocks import put

ROWS, LETTERS = 9_000, 15_000
WINDOW_MIB = 8

READER = """
import sys
from pathlib import Path
from consumers.feed import Feed, FeedOptions
from schema.settings import load_settings

def mib(name):
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name)]
    return int(line.split()[1]) / 1024

namespace, servers, folder, window_mib = sys.argv[1:]
settings = load_settings(namespace=namespace, bootstrap_servers=servers, data_dir=Path(folder))

def batches(**window):
    options = FeedOptions(max_tokens=20_000, **window)
    return iter(Feed(settings, "reduction", split=None, batch_size=16, shuffle_seed=1, options=options))

# Code that is loaded and compiled for a first batch does not count; the first window of the pass does.
first = batches(window_rows=64)
next(first)
first.close()
before = mib("VmRSS")
Path("/proc/self/clear_refs").write_text("5")
rows = sum(len(batch) for batch in batches(window_bytes=int(window_mib) * 2**20))
print(rows, mib("VmHWM") - before)
"""


def test_long_rows_take_no_more_memory_than_a_feed_may(connection: Connection, tmp_path: Path) -> None:
    letters = np.random.default_rng(1).choice(list("01(\\.)"), LETTERS + 200)
    text = "".join(letters)
    rows = reductions.valid(40).with_columns(pl.lit(text[:LETTERS]).alias("term"))
    put(connection, ((number % 4, rows) for number in range(ROWS // 40)))
    script = tmp_path / "reader.py"
    script.write_text(READER)
    arguments = [connection.settings.namespace, connection.servers, str(tmp_path / "data"), str(WINDOW_MIB)]
    done = subprocess.run(
        [sys.executable, script, *arguments],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    rows_read, grown_mib = done.stdout.split()
    assert int(rows_read) == ROWS
    # 135 MB of text were read. Memory holds windows, records decoded ahead, and 64 MiB of waiting batches.
    assert float(grown_mib) < 4 * WINDOW_MIB + 64


def test_windows_end_before_their_bytes_exceed_the_limit(connection: Connection) -> None:
    put(connection, [(0, reductions.valid(400)), (1, reductions.valid(300, first=400))])
    options = FeedOptions(window_bytes=30_000)
    windows: dict[int, list[Batch]] = {}
    for batch in Feed(connection, "reduction", split=None, batch_size=8, shuffle_seed=1, options=options):
        windows.setdefault(batch.cursor.window, []).append(batch)
    taken = [sum(batch.real_tokens + 64 * len(batch) for batch in batches) for batches in windows.values()]
    assert len(taken) > 2
    assert all(20_000 < each < 31_000 for each in taken[:-1])
    # Windows hold whole batches.
    assert all(len(batch) == 8 for batches in list(windows.values())[:-1] for batch in batches)
    assert sum(len(batch) for batches in windows.values() for batch in batches) == 700
