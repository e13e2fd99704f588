"""Batches made ahead in a thread of their own, while the training step computes.

Decoding, planning and padding let go of the interpreter's lock, so they overlap with a step that does so as well.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")

_LOOK_INTERVAL_S = 0.1
# What the thread may still be waiting for: a broker that answers no more. It is a daemon, and ends with the process.
_LAST_WAIT_S = 5.0


class _End:
    """What a thread says last: that there is no more, or why."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


class Prefetched(Generic[Item]):
    """An iterator over what `source` yields, made early in a thread; `close()` ends it.

    `source` may yield None where it has nothing yet, which gives a thread that is to end the moment to do so; Nones are
    not passed on. An exception of `source` is raised where its item would have come.

    Args:
        source: the items.
        ahead: how many may wait.
        size: how large one is.
        ahead_size: how large all that wait may be together; one may always wait.
    """

    def __init__(
        self,
        source: Iterator[Item | None],
        ahead: int,
        size: Callable[[Item], int] = lambda item: 0,
        ahead_size: int = 0,
    ) -> None:
        self._ahead, self._size, self._ahead_size = ahead, size, ahead_size
        self._made: deque[Item | _End] = deque()
        self._made_size = 0
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, args=(source,), name="feedmill-prefetch", daemon=True)
        self._thread.start()

    def __iter__(self) -> Prefetched[Item]:
        return self

    def __next__(self) -> Item:
        with self._changed:
            # A thread that has ended, ended with an item of its own; only a closed one leaves nothing.
            while not self._made:
                if self._stop.is_set():
                    raise StopIteration
                self._changed.wait(_LOOK_INTERVAL_S)
            item = self._made.popleft()
            if not isinstance(item, _End):
                self._made_size -= self._size(item)
                self._changed.notify_all()
                return item
        self._stop.set()
        if item.error is not None:
            raise item.error
        raise StopIteration

    def close(self) -> None:
        """End the thread and wait for it."""
        self._stop.set()
        deadline = time.monotonic() + _LAST_WAIT_S
        while self._thread.is_alive() and time.monotonic() < deadline:
            with self._changed:
                self._changed.notify_all()
            self._thread.join(_LOOK_INTERVAL_S)

    def _work(self, source: Iterator[Item | None]) -> None:
        error: BaseException | None = None
        try:
            for item in source:
                if item is not None and not self._put(item, self._size(item)):
                    break
                if self._stop.is_set():
                    break
                # Not held while the next one is made.
                item = None
        except BaseException as caught:  # raised again where the items are taken
            error = caught
        finally:
            if hasattr(source, "close"):
                source.close()
        self._put(_End(error), 0)

    def _put(self, item: Item | _End, size: int) -> bool:
        with self._changed:
            while self._made and (len(self._made) >= self._ahead or self._made_size + size > self._ahead_size > 0):
                if self._stop.is_set():
                    return False
                self._changed.wait(_LOOK_INTERVAL_S)
            if self._stop.is_set():
                return False
            self._made.append(item)
            self._made_size += size
            self._changed.notify_all()
            return True
