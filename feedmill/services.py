"""The services of one machine, as child processes: the refine worker and the coverage service.

Takes settings; gives a context in which the services run, each with its log file under the data folder. However the
context is left, nothing it started is left running.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Never

from schema.errors import FeedmillError
from schema.settings import Settings

_STOP_WITHIN_S = 30.0
_LOG_LINES = 3
_LOOK_INTERVAL_S = 0.5
# A service that has lived this long was in order, and is started again at once.
_SETTLED_AFTER_S = 60.0
_RESTART_WITHIN_S = 30.0


class ServiceError(FeedmillError):
    """A service that was started ended by itself."""


@dataclass
class Service:
    """A child process that runs a `feedmill` command, and its log file; `launch` starts that command anew."""

    name: str
    process: subprocess.Popen[bytes]
    log_file: Path
    launch: Callable[[], subprocess.Popen[bytes]]
    launched_at: float = field(default_factory=time.monotonic)
    ends_in_a_row: int = 0

    def check(self) -> None:
        """Raise ServiceError, with the last lines of its log, if the service has ended."""
        status = self.process.poll()
        if status is not None:
            raise ServiceError(f"the {self.name} ended with status {status}: {self.last_words()}")

    def last_words(self) -> str:
        """Return the last lines of the log as one line, and where the rest is."""
        lines = self.log_file.read_text(errors="replace").strip().splitlines()[-_LOG_LINES:]
        return f"{' / '.join(lines) or 'it said nothing'} (log: {self.log_file})"

    def revive(self) -> str | None:
        """Start the service again if it has ended, and return why it did; None if it runs.

        One that keeps ending soon after its start is started again after 1, 2, 4, ... seconds, 30 at most.
        """
        try:
            self.check()
        except ServiceError as error:
            lived_s = time.monotonic() - self.launched_at
            self.ends_in_a_row = self.ends_in_a_row + 1 if lived_s < _SETTLED_AFTER_S else 0
            time.sleep(min(2.0**self.ends_in_a_row, _RESTART_WITHIN_S))
            self._let_go()
            self.process, self.launched_at = self.launch(), time.monotonic()
            return str(error)
        return None

    def _let_go(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()

    def stop(self) -> None:
        """Let go of the lifeline, wait for an orderly end, and kill what does not end."""
        self._let_go()
        try:
            self.process.wait(_STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start(settings: Settings, servers: str, name: str, arguments: Sequence[str]) -> Service:
    """Start `feedmill <arguments>` as a child on a lifeline, against the Kafka at `servers`."""
    log_file = settings.data_dir / "logs" / f"{name}.log"
    log_file.parent.mkdir(parents=True, exist_ok=True)
    log_file.unlink(missing_ok=True)

    def launch() -> subprocess.Popen[bytes]:
        with log_file.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "feedmill.lifeline", *arguments],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=settings.environment(servers),
                # Ctrl-C reaches the parent only, which then stops its services in order.
                start_new_session=True,
            )

    return Service(name, launch(), log_file, launch)


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


def keep_running(services: Sequence[Service], tell: Callable[[str], None]) -> Never:
    """Start again whatever ends, telling why; returns only by KeyboardInterrupt."""
    while True:
        for service in services:
            reason = service.revive()
            if reason is not None:
                tell(f"{reason}; started again")
        time.sleep(_LOOK_INTERVAL_S)
