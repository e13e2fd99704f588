"""The memory that a record's rows take once decoded, as the record declares it.

A compressed record of a few kilobytes can declare gigabytes. `declared_size` takes a few microseconds and allocates
nothing. So every reader can refuse such a record, and the refine stage can limit a group of records, before decoding.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import polars as pl

from schema.errors import RecordError

# The first bytes of an Arrow IPC stream.
STREAM_MARK = b"\xff\xff\xff\xff"
# The limit for a record from a topic that only Feedmill writes; Feedmill writes far smaller records.
DECODED_LIMIT_BYTES = 256 * 1024 * 1024
# A record that Feedmill writes takes at most this much once decoded, unless one row alone takes more.
WRITTEN_LIMIT_BYTES = 32 * 1024 * 1024

# Memory of one string (its view) or list (its bounds) at least, in bytes.
_VIEW_BYTES = 16


class DeclaredSize(NamedTuple):
    """The rows that a record declares, and the bytes of memory that they take once decoded."""

    rows: int
    bytes: int


def declared_size(value: bytes | None, row_bytes: int = 0) -> DeclaredSize:
    """Return the rows and bytes that a record declares, without decoding the record.

    The rows are those of the batches in an Arrow stream, or the lines of anything else. Takes a few microseconds and
    raises nothing: a malformed stream counts as one row of its own length.

    Args:
        value: the record's bytes.
        row_bytes: the least memory of a row (`row_width` of a family's columns); absent columns are nulls in every row.

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
    """Return the rows and bytes that an Arrow stream declares, if they are within the limits.

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
    """Return the least memory of one row of columns of these types, in bytes."""
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
    # Compiled code takes half a second to import. Commands that read no records do not wait for it.
    from schema.declared_sizes import stream_sizes

    sizes: tuple[bool, int, int] = stream_sizes(np.frombuffer(data, dtype=np.uint8))
    return sizes
