"""Stopping in order: SIGTERM and SIGHUP do in every command what Ctrl-C does, and only the exit status tells which.

The command line calls `install` once. A command then has one thing to see to: what it holds (a broker, child
processes, a file half written) it lets go of in a `finally` or a context. Exit statuses are 128 plus the signal's
number: 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP. A service, which runs until it is told to stop, ends
with 0.
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


class _Told:
    """The signal that told this process to stop, if one did."""

    number: int | None = None


def install() -> None:
    """Let SIGTERM and SIGHUP interrupt this process as Ctrl-C does, unless it was started to ignore them."""
    process = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() != process:
            # A fork that knows nothing of these rules ends as any other program would.
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        elif _Told.number is None:
            # Told again, it goes on stopping: an orderly end is not to be broken off half-way.
            _Told.number = number
            _interrupt()

    for number in _LIKE_CTRL_C:
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, stop)


def _interrupt() -> None:
    if signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, signal.SIG_DFL):
        # A shell lets its background jobs ignore Ctrl-C; SIGTERM is for them all the same.
        raise KeyboardInterrupt
    # Not raised here: event loops and trainers have their own ways to take Ctrl-C.
    signal.raise_signal(signal.SIGINT)


def was_told_to_stop() -> bool:
    """Return whether SIGTERM or SIGHUP came."""
    return _Told.number is not None


def interrupted_status() -> int:
    """Return the exit status of a command that was interrupted."""
    return 128 + (_Told.number or signal.SIGINT)


def service(command: Callable[Parameters, None]) -> Callable[Parameters, None]:
    """Make a command a service: told to stop, it says so and ends with status 0, for that is its orderly end."""

    @functools.wraps(command)
    def until_told(*arguments: Parameters.args, **options: Parameters.kwargs) -> None:
        try:
            command(*arguments, **options)
        except KeyboardInterrupt:
            print("feedmill: stopped in order", file=sys.stderr, flush=True)

    return until_told
