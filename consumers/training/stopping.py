"""Stop a long loop on SIGINT and SIGTERM, between two of its rounds or while it waits for data.

The loop reads `requested` once a round. Inside the context `waiting`, a signal raises `Stopped` at once.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# A shell reports a process that a signal ended with 128 plus the signal's number.
_SIGNALLED = 128


class Stopped(BaseException):  # like KeyboardInterrupt, not an error
    """A signal arrived while the loop waited."""


class StopRequest:
    """Whether to stop, and which signal asked for it.

    Attributes:
        signal: the first signal that arrived; None before that.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._waiting = False

    @property
    def requested(self) -> bool:
        """Whether a signal arrived."""
        return self.signal is not None

    @property
    def exit_status(self) -> int:
        """The process's exit status after the signal: 130 after SIGINT, 143 after SIGTERM."""
        return _SIGNALLED + (self.signal or 0)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Raise `Stopped` on a signal inside the context, or at once if a signal arrived before."""
        self._waiting = True
        try:
            if self.requested:
                raise Stopped
            yield
        finally:
            self._waiting = False

    def heed(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        self.signal = self.signal or signal.Signals(number)
        if self._waiting:
            raise Stopped


@contextmanager
def stop_on_signals(request: StopRequest | None = None) -> Iterator[StopRequest]:
    """Give a request that SIGINT and SIGTERM set inside the context; call it in the main thread.

    Args:
        request: the request to set; None makes a new one.
    """
    request = request or StopRequest()
    before = {number: signal.signal(number, request.heed) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
