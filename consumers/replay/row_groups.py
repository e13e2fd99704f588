"""Filter a replay's rows and write them in row groups of one size, whatever the sizes of the records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import polars as pl

from consumers.replay.formats import FrameWriter, JsonLines
from consumers.replay.sequence_rows import SequenceRows
from consumers.row_filter import RowFilter

# Rows in a Parquet row group or an Arrow batch, and compressed bytes read before rows are filtered.
_GROUP_ROWS = 32_768
_GROUP_BYTES = 4 * 1024 * 1024
# A sequence of 1,024 tokens takes as much memory as many rows.
_GROUP_SEQUENCES = 2_048


class RowGroups:
    """Gathers frames of `columns` and writes the rows that `row_filter` keeps, or their `sequences`.

    Attributes:
        written: rows and lines written so far.
        lines: written lines that are not rows.
        lines_left_out: lines left out because of the format or a filter.
    """

    def __init__(
        self,
        writer: FrameWriter,
        columns: Mapping[str, pl.DataType],
        row_filter: RowFilter | None = None,
        sequences: SequenceRows | None = None,
    ) -> None:
        self._writer = writer
        self._filter = row_filter
        self._empty = pl.DataFrame(schema=dict(columns))
        self._read: list[pl.DataFrame] = []
        self._read_rows = self._read_bytes = 0
        self._sequences = sequences
        self._group_rows = _GROUP_ROWS if sequences is None else _GROUP_SEQUENCES
        self._kept = self._empty if sequences is None else pl.DataFrame(schema=sequences.columns)
        self.written = self.lines = self.lines_left_out = 0

    def take(self, frame: pl.DataFrame, size_bytes: int) -> bool:
        """Add rows that took `size_bytes` in their records; return whether they were filtered and written."""
        self._read.append(frame)
        self._read_rows += frame.height
        self._read_bytes += size_bytes
        if self._read_rows < _GROUP_ROWS and self._read_bytes < _GROUP_BYTES:
            return False
        self._sift()
        return True

    def take_line(self, line: str) -> None:
        """Write a line that is not a row at its place, or count it as left out."""
        if self._filter is not None or not isinstance(self._writer, JsonLines):
            self.lines_left_out += 1
            return
        self.flush()
        self._writer.write_line(line)
        self.lines += 1
        self.written += 1

    def flush(self) -> None:
        """Write all gathered rows."""
        self._sift()
        self._write(self._kept)
        self._kept = self._kept[:0]

    def _sift(self) -> None:
        frame = pl.concat([self._empty, *self._read])
        if self._filter is not None:
            frame = frame.filter(self._filter.mask(frame))
        self._read, self._read_rows, self._read_bytes = [], 0, 0
        frames: Iterable[pl.DataFrame] = [frame] if self._sequences is None else self._sequences.of(frame)
        for made in frames:
            self._kept = pl.concat([self._kept, made])
            whole = self._kept.height - self._kept.height % self._group_rows
            self._write(self._kept[:whole])
            self._kept = self._kept[whole:]

    def _write(self, frame: pl.DataFrame) -> None:
        for group in frame.iter_slices(self._group_rows):
            self._writer.write(group)
        self.written += frame.height
