"""The memory that docs/operations.md states for a worker is enough for any raw records."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

LIMIT_MIB = 1536

_JUDGE = """
import json, resource, sys
import numpy as np
import polars as pl
import pyarrow as pa
from schema.record import Envelope, encode
from schema.registry import FAMILIES
from schema.settings import load_settings
from streams.refine.decode import RawRecord, least_row_bytes
from streams.refine.group_judge import Judge
from streams.refine.pieces import pieces
from streams.refine.state import State

name, kind, limit = sys.argv[1], sys.argv[2], int(sys.argv[3])
family, settings = FAMILIES[name], load_settings()
arrow = Envelope(name, "raw", 1, "r", 0, 0, 1).headers()
text = next(column for column, dtype in family.columns.items() if dtype == pl.String)

def stream(table):
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())

values = {
    "bomb": lambda: (stream(pa.table({text: ["x" * 1000] * 200_000})), arrow),
    "nulls": lambda: (stream(pa.table({text: pa.nulls(99_000)})), arrow),
    "rows": lambda: (stream(pa.table({text: pa.nulls(10**9)})), arrow),
    "text": lambda: (encode(pl.DataFrame({text: ["x" * 30_000] * 2000})), arrow),
    "lines": lambda: (b"{}\\n" * 99_000, []),
    "items": lambda: (json.dumps({"capacity_factors": [{}] * 200_000}).encode(), []),
}
judge = Judge(family, settings, 0, 4, "id")
judge.judge_group([RawRecord("t", 0, 0, 0, b"{}", [])], State.empty(family, settings))
value, headers = values[kind]()
now = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmSize"))
resource.setrlimit(resource.RLIMIT_AS, (now + limit, now + limit))
records = [RawRecord("t", 0, 1 + number, 0, value, headers) for number in range(4)]
rows = 0
for piece in pieces(records, least_row_bytes(family)):
    rows += judge.judge_group(piece, State.empty(family, settings)).progress.rows_in
print(rows)
"""


@pytest.mark.parametrize(
    ("family", "kind", "rows"),
    [
        ("reduction", "bomb", 4),
        ("reduction", "nulls", 4 * 99_000),
        ("reduction", "rows", 4),
        ("reduction", "text", 4 * 2000),
        ("reduction", "lines", 4 * 99_000),
        ("scenario", "items", 4),
    ],
)
def test_a_group_of_bombs_is_judged_within_the_stated_memory(family: str, kind: str, rows: int) -> None:
    command = [sys.executable, "-c", _JUDGE, family, kind, str(LIMIT_MIB * 1024 * 1024)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str(rows), done.stderr
