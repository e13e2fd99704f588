"""Being told to stop: SIGINT and SIGTERM end a long loop between two of its rounds, or while it waits for data.

The loop asks `requested` once a round. Only where it says that it is `waiting` does a signal break in, with `Stopped`.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# As a shell reports a process that a signal ended.
_SIGNALLED = 128


class Stopped(BaseException):  # no more an error than KeyboardInterrupt
    """A signal came while the loop waited."""


class StopRequest:
    """Whether to stop, and why.

    Attributes:
        signal: the first that came; None so far.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._waiting = False

    @property
    def requested(self) -> bool:
        """Whether a signal came."""
        return self.signal is not None

    @property
    def exit_status(self) -> int:
        """The process's status in that case: 130 after SIGINT, 143 after SIGTERM."""
        return _SIGNALLED + (self.signal or 0)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Let a signal break in with `Stopped` while the context lasts, at once if one came before."""
        self._waiting = True
        try:
            if self.requested:
                raise Stopped
            yield
        finally:
            self._waiting = False

    def heed(self, number: int, frame: FrameType | None) -> None:
        """Take a signal, as a handler does."""
        self.signal = self.signal or signal.Signals(number)
        if self._waiting:
            raise Stopped


@contextmanager
def stop_on_signals(request: StopRequest | None = None) -> Iterator[StopRequest]:
    """Give a request that SIGINT and SIGTERM make while the context lasts; for the main thread.

    Args:
        request: a new one by default.
    """
    request = request or StopRequest()
    before = {number: signal.signal(number, request.heed) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
