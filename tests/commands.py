"""Run `feedmill` commands as child processes, and check that nothing is left after they are stopped."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from schema.settings import Settings

LIMIT_S = 120.0


@dataclass
class Running:
    """A `feedmill` command as a child process, with the file of its output."""

    process: subprocess.Popen[bytes]
    log: Path

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_until(self, true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + LIMIT_S
        while not true():
            assert time.monotonic() < deadline, self.said()
            assert self.process.poll() is None, self.said()
            time.sleep(0.05)

    def stop(self, number: signal.Signals) -> int:
        """Send the signal and return the exit status; fail if a process of the command is left."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        self.process.send_signal(number)
        status = self.process.wait(LIMIT_S)
        _, left = psutil.wait_procs(children, timeout=10)
        assert left == [], self.said()
        assert "Traceback" not in self.said()
        return status


@contextmanager
def command(settings: Settings, log: Path, *arguments: str, stdin: int = subprocess.DEVNULL) -> Iterator[Running]:
    environment = settings.environment(settings.bootstrap_servers or "")
    if settings.bootstrap_servers is None:
        del environment["FEEDMILL_BOOTSTRAP_SERVERS"]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "feedmill", *arguments],
            stdin=stdin,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**environment, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        )
    try:
        yield Running(process, log)
    finally:
        for child in psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []:
            child.kill()
        process.kill()
        process.wait()
        if process.stdin is not None:
            process.stdin.close()
