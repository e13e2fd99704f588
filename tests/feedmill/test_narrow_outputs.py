"""A terminal with few characters and a reader that leaves early: no traceback, and what can be shown is shown."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import reductions
from tests.feedmill.test_surroundings import ROOT, check, hostile

pytestmark = pytest.mark.slow


def feedmill(*arguments: str, **environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "feedmill", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=hostile(PYTHONPATH=str(ROOT), **environment),
    )


def compare(folder: Path) -> list[str]:
    """A comparison of a file whose name holds one letter of Latin-1 and one that is not."""
    rows = folder / "\u00e9\u03bb.jsonl"
    rows.write_text(reductions.valid(20).write_ndjson())
    return ["compare", str(rows), str(rows), "--family", "reduction"]


def test_a_latin_1_terminal_shows_its_letters_and_escapes_the_others(tmp_path: Path) -> None:
    out, err = (process := feedmill(*compare(tmp_path), PYTHONIOENCODING="latin-1")).communicate()
    check((process.returncode, out.decode("latin-1"), err.decode("latin-1")), (0,))
    assert b"\xe9\\u03bb.jsonl" in out


@pytest.mark.parametrize("command", ["--help", "compare", "produce"])
def test_a_reader_that_leaves_early_ends_a_command_quietly(command: str, tmp_path: Path) -> None:
    # The last one prints a line, which the interpreter holds back until its end.
    produce = ["produce", "scenario", "--count", "2", "--seed", "1", "--json", "--out", str(tmp_path / "s.jsonl")]
    arguments = {"--help": ["--help"], "compare": compare(tmp_path), "produce": produce}[command]
    process = feedmill(*arguments)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    err = process.stderr.read().decode()
    process.stderr.close()
    check((process.wait(), "", err), (0, 1))
    assert "BrokenPipe" not in err
    assert "Exception ignored" not in err


@pytest.mark.parametrize("columns", ["0", "1"])
def test_a_terminal_without_width_still_gets_the_table(columns: str) -> None:
    process = subprocess.run(
        [sys.executable, "-m", "feedmill", "doctor"],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": columns, "FEEDMILL_BOOTSTRAP_SERVERS": "127.0.0.1:1"},
    )
    assert "Python" in process.stdout
