"""A background thread that reads rows, so that the sender can also send by the clock while no row arrives.

Takes an iterator of lists of rows and passes them to another thread, which waits with a time limit. At most `_AHEAD`
lists are read ahead.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from types import TracebackType

from producers.ingest.batches import Row
from producers.ingest.streams import ReadingStopped

_AHEAD = 8
_END_TIMEOUT_S = 2.0


class BackgroundReader:
    """Reads `source` in its own thread while the context lasts.

    Args:
        source: yields lists of rows; only that thread reads it.
        stop: once set, the thread ends after the current list.
    """

    def __init__(self, source: Iterator[list[Row]], stop: threading.Event) -> None:
        self._source = source
        self._stop = stop
        self._left = threading.Event()
        self._queue: queue.Queue[list[Row] | BaseException | None] = queue.Queue(_AHEAD)
        self._thread = threading.Thread(target=self._read, name="ingest-reader", daemon=True)

    def __enter__(self) -> BackgroundReader:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._left.set()
        self._thread.join(_END_TIMEOUT_S)

    def take(self, timeout_s: float) -> list[Row] | None:
        """Return the next rows, an empty list if none arrived within `timeout_s`, or None at the end.

        Raises:
            Exception: the reading thread's error, after all rows read before it.
        """
        try:
            rows = self._queue.get(timeout=timeout_s)
        except queue.Empty:
            return []
        if isinstance(rows, BaseException):
            raise rows
        return rows

    def _read(self) -> None:
        try:
            for rows in self._source:
                self._put(rows)
                if self._stop.is_set() and self._left.is_set():
                    return
            self._put(None)
        except ReadingStopped:
            self._put(None)
        except BaseException as error:  # `take` raises it in the other thread
            self._put(error)

    def _put(self, item: list[Row] | BaseException | None) -> None:
        while not self._left.is_set():
            try:
                self._queue.put(item, timeout=0.1)
            except queue.Full:
                continue
            return
