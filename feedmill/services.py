"""The services of one machine, as child processes: the refine worker and the coverage service; and their broker.

Takes settings; gives contexts in which they run, each service with its log file under the data folder. However a
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

from broker import embedded
from broker.clients import Connection, connect
from schema.errors import BrokerError, FeedmillError
from schema.settings import Settings

_STOP_WITHIN_S = 30.0
_LOG_LINES = 3
_LOOK_INTERVAL_S = 0.5
# A service that has lived this long was in order, and is started again soon.
_SETTLED_AFTER_S = 60.0
_RESTART_WITHIN_S = 30.0
_BROKER_AGAIN_S = 5.0


class ServiceError(FeedmillError):
    """A service that was started ended by itself."""


@dataclass
class Service:
    """A child process that runs a `feedmill` command against some servers, and its log file.

    `launch` starts the command again, against the servers that it is given.
    """

    name: str
    process: subprocess.Popen[bytes]
    log_file: Path
    servers: str
    launch: Callable[[str], subprocess.Popen[bytes]]
    launched_at: float = field(default_factory=time.monotonic)
    ends_in_a_row: int = 0
    # When to start it again, and why it ended; while it runs, None.
    due: tuple[float, str] | None = None

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
        """Start the service again if it has ended and its time has come, and return why it ended; else None.

        One that keeps ending soon after its start is started again after 1, 2, 4, ... seconds, 30 at most.
        """
        now = time.monotonic()
        if self.due is None:
            try:
                self.check()
            except ServiceError as error:
                self.ends_in_a_row = self.ends_in_a_row + 1 if now - self.launched_at < _SETTLED_AFTER_S else 0
                self.due = (now + min(2.0 ** min(self.ends_in_a_row, 10), _RESTART_WITHIN_S), str(error))
        if self.due is None or now < self.due[0]:
            return None
        reason = self.due[1]
        self._launch()
        return reason

    def move(self, servers: str) -> None:
        """Run against `servers` from now on; one that has ended is started again at once."""
        self.ends_in_a_row = 0
        if self.servers == servers and self.process.poll() is None:
            return
        self.stop()
        self.servers = servers
        self._launch()

    def _launch(self) -> None:
        self.let_go()
        self.process, self.launched_at, self.due = self.launch(self.servers), time.monotonic(), None

    def let_go(self) -> None:
        """Close the lifeline: the service begins to end in order."""
        if self.process.stdin is not None:
            self.process.stdin.close()

    def stop(self) -> None:
        """Let go of the lifeline, wait for an orderly end, and kill what does not end."""
        self.let_go()
        try:
            self.process.wait(_STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start(
    settings: Settings, servers: str, name: str, arguments: Sequence[str], module: str = "feedmill.child_process"
) -> Service:
    """Start `feedmill <arguments>` as a child on a lifeline, against the Kafka at `servers`.

    Another `module` is run instead with these arguments; it must end when its standard input does.
    """
    log_file = settings.data_dir / "logs" / f"{name}.log"
    log_file.parent.mkdir(parents=True, exist_ok=True)
    log_file.unlink(missing_ok=True)

    def launch(servers: str) -> subprocess.Popen[bytes]:
        with log_file.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=settings.environment(servers),
                # Ctrl-C reaches the parent only, which then stops its services in order.
                start_new_session=True,
            )

    return Service(name, launch(servers), log_file, servers, launch)


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
        # All at once: they need not wait for one another.
        for service in services:
            service.let_go()
        for service in services:
            service.stop()


@contextmanager
def broker_while_needed(settings: Settings, tell: Callable[[str], None]) -> Iterator[Connection]:
    """Give a connection to the configured Kafka or the embedded one; what this process started ends with the context.

    An embedded broker that ran already is left running.

    Raises:
        BrokerError: as `broker.clients.connect`.
    """
    try:
        yield connect(settings, on_progress=tell)
    finally:
        if settings.bootstrap_servers is None and embedded.started_here(settings):
            embedded.stop(settings)


def keep_running(settings: Settings, servers: str, services: Sequence[Service], tell: Callable[[str], None]) -> Never:
    """Start again whatever ends, telling why: services, and the embedded broker; returns only by KeyboardInterrupt.

    The broker comes back at the port that it had, where clients look for it. If somebody has taken that port meanwhile,
    the services move with the broker.
    """
    again_at = 0.0
    while True:
        if settings.bootstrap_servers is None and not embedded.is_alive(settings) and time.monotonic() >= again_at:
            tell("the embedded broker ended: starting it again")
            port = int(servers.rpartition(":")[2])
            try:
                servers = embedded.start(settings.model_copy(update={"broker_port": port})).servers or servers
            except BrokerError as error:
                tell(str(error))
                again_at = time.monotonic() + _BROKER_AGAIN_S
                continue
            tell(f"Kafka at {servers} again")
            for service in services:
                service.move(servers)
        for service in services:
            reason = service.revive()
            if reason is not None:
                tell(f"{reason}; started again")
        time.sleep(_LOOK_INTERVAL_S)
