"""How much memory the rows of a record take once decoded, read from what the record declares, before it is decoded.

A compressed record of some kilobytes can declare gigabytes. `declared_size` costs some microseconds, so every reader
can refuse such a record, and the refine stage can bound a group of records, before anything is allocated.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import polars as pl

from schema.errors import RecordError

# How an Arrow IPC stream begins.
STREAM_MARK = b"\xff\xff\xff\xff"
# A record read from a topic that only Feedmill writes may take this much; Feedmill writes far smaller ones.
DECODED_LIMIT_BYTES = 256 * 1024 * 1024
# A record that Feedmill writes takes at most this much once decoded, unless one row alone takes more.
WRITTEN_LIMIT_BYTES = 32 * 1024 * 1024

# Bytes of one value in memory; a string or a list is at least its view or its bounds.
_VIEW_BYTES = 16


class DeclaredSize(NamedTuple):
    """The rows that a record declares, and the bytes of memory that they take once decoded."""

    rows: int
    bytes: int


def declared_size(value: bytes | None, row_bytes: int = 0) -> DeclaredSize:
    """Return what a record declares: an Arrow stream its batches, anything else its lines. Decodes nothing.

    Takes some microseconds and raises nothing: an unsound stream counts as one row of its own length.

    Args:
        value: the record's bytes.
        row_bytes: memory that any row takes at least (`row_width` of a family's columns): absent columns are null in
            every row, so a row is never smaller.

    >>> declared_size(b'{"term": "0"}\\n{}\\n', row_bytes=100)
    DeclaredSize(rows=3, bytes=300)
    """
    data = value or b""
    if data[:4] == STREAM_MARK:
        is_sound, rows, size = _stream_sizes(data)
        if not is_sound:
            return DeclaredSize(1, max(len(data), row_bytes))
    else:
        rows, size = data.count(b"\n") + data.count(b"\r") + 1, len(data)
    return DeclaredSize(rows, max(size, rows * row_bytes))


def declared_bytes(value: bytes | None, row_bytes: int = 0) -> int:
    """Return the bytes of `declared_size`."""
    return declared_size(value, row_bytes).bytes


def check_stream(data: bytes, max_rows: int, max_bytes: int, row_bytes: int = 0) -> DeclaredSize:
    """Return what an Arrow stream declares.

    Raises:
        RecordError: `garbage` (not an Arrow stream), `too_many_rows` or `too_many_bytes`.
    """
    if data[:4] != STREAM_MARK:
        raise RecordError("garbage", "not an Arrow IPC stream")
    is_sound, rows, size = _stream_sizes(data)
    if not is_sound:
        raise RecordError("garbage", "not a whole Arrow IPC stream: its messages are malformed or cut off")
    if rows > max_rows:
        raise RecordError("too_many_rows", f"{rows} rows in one record, over {max_rows}: send smaller ones")
    size = max(size, rows * row_bytes)
    if size > max_bytes:
        raise RecordError("too_many_bytes", f"{size} bytes once decoded, over {max_bytes}: send smaller records")
    return DeclaredSize(rows, size)


def row_width(dtypes: Iterable[pl.DataType]) -> int:
    """Return the bytes that a row of columns of these types takes in memory at least."""
    return sum(_width(dtype) for dtype in dtypes)


def _width(dtype: pl.DataType) -> int:
    if isinstance(dtype, pl.Int8 | pl.UInt8 | pl.Boolean):
        return 1
    if isinstance(dtype, pl.Int32 | pl.UInt32 | pl.Float32):
        return 4
    if dtype.is_numeric() or dtype.is_temporal():
        return 8
    return _VIEW_BYTES


def _stream_sizes(data: bytes) -> tuple[bool, int, int]:
    # Compiled code takes half a second to import: commands that read no records do without.
    from schema.arrow_sizes import stream_sizes

    found: tuple[bool, int, int] = stream_sizes(np.frombuffer(data, dtype=np.uint8))
    return found
