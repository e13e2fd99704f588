"""The services of one machine, as child processes: the refine worker and the coverage service.

Takes settings; gives a context in which the services run, each with its log file under the data folder. However the
context is left, nothing it started is left running.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from schema.errors import FeedmillError
from schema.settings import Settings

_STOP_WITHIN_S = 30.0
_LOG_LINES = 3


class ServiceError(FeedmillError):
    """A service that was started ended by itself."""


@dataclass
class Service:
    """A child process that runs `feedmill <arguments>`, and its log file."""

    name: str
    process: subprocess.Popen[bytes]
    log_file: Path

    def check(self) -> None:
        """Raise ServiceError, with the last lines of its log, if the service has ended."""
        status = self.process.poll()
        if status is not None:
            raise ServiceError(f"the {self.name} ended with status {status}: {self.last_words()}")

    def last_words(self) -> str:
        """Return the last lines of the log as one line, and where the rest is."""
        lines = self.log_file.read_text(errors="replace").strip().splitlines()[-_LOG_LINES:]
        return f"{' / '.join(lines) or 'it said nothing'} (log: {self.log_file})"

    def stop(self) -> None:
        """Let go of the lifeline, wait for an orderly end, and kill what does not end."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        try:
            self.process.wait(_STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start(settings: Settings, servers: str, name: str, arguments: Sequence[str]) -> Service:
    """Start `feedmill <arguments>` as a child on a lifeline, against the Kafka at `servers`."""
    log_file = settings.data_dir / "logs" / f"{name}.log"
    log_file.parent.mkdir(parents=True, exist_ok=True)
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "feedmill.lifeline", *arguments],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env=settings.environment(servers),
            # Ctrl-C reaches the parent only, which then stops its services in order.
            start_new_session=True,
        )
    return Service(name, process, log_file)


@contextmanager
def running(settings: Settings, servers: str, workers: int = 1) -> Iterator[list[Service]]:
    """Run `workers` refine workers and the coverage service while the context lasts."""
    services: list[Service] = []
    try:
        services.append(start(settings, servers, "coverage", ["coverage", "serve"]))
        names = (f"worker-{number}" for number in range(1, workers + 1))
        services.extend(start(settings, servers, name, ["worker"]) for name in names)
        yield services
    finally:
        for service in reversed(services):
            service.stop()


def wait_until_stopped(services: Sequence[Service], interval_s: float = 0.5) -> None:
    """Return only by KeyboardInterrupt, or by ServiceError when one of the services has ended."""
    while True:
        for service in services:
            service.check()
        time.sleep(interval_s)
