"""Batch rows into records, by number of rows, bytes and time.

Takes rows as they arrive and yields batches; each batch is the value of one record. A record is sent when it is full,
or half a second after its first row arrived, so rows of an open pipe do not wait for a full record.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from schema.source_lines import LineRanges

# (line number in the file, one line of JSON).
Row = tuple[int, bytes]

# Short for a user who watches a pipe; long enough that a slow writer makes at most two records a second.
SEND_WITHIN_S = 0.5


@dataclass(frozen=True)
class LineBatch:
    """The content of one record: its rows, one per line, and their line numbers in the file."""

    value: bytes
    rows: int
    lines: LineRanges


class Batcher:
    """Collects rows into batches within limits.

    A batch holds at most `max_rows` rows and, joined, at most `max_bytes` bytes; a longer row is alone in its batch.
    The line numbers of a batch form no more ranges than the record's header can hold.
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
        """Return the seconds until the collected rows are due, 0 or less if they are due now; None without rows."""
        return self._began_s + SEND_WITHIN_S - self._clock() if self._lines else None

    def rest(self) -> Iterator[LineBatch]:
        """Yield the collected rows as a batch, if there are any."""
        if self._lines:
            batch = LineBatch(b"\n".join(self._lines), len(self._lines), self._ranges)
            self._lines, self._bytes, self._ranges = [], 0, LineRanges()
            yield batch
