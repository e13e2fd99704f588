"""Batches made ahead in a thread of their own, while the training step computes.

Decoding, planning and padding let go of the interpreter's lock, so they overlap with a step that does so as well.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
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
    """An iterator over what `source` yields, up to `ahead` items early, made in a thread; `close()` ends it.

    `source` may yield None where it has nothing yet, which gives a thread that is to end the moment to do so; Nones are
    not passed on. An exception of `source` is raised where its item would have come.
    """

    def __init__(self, source: Iterator[Item | None], ahead: int) -> None:
        self._made: queue.Queue[Item | _End] = queue.Queue(maxsize=ahead)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, args=(source,), name="feedmill-prefetch", daemon=True)
        self._thread.start()

    def __iter__(self) -> Prefetched[Item]:
        return self

    def __next__(self) -> Item:
        while True:
            try:
                item = self._made.get(timeout=_LOOK_INTERVAL_S)
            except queue.Empty:
                # A thread that has ended, ended with an item of its own; only a closed one leaves nothing.
                if self._stop.is_set():
                    raise StopIteration from None
                continue
            if not isinstance(item, _End):
                return item
            self._stop.set()
            if item.error is not None:
                raise item.error
            raise StopIteration

    def close(self) -> None:
        """End the thread and wait for it."""
        self._stop.set()
        self._thread.join(_LAST_WAIT_S)

    def _work(self, source: Iterator[Item | None]) -> None:
        error: BaseException | None = None
        try:
            for item in source:
                if item is not None and not self._put(item):
                    break
                if self._stop.is_set():
                    break
        except BaseException as caught:  # raised again where the items are taken
            error = caught
        finally:
            if hasattr(source, "close"):
                source.close()
        self._put(_End(error))

    def _put(self, item: Item | _End) -> bool:
        while not self._stop.is_set():
            try:
                self._made.put(item, timeout=_LOOK_INTERVAL_S)
            except queue.Full:
                continue
            return True
        return False
