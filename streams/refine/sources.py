"""Which line of which file a row came from, from the headers of its raw record to the rejected row.

A sender says it in two headers (`schema.source_lines`). Rows that are sent on to another partition of raw carry it as
two columns, `source_file` and `source_line`, because one record then holds rows of many. The same two columns are in
every rejected record, null where nothing is known. All of it is a claim of the sender's: it is shown, never used.
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
    """Where the rows of one raw record came from.

    Attributes:
        file: the file of all of them; None where it is not known or differs.
        lines: the line of each row; None where they are not known.
        columns: both columns, where the record carries them for each row.
    """

    file: str | None = None
    lines: Sequence[int] | None = None
    columns: pl.DataFrame | None = None

    @classmethod
    def of_headers(cls, headers: ForeignHeaders, rows: int) -> RecordSource:
        """Return what the headers of a record of so many rows say."""
        if headers.source_file is None and headers.lines is None:
            return UNKNOWN
        return cls(headers.source_file, None if headers.lines is None else parse_line_ranges(headers.lines, rows))

    @classmethod
    def of_columns(cls, table: pa.Table) -> RecordSource | None:
        """Return what the columns of a record say; None where they are not of the types that they should be."""
        columns = {}
        for name, dtype in SOURCE_COLUMNS.items():
            found = pl.Series(pl.from_arrow(table.column(name))) if name in table.schema.names else None
            columns[name] = pl.Series([None], dtype=dtype).new_from_index(0, table.num_rows) if found is None else found
            if columns[name].dtype != dtype:
                return None
        return cls(columns=pl.DataFrame(columns).with_columns(pl.col(FILE_COLUMN).str.slice(0, HEADER_MAX_CHARS)))

    def without(self, indices: Collection[int]) -> RecordSource:
        """Return the source of the rows that are left without these."""
        if self.lines is None or not indices:
            return self
        kept = np.ones(len(self.lines), dtype=bool)
        kept[list(indices)] = False
        return RecordSource(self.file, np.array(self.lines, dtype=np.int64)[kept].tolist())


# Most records name no file.
UNKNOWN = RecordSource()


def with_sources(frame: pl.DataFrame, sources: Sequence[tuple[int, RecordSource]]) -> pl.DataFrame:
    """Return the rows of some records, given each one's rows and source, with the source columns.

    A frame of which nothing is known is returned as it is: most are.
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
