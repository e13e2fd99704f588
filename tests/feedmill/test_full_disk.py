"""A full disk is a one-line error and leaves no half-written file; a limit on file sizes acts as a full disk."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from broker.clients import Connection
from feedmill.cli import run
from schema.settings import Settings
from tests import reductions
from tests.consumers.records import write
from tests.rooms import room_for
from tests.streams.ledgers import LedgerWriter, entry

pytestmark = pytest.mark.slow

ROOM_BYTES = 8_000

Command = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize("command", ["produce", "replay.jsonl", "replay.parquet", "replay.arrow"])
def test_a_full_disk_is_a_one_line_error_and_leaves_no_file(
    connection: Connection, tmp_path: Path, command: str
) -> None:
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
    line = done.stderr.splitlines()[-1]
    assert line.startswith("feedmill: ")
    assert "File too large" in line
    assert "an error in Feedmill" not in done.stderr
    assert "Traceback" not in done.stderr
    assert list(folder.iterdir()) == []


@pytest.fixture
def command(settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Return a function that runs a command, with files of `room` bytes at most: (status, stdout, stderr)."""
    for name in ("namespace", "data_dir", "bootstrap_servers"):
        monkeypatch.setenv(f"FEEDMILL_{name.upper()}", str(getattr(settings, name)))

    def call(*arguments: str, room: int = 2**40) -> tuple[int, str, str]:
        with room_for(room):
            status = run(list(arguments))
        return (status, *capsys.readouterr())

    return call


def test_a_plot_on_a_full_disk_keeps_the_earlier_picture(command: Command, tmp_path: Path) -> None:
    rows, picture = tmp_path / "a.jsonl", tmp_path / "out" / "p.png"
    rows.write_text(reductions.valid(20).write_ndjson())
    picture.parent.mkdir()
    picture.write_bytes(b"the earlier picture")
    arguments = ("compare", str(rows), str(rows), "--family", "reduction", "--json", "--plot", str(picture))
    status, _, err = command(*arguments, room=ROOM_BYTES)
    assert (status, err.count("\n")) == (1, 1)
    assert "no space is left (File too large)" in err
    assert list(picture.parent.iterdir()) == [picture]
    assert picture.read_bytes() == b"the earlier picture"


def test_coverage_works_again_when_a_full_disk_has_room(connection: Connection, command: Command) -> None:
    LedgerWriter(connection).write_last([entry(0, rows_in=7, rows_clean=7)])
    for room in (ROOM_BYTES, 20_000):
        status, _, err = command("coverage", "rebuild", room=room)
        assert (status, err.count("\n")) == (1, 1)
        assert "no space is left for the coverage store (File too large)" in err
        status, out, err = command("coverage", "report", "reduction", "--json")
        assert json.loads(out)["rows_in"] == 7, err
