"""A full disk is one line and leaves nothing half written; a limit on file sizes acts as a full disk does."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from broker.clients import Connection
from tests import reductions
from tests.consumers.records import write

ROOM_BYTES = 8_000


@pytest.mark.parametrize("command", ["produce", "replay.jsonl", "replay.parquet", "replay.arrow"])
def test_a_full_disk_is_one_line_and_leaves_nothing(connection: Connection, tmp_path: Path, command: str) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    if command == "produce":
        arguments = ["produce", "reduction", "--count", "2000", "--seed", "1", "--workers", "1"]
        out = folder / "x.jsonl"
    else:
        write(connection, reductions.valid(2000), rows_per_record=500)
        arguments = ["replay", "reduction"]
        out = folder / command
    done = subprocess.run(
        [sys.executable, "-m", "feedmill", *arguments, "--out", str(out)],
        env={**connection.settings.environment(connection.servers), "NUMBA_CACHE_DIR": str(tmp_path / "numba")},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM_BYTES, ROOM_BYTES)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    told = done.stderr.splitlines()[-1]
    assert told.startswith("feedmill: ")
    assert "File too large" in told
    assert "an error in Feedmill" not in done.stderr
    assert "Traceback" not in done.stderr
    assert list(folder.iterdir()) == []
