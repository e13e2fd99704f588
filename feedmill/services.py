"""Runs the refine workers and the coverage service of one machine as child processes, and the broker that they need.

Takes settings; gives contexts in which the services run, each with its log file under the data folder. Whatever ends a
context, everything that it started ends, too.
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
# A service that ran this long was healthy, and is started again after 1 s.
_SETTLED_AFTER_S = 60.0
_RESTART_WITHIN_S = 30.0
_BROKER_AGAIN_S = 5.0


class ServiceError(FeedmillError):
    """A service ended by itself."""


@dataclass
class Service:
    """A child process that runs a `feedmill` command against a Kafka, and its log file.

    `launch` starts the command again, against the servers in its argument.
    """

    name: str
    process: subprocess.Popen[bytes]
    log_file: Path
    servers: str
    launch: Callable[[str], subprocess.Popen[bytes]]
    launched_at: float = field(default_factory=time.monotonic)
    ends_in_a_row: int = 0
    # When to start the service again, and why it ended; None while it runs.
    due: tuple[float, str] | None = None

    def check(self) -> None:
        """Raise ServiceError, with the last lines of its log, if the service has ended."""
        status = self.process.poll()
        if status is not None:
            raise ServiceError(f"the {self.name} ended with status {status}: {self.last_words()}")

    def last_words(self) -> str:
        """Return the last lines of the log as one line, with the path of the log."""
        lines = self.log_file.read_text(errors="replace").strip().splitlines()[-_LOG_LINES:]
        return f"{' / '.join(lines) or 'its log is empty'} (log: {self.log_file})"

    def revive(self) -> str | None:
        """Start the service again if it has ended and its delay is over; return why it ended, or None if not started.

        The delay is 1 s. For a service that keeps ending within 60 s of its start, it is 2, 4, 8, ... s, 30 at most.
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
        """Run against `servers` from now on; a service that has ended is started at once."""
        self.ends_in_a_row = 0
        if self.servers == servers and self.process.poll() is None:
            return
        self.stop()
        self.servers = servers
        self._launch()

    def _launch(self) -> None:
        self.close_input()
        self.process, self.launched_at, self.due = self.launch(self.servers), time.monotonic(), None

    def close_input(self) -> None:
        """Close the service's standard input, so that it begins to stop in order."""
        if self.process.stdin is not None:
            self.process.stdin.close()

    def stop(self) -> None:
        """Stop the service in order, and kill it if it has not ended after 30 s."""
        self.close_input()
        try:
            self.process.wait(_STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start(
    settings: Settings, servers: str, name: str, arguments: Sequence[str], module: str = "feedmill.child_process"
) -> Service:
    """Start `feedmill <arguments>` as a child that ends with this process, against the Kafka at `servers`.

    If another `module` is given, it is run with these arguments; it must end when its standard input is closed.
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
        # All inputs are closed first, so that the services stop side by side.
        for service in services:
            service.close_input()
        for service in services:
            service.stop()


@contextmanager
def broker_while_needed(settings: Settings, show: Callable[[str], None]) -> Iterator[Connection]:
    """Give a connection to the configured or the embedded Kafka, and stop a broker that this process started.

    An embedded broker that ran before keeps running.

    Raises:
        BrokerError: as `broker.clients.connect`.
    """
    try:
        yield connect(settings, on_progress=show)
    finally:
        if settings.bootstrap_servers is None and embedded.started_here(settings):
            embedded.stop(settings)


def keep_running(settings: Settings, servers: str, services: Sequence[Service], show: Callable[[str], None]) -> Never:
    """Start services and the embedded broker again when they end, and show why, until KeyboardInterrupt.

    The broker starts again at its old port, where clients look for it. If another program has taken that port, the
    services move with the broker to a new one.
    """
    again_at = 0.0
    while True:
        if settings.bootstrap_servers is None and not embedded.is_alive(settings) and time.monotonic() >= again_at:
            show("the embedded broker ended: starting it again")
            port = int(servers.rpartition(":")[2])
            try:
                servers = embedded.start(settings.model_copy(update={"broker_port": port})).servers or servers
            except BrokerError as error:
                show(str(error))
                again_at = time.monotonic() + _BROKER_AGAIN_S
                continue
            show(f"Kafka at {servers} again")
            for service in services:
                service.move(servers)
        for service in services:
            reason = service.revive()
            if reason is not None:
                show(f"{reason}; started again")
        time.sleep(_LOOK_INTERVAL_S)
