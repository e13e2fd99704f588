"""Write the files of a replay: JSON lines, Parquet and Arrow IPC.

The same frames in the same order give the same bytes: no file holds a time, a path or a name of this machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from schema.errors import UsageError

ENDINGS = (".jsonl", ".parquet", ".arrow")


class FrameWriter(Protocol):
    """Writes frames of one schema, one after another."""

    def write(self, frame: pl.DataFrame) -> None:
        """Append the rows of `frame`."""
        ...

    def close(self) -> None:
        """Finish the file; the stream stays open."""
        ...


class JsonLines:
    """One JSON object per line.

    Args:
        stream: where the lines go.
        lines: returns a frame's rows as lines, each ended by a newline.
    """

    def __init__(self, stream: BinaryIO, lines: Callable[[pl.DataFrame], bytes]) -> None:
        self._stream = stream
        self._lines = lines

    def write(self, frame: pl.DataFrame) -> None:
        """Append the rows of `frame`."""
        self._stream.write(self._lines(frame))

    def write_line(self, line: str) -> None:
        """Append one line that is not a row, such as a dead letter."""
        self._stream.write(line.encode() + b"\n")

    def close(self) -> None:
        """Do nothing: a file of lines needs no ending."""


class ArrowTables:
    """Parquet or Arrow IPC: every frame written is one row group or batch, buffers compressed with zstd."""

    def __init__(self, open_writer: Callable[[pa.Schema], Any], columns: Mapping[str, pl.DataType]) -> None:
        self._writer = open_writer(_table(pl.DataFrame(schema=dict(columns))).schema)

    def write(self, frame: pl.DataFrame) -> None:
        """Append the rows of `frame`."""
        self._writer.write_table(_table(frame))

    def close(self) -> None:
        """Write the footer."""
        self._writer.close()


def open_writer(
    path: Path, stream: BinaryIO, columns: Mapping[str, pl.DataType], lines: Callable[[pl.DataFrame], bytes]
) -> FrameWriter:
    """Return the writer onto `stream` for the format that the ending of `path` names.

    Raises:
        UsageError: no format has that ending.
    """
    match ending(path):
        case ".parquet":
            return ArrowTables(lambda schema: pq.ParquetWriter(stream, schema, compression="zstd"), columns)
        case ".arrow":
            options = pa.ipc.IpcWriteOptions(compression="zstd")
            return ArrowTables(lambda schema: pa.ipc.new_file(stream, schema, options=options), columns)
        case _:
            return JsonLines(stream, lines)


def ending(path: Path) -> str:
    """Return the ending of `path`, which names its format.

    Raises:
        UsageError: no format has that ending.
    """
    if path.suffix not in ENDINGS:
        raise UsageError(f"no format is known for {path.name!r}: end the name in {', '.join(ENDINGS)}")
    return path.suffix


def _table(frame: pl.DataFrame) -> pa.Table:
    return frame.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
