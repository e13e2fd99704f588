"""Make batches ahead in a thread while the training step computes.

Decoding, planning and padding release the interpreter's lock, so they overlap with a step that releases it, too.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")

_LOOK_INTERVAL_S = 0.1
# How long `close` waits for a thread that waits for a dead broker. The thread is a daemon and ends with the process.
_LAST_WAIT_S = 5.0


class _End:
    """The thread's last item: the end of the source, or the error that ended it."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


class Prefetched(Generic[Item]):
    """The items of `source`, made ahead in a thread; `close()` ends the thread.

    `source` may yield None while it has no item. Nones are not passed on; they let a closed thread end. An exception
    of `source` is raised in place of its item.

    Args:
        source: yields the items.
        ahead: how many items may wait.
        size: returns the size of an item.
        ahead_size: limit of the waiting items' sizes together; 0 for no limit. One item may always wait.
    """

    def __init__(
        self,
        source: Iterator[Item | None],
        ahead: int,
        size: Callable[[Item], int] = lambda item: 0,
        ahead_size: int = 0,
    ) -> None:
        self._ahead, self._size, self._ahead_size = ahead, size, ahead_size
        self._ready: deque[Item | _End] = deque()
        self._ready_size = 0
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, args=(source,), name="feedmill-prefetch", daemon=True)
        self._thread.start()

    def __iter__(self) -> Prefetched[Item]:
        return self

    def __next__(self) -> Item:
        with self._changed:
            # A thread that ends by itself leaves an `_End`; only a closed one leaves no item.
            while not self._ready:
                if self._stop.is_set():
                    raise StopIteration
                self._changed.wait(_LOOK_INTERVAL_S)
            item = self._ready.popleft()
            if not isinstance(item, _End):
                self._ready_size -= self._size(item)
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
                # Free this item while the next one is made.
                item = None
        except BaseException as caught:  # raised again where the items are taken
            error = caught
        finally:
            if hasattr(source, "close"):
                source.close()
        self._put(_End(error), 0)

    def _put(self, item: Item | _End, size: int) -> bool:
        with self._changed:
            while self._ready and (len(self._ready) >= self._ahead or self._ready_size + size > self._ahead_size > 0):
                if self._stop.is_set():
                    return False
                self._changed.wait(_LOOK_INTERVAL_S)
            if self._stop.is_set():
                return False
            self._ready.append(item)
            self._ready_size += size
            self._changed.notify_all()
            return True
