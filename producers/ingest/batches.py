"""Rows -> records, by rows, bytes and time.

Takes rows as they arrive; gives batches of them, each of which is the value of one record. A record is sent when it is
full, or half a second after its first row arrived: rows of a pipe that stays open do not wait for a full record.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from schema.source_lines import LineRanges

# (number of its line, one line of JSON).
Row = tuple[int, bytes]

# Soon enough for somebody who watches a pipe; late enough that a slow writer makes two records a second at most.
SEND_WITHIN_S = 0.5


@dataclass(frozen=True)
class LineBatch:
    """What one record holds: its rows, a line each, and the numbers of their lines in the file."""

    value: bytes
    rows: int
    lines: LineRanges


class Batcher:
    """Gathers rows into batches within limits.

    A batch holds `max_rows` rows and, joined, `max_bytes` bytes at most, or one longer row alone. Its line numbers make
    no more ranges than the header for them may hold.
    """

    def __init__(self, max_rows: int, max_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_rows, self._max_bytes = max_rows, max_bytes
        self._clock = clock
        self._lines: list[bytes] = []
        self._bytes = 0
        self._ranges = LineRanges()
        self._began_s = 0.0

    def add(self, rows: list[Row]) -> Iterator[LineBatch]:
        """Take rows in order and yield the batches that they fill."""
        for number, line in rows:
            is_full = len(self._lines) == self._max_rows or self._bytes + len(line) > self._max_bytes
            if is_full or not self._ranges.fits(number):
                yield from self.rest()
            if not self._lines:
                self._began_s = self._clock()
            self._lines.append(line)
            self._bytes += len(line) + 1
            self._ranges.add(number)

    def due_in_s(self) -> float | None:
        """Return after how many seconds the rows at hand are to be sent, 0 or less if now; None without any."""
        return self._began_s + SEND_WITHIN_S - self._clock() if self._lines else None

    def rest(self) -> Iterator[LineBatch]:
        """Yield the rows at hand as a batch, if there are any."""
        if self._lines:
            batch = LineBatch(b"\n".join(self._lines), len(self._lines), self._ranges)
            self._lines, self._bytes, self._ranges = [], 0, LineRanges()
            yield batch
