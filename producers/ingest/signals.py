"""Stop reading in order at the first SIGINT or SIGTERM; the next signal has its usual effect."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

# A shell reports 128 + the signal's number for a process that a signal ended.
_SIGNALLED = 128


class FirstSignal:
    """The first signal received; `name` is empty until then."""

    def __init__(self) -> None:
        self._number: signal.Signals | None = None

    @property
    def name(self) -> str:
        """The signal's name, or "" if none was received."""
        return self._number.name if self._number else ""

    @property
    def exit_status(self) -> int:
        """The exit status for this signal: 130 for SIGINT, 143 for SIGTERM."""
        return _SIGNALLED + (self._number or 0)

    def note(self, number: int) -> None:
        """Record the signal that was received."""
        self._number = signal.Signals(number)


@contextmanager
def first_signal(act: Callable[[], None]) -> Iterator[FirstSignal]:
    """Call `act` at the first SIGINT or SIGTERM while the context lasts; has no effect outside the main thread."""
    first = FirstSignal()
    if threading.current_thread() is not threading.main_thread():
        yield first
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, frame: FrameType | None) -> None:
        restore()
        first.note(number)
        act()

    for number in before:
        signal.signal(number, note)
    try:
        yield first
    finally:
        restore()
