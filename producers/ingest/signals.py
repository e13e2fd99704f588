"""The first SIGINT or SIGTERM ends the reading in order; the next one does what it always does."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

# As a shell reports a process that a signal ended.
_SIGNALLED = 128


class FirstSignal:
    """The first signal that came; `name` is empty before."""

    def __init__(self) -> None:
        self._number: signal.Signals | None = None

    @property
    def name(self) -> str:
        """The signal's name, or an empty text."""
        return self._number.name if self._number else ""

    @property
    def exit_status(self) -> int:
        """The status of a process that it ended: 130 for SIGINT, 143 for SIGTERM."""
        return _SIGNALLED + (self._number or 0)

    def note(self, number: int) -> None:
        """Remember a signal."""
        self._number = signal.Signals(number)


@contextmanager
def first_signal(act: Callable[[], None]) -> Iterator[FirstSignal]:
    """Call `act` at the first SIGINT or SIGTERM while the context lasts; outside the main thread, at none."""
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
