"""Makes SIGTERM and SIGHUP stop every command as Ctrl-C does; only the exit status differs.

The command line calls `install` once. A command must release its resources (a broker, child processes, a half-written
file) in a `finally` or a context. Exit statuses are 128 plus the signal's number: 130 after Ctrl-C, 143 after SIGTERM,
129 after SIGHUP. A service runs until it is stopped, so it exits with 0.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import ParamSpec

Parameters = ParamSpec("Parameters")

_LIKE_CTRL_C = (signal.SIGTERM, signal.SIGHUP)


class _Received:
    """The SIGTERM or SIGHUP that this process received, if any, and whether an interrupt has ended the command."""

    number: int | None = None
    ended: bool = False


def install() -> None:
    """Let SIGTERM and SIGHUP interrupt this process as Ctrl-C does, unless it was started to ignore them.

    After an interrupt, errors in destructors are not printed: the interrupt may have come while an object was made, and
    its destructor then fails (an asyncio event loop prints a traceback).
    """
    process = os.getpid()
    report_unraisable = sys.unraisablehook

    def unraisable(error: sys.UnraisableHookArgs) -> None:
        if not _Received.ended:
            report_unraisable(error)

    sys.unraisablehook = unraisable

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() != process:
            # A forked child has not called `install`: the signal ends it as usual.
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        elif _Received.number is None:
            # A second signal is ignored, so that it cannot break off an orderly end.
            _Received.number = number
            _interrupt()

    for number in _LIKE_CTRL_C:
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, stop)


def _interrupt() -> None:
    if signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, signal.SIG_DFL):
        # A shell makes background jobs ignore Ctrl-C, but SIGTERM must stop them.
        raise KeyboardInterrupt
    # Not raised here, because event loops and trainers have their own handlers for Ctrl-C.
    signal.raise_signal(signal.SIGINT)


def end_by_interrupt() -> None:
    """Note that an interrupt ended the command."""
    _Received.ended = True


def forget_interrupt() -> None:
    """Let this process end with the exit status that it chooses, although an interrupt was caught.

    An interrupt that comes while `exec` runs a text leaves a mark in Python 3.11, even if it is caught (numba and
    dataclasses run texts). `python -m` then ends itself by SIGINT, whatever the status. A further text takes the mark
    away.
    """
    exec("")  # noqa: S102 - an empty text


def received_stop() -> bool:
    """Return whether this process received SIGTERM or SIGHUP."""
    return _Received.number is not None


def interrupted_status() -> int:
    """Return the exit status of a command that was interrupted."""
    return 128 + (_Received.number or signal.SIGINT)


def service(command: Callable[Parameters, None]) -> Callable[Parameters, None]:
    """Make a command a service: when it is interrupted, it prints a line and exits with status 0."""

    @functools.wraps(command)
    def until_stopped(*arguments: Parameters.args, **options: Parameters.kwargs) -> None:
        try:
            command(*arguments, **options)
        except KeyboardInterrupt:
            end_by_interrupt()
            print("feedmill: stopped in order", file=sys.stderr, flush=True)

    return until_stopped
