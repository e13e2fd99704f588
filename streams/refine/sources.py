"""The source file and line of each row, carried from the raw record's headers to the rejected row.

A sender names file and lines in two headers (`schema.source_lines`). One record sent on to another raw partition holds
rows of many records, so there each row has two columns, `source_file` and `source_line`. Every rejected record has the
same two columns, null if the source is not known. The sender's claim is shown, never used.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from schema.envelope import HEADER_MAX_CHARS, ForeignHeaders
from schema.source_lines import parse_line_ranges

FILE_COLUMN, LINE_COLUMN = "source_file", "source_line"
SOURCE_COLUMNS: dict[str, pl.DataType] = {FILE_COLUMN: pl.String(), LINE_COLUMN: pl.Int64()}


@dataclass(frozen=True)
class RecordSource:
    """The source file and lines of the rows of one raw record.

    Attributes:
        file: the file of all rows; None if it is not known or differs between rows.
        lines: the line of each row; None if the lines are not known.
        columns: both columns, if the record carries them for each row.
    """

    file: str | None = None
    lines: Sequence[int] | None = None
    columns: pl.DataFrame | None = None

    @classmethod
    def of_headers(cls, headers: ForeignHeaders, rows: int) -> RecordSource:
        """Return the source that the headers of a record of `rows` rows name."""
        if headers.source_file is None and headers.lines is None:
            return UNKNOWN
        return cls(headers.source_file, None if headers.lines is None else parse_line_ranges(headers.lines, rows))

    @classmethod
    def of_columns(cls, table: pa.Table) -> RecordSource | None:
        """Return the source that the columns of a record name; None if the columns have wrong types."""
        columns = {}
        for name, dtype in SOURCE_COLUMNS.items():
            given = pl.Series(pl.from_arrow(table.column(name))) if name in table.schema.names else None
            columns[name] = pl.Series([None], dtype=dtype).new_from_index(0, table.num_rows) if given is None else given
            if columns[name].dtype != dtype:
                return None
        return cls(columns=pl.DataFrame(columns).with_columns(pl.col(FILE_COLUMN).str.slice(0, HEADER_MAX_CHARS)))

    def without(self, indices: Collection[int]) -> RecordSource:
        """Return the source of the rows that remain without `indices`."""
        if self.lines is None or not indices:
            return self
        kept = np.ones(len(self.lines), dtype=bool)
        kept[list(indices)] = False
        return RecordSource(self.file, np.array(self.lines, dtype=np.int64)[kept].tolist())


# Most records name no file.
UNKNOWN = RecordSource()


def with_sources(frame: pl.DataFrame, sources: Sequence[tuple[int, RecordSource]]) -> pl.DataFrame:
    """Return `frame` with the source columns; `sources` has (rows, source) of each record in order.

    If no record names a source, `frame` is returned as it is. That is the usual case.
    """
    if all(source is UNKNOWN for _, source in sources):
        return frame
    return frame.hstack(pl.concat([_columns(rows, source) for rows, source in sources]))


def _columns(rows: int, source: RecordSource) -> pl.DataFrame:
    if source.columns is not None:
        return source.columns
    lines: Any = [None] * rows if source.lines is None else source.lines
    file = pl.Series(FILE_COLUMN, [source.file], dtype=pl.String).new_from_index(0, rows)
    return pl.DataFrame([file, pl.Series(LINE_COLUMN, lines, dtype=pl.Int64)])


def sourced(frame: pl.DataFrame) -> list[str]:
    """Return the names of the source columns that `frame` has."""
    return [name for name in SOURCE_COLUMNS if name in frame.columns]
