"""Run a command until it ends or passes a limit; its output is read with a cap.

No output, time or memory of the command can grow without bound. What ends a command early is a name: `time_limit`,
`output_limit`, `memory_limit`, or `killed` if
the system or the command itself killed it.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

from consumers.code_evaluation.limits import ProcessLimits

TIME_LIMIT, OUTPUT_LIMIT, MEMORY_LIMIT, KILLED = "time_limit", "output_limit", "memory_limit", "killed"
# Statuses of a command that a signal ended: negative, or 128 and the signal's number from a shell or bubblewrap.
_BY_SIGNAL = {
    status: name
    for number, name in ((signal.SIGXCPU, TIME_LIMIT), (signal.SIGKILL, KILLED))
    for status in (-number, 128 + number)
}
# What Rust's and Python's run-time and LLVM say last.
_NO_MEMORY = (b"memory allocation of", b"MemoryError", b"LLVM ERROR: out of memory")
_LAST_BYTES = 4096

_READ_BYTES = 65_536
# How often memory and an interrupt are looked at. A process fills about 200 MB in this time.
_LOOK_INTERVAL_S = 0.05
# How often the end of a process is looked for that closed its output.
_END_INTERVAL_S = 0.001
# A pipe that an escaped grandchild holds open is given up after this.
_PIPES_END_WITHIN_S = 1.0
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class InterruptedRunError(Exception):
    """The evaluation was stopped while a command ran."""


@dataclass(frozen=True)
class LimitedRun:
    """How a command ended.

    Attributes:
        status: the exit status; negative for a signal, as in `subprocess`.
        stopped: the limit at which it was killed, or None.
        stdout, stderr: what it wrote, at most the limit on output.
        seconds: how long it ran.
    """

    status: int
    stopped: str | None
    stdout: bytes
    stderr: bytes
    seconds: float

    @property
    def limit(self) -> str | None:
        """The limit that it passed, also one that the system holds; None if it ended by itself."""
        if self.stopped is not None:
            return self.stopped
        if self.status in _BY_SIGNAL:
            return _BY_SIGNAL[self.status]
        is_short = self.status and any(words in self.stderr[-_LAST_BYTES:] for words in _NO_MEMORY)
        return MEMORY_LIMIT if is_short else None


def run_limited(
    command: Sequence[str],
    limits: ProcessLimits,
    *,
    environment: Mapping[str, str],
    stopping: threading.Event,
    stdin: int | IO[bytes] = subprocess.DEVNULL,
    pass_fds: Sequence[int] = (),
    folder: str | None = None,
) -> LimitedRun:
    """Run a command in a session of its own; at a limit, kill its process group.

    Raises:
        OSError: it cannot be started.
        InterruptedRunError: `stopping` was set.
    """
    began = time.monotonic()
    process = subprocess.Popen(
        command,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        env=dict(environment),
        cwd=folder,
        pass_fds=pass_fds,
        start_new_session=True,
    )
    try:
        stopped, outputs = _watch(process, limits, began, stopping)
    finally:
        _kill(process)
        status = process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()
    return LimitedRun(status, stopped, bytes(outputs[0]), bytes(outputs[1]), time.monotonic() - began)


def _watch(
    process: subprocess.Popen[bytes], limits: ProcessLimits, began: float, stopping: threading.Event
) -> tuple[str | None, tuple[bytearray, bytearray]]:
    """Read the output until the process ends or passes a limit; return the limit, stdout and stderr."""
    outputs = bytearray(), bytearray()
    ended_at: float | None = None
    looked_at = began
    with selectors.DefaultSelector() as selector:
        for stream, output in zip((process.stdout, process.stderr), outputs, strict=True):
            assert stream is not None  # noqa: S101  # pipes were asked for; for the type checker
            selector.register(stream, selectors.EVENT_READ, output)
        while True:
            ready = selector.select(_LOOK_INTERVAL_S) if selector.get_map() else []
            for key, _ in ready:
                data = os.read(key.fd, _READ_BYTES)
                if not data:
                    selector.unregister(key.fileobj)
                key.data.extend(data[: limits.output_bytes - len(key.data) + 1])
                if len(key.data) > limits.output_bytes:
                    return OUTPUT_LIMIT, outputs
            now = time.monotonic()
            if _has_ended(process.pid):
                ended_at = now if ended_at is None else ended_at
                if not selector.get_map() or now - ended_at > _PIPES_END_WITHIN_S:
                    return None, outputs
            elif not selector.get_map():
                # It closed its output and goes on.
                time.sleep(_END_INTERVAL_S)
            if now - began > limits.wall_s:
                return TIME_LIMIT, outputs
            if now - looked_at >= _LOOK_INTERVAL_S:
                looked_at = now
                if stopping.is_set():
                    raise InterruptedRunError
                if _resident_bytes(process.pid) > limits.memory_bytes:
                    return MEMORY_LIMIT, outputs


def _has_ended(pid: int) -> bool:
    """Return whether a child has ended, without taking its status: until then, no other process gets its number."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the process group; with a sandbox's first process, the system ends all processes in the sandbox."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _resident_bytes(pid: int) -> int:
    """Return the resident memory of a process and its descendants; 0 where the system does not tell it."""
    total, seen, left = 0, 0, [pid]
    while left:
        each = left.pop()
        # A fork bomb makes more processes than can be looked at.
        seen += 1
        if seen > 4096:
            break
        with suppress(OSError, ValueError, IndexError):
            with open(f"/proc/{each}/statm", encoding="ascii") as stream:  # noqa: PTH123  # called often
                total += int(stream.read().split()[1]) * _PAGE_BYTES
            for task in os.listdir(f"/proc/{each}/task"):  # noqa: PTH208
                with open(f"/proc/{each}/task/{task}/children", encoding="ascii") as stream:  # noqa: PTH123
                    left += map(int, stream.read().split())
    return total
