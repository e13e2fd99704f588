"""Run a `feedmill` command in a process of its own, which ends with this one, and keep what it prints in files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_STOP_WITHIN_S = 60.0
_LINE_SHOWN = 400


def run_child(arguments: list[str], printed: Path, log: Path) -> int:
    """Run a command and return its exit status; standard output goes to `printed`, standard error to `log`.

    If this call is interrupted, the command gets a minute to end in order, and is killed then.
    """
    with printed.open("wb") as out, log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "feedmill.child_process", *arguments],
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=errors,
        )
        try:
            return process.wait()
        finally:
            # The child ends with its standard input.
            if process.stdin is not None:
                process.stdin.close()
            try:
                process.wait(_STOP_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def last_line(log: Path) -> str:
    """Return the last line of a log, which is the error of a command that failed, without its prefix."""
    line = log.read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2]
    return line.removeprefix("feedmill: ")[:_LINE_SHOWN]
