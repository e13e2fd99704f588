"""Encode and decode records: a micro-batch is an Arrow IPC stream whose buffers are compressed with zstd.

`decode` is the inverse of `encode`, and it accepts any bytes. It returns a frame of the columns asked for or raises a
`RecordError` with a stable reason code. So a malformed record goes to `rejected` and crashes no worker. The names of
`schema.envelope`, which owns the headers, can be imported from this module too.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from functools import lru_cache

import polars as pl
import pyarrow as pa

from schema.arrow_types import is_expanding, plain_table
from schema.decoded_size import DECODED_LIMIT_BYTES, WRITTEN_LIMIT_BYTES, check_stream
from schema.envelope import ARROW_STREAM, JSON, SPEC_VERSION, Envelope, ForeignHeaders, Headers
from schema.errors import RecordError, UsageError

__all__ = [
    "ARROW_STREAM",
    "CLEAN",
    "JSON",
    "LEDGER",
    "RAW",
    "REJECTED",
    "REQUESTS",
    "RETRACTIONS",
    "SPEC_VERSION",
    "STAGES",
    "Envelope",
    "ForeignHeaders",
    "Headers",
    "arrow_schema",
    "conform",
    "decode",
    "encode",
    "encode_parts",
    "read_table",
    "to_table",
]

STAGES = ("raw", "clean", "rejected", "ledger", "requests", "retractions")
RAW, CLEAN, REJECTED, LEDGER, REQUESTS, RETRACTIONS = STAGES


# A fast level of zstd: reduction rows get 12% larger than at the default level, in two thirds of the time.
_WRITE_OPTIONS = pa.ipc.IpcWriteOptions(compression=pa.Codec("zstd", compression_level=-1), use_threads=False)
_READ_OPTIONS = pa.ipc.IpcReadOptions(use_threads=False)
# Memory of a typical value in a frame.
_LEAST_BYTES = 4
# Feedmill's schemas take about 2 KB. A schema above this size is not cached: it is read again for every record.
_LARGEST_SCHEMA_BYTES = 64 * 1024


def encode(frame: pl.DataFrame) -> bytes:
    """Return `frame` as an Arrow IPC stream of one record batch, buffers compressed with zstd."""
    return _encode(to_table(frame))


def to_table(frame: pl.DataFrame) -> pa.Table:
    """Return `frame` as the Arrow table for `encode_parts`; one conversion for many records is much cheaper."""
    return frame.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())


def encode_parts(
    table: pa.Table, max_rows: int, max_bytes: int, max_decoded_bytes: int = WRITTEN_LIMIT_BYTES
) -> Iterator[tuple[int, bytes]]:
    """Yield (number of rows, encoded bytes) of consecutive parts of `table`, in order.

    A part has at most `max_rows` rows and `max_bytes` bytes. Once decoded it takes at most `max_decoded_bytes` bytes,
    unless it is a single row.

    Raises:
        UsageError: a single row is larger than `max_bytes`.
    """
    is_large = table.num_rows > 1 and table.nbytes > max_decoded_bytes
    for begin in range(0, table.num_rows, max_rows):
        piece = table.slice(begin, max_rows)
        # Rows that compress well would otherwise become a small record that every reader refuses to decode.
        if is_large and piece.num_rows > 1 and piece.nbytes > max_decoded_bytes:
            yield from encode_parts(piece, (piece.num_rows + 1) // 2, max_bytes, max_decoded_bytes)
            continue
        data = _encode(piece)
        if len(data) <= max_bytes:
            yield piece.num_rows, data
        elif piece.num_rows == 1:
            raise UsageError(f"one row takes {len(data)} bytes, over the limit of {max_bytes}: shorten its texts")
        else:
            yield from encode_parts(piece, (piece.num_rows + 1) // 2, max_bytes, max_decoded_bytes)


def _encode(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=_WRITE_OPTIONS) as writer:
        writer.write_table(table.combine_chunks())
    return bytes(sink.getvalue())


def decode(
    data: bytes,
    columns: Mapping[str, pl.DataType],
    max_rows: int,
    *,
    may_be_empty: bool = False,
    max_bytes: int = DECODED_LIMIT_BYTES,
) -> pl.DataFrame:
    """Return a record as a frame of exactly `columns`, in order; absent columns are null, unknown ones are dropped.

    Raises:
        RecordError: as `read_table` and `conform`.
    """
    return conform(read_table(data, columns, max_rows, may_be_empty=may_be_empty, max_bytes=max_bytes), columns)


def read_table(
    data: bytes,
    columns: Container[str],
    max_rows: int,
    *,
    may_be_empty: bool = False,
    max_bytes: int = DECODED_LIMIT_BYTES,
    row_bytes: int = 0,
) -> pa.Table:
    """Return those columns of a record that are in `columns`, as an Arrow table with checked offsets and UTF-8.

    The declared rows and bytes are checked before anything is decompressed. Arrow allocates the declared size of a
    buffer and refuses a buffer that holds more or less. Dictionaries become plain columns.

    Args:
        data: the record's bytes.
        columns: names of the columns to read; other columns are not decompressed.
        max_rows: the most rows that the record may hold.
        may_be_empty: whether a record without rows is valid.
        max_bytes: the most bytes that its columns may take once decoded.
        row_bytes: the least bytes that a row counts for; 0 means four per column.

    Raises:
        RecordError: `empty_record`, `garbage` (not Arrow, truncated, or inconsistent inside), `empty_batch` (unless
            `may_be_empty`), `too_many_rows`, `too_many_bytes`, or `wrong_type` (a dictionary inside a list or struct).
        MemoryError: the process has too little memory for a record within the limits.
    """
    if not data:
        raise RecordError("empty_record", "the record has no bytes")
    # A column that is absent or holds only nulls still takes memory once it is read.
    least = row_bytes or (_LEAST_BYTES * len(columns) if isinstance(columns, Mapping) else _LEAST_BYTES)
    check_stream(data, max_rows, max_bytes, least)
    try:
        options, has_expanding = _reading(data, columns)
        reader = pa.ipc.open_stream(pa.BufferReader(data), options=options)
        batches = []
        for batch in reader:
            # Offsets and UTF-8 are checked before compiled code follows them.
            batch.validate(full=True)
            batches.append(batch)
        table = pa.Table.from_batches(batches, reader.schema)
        if table.num_rows > max_rows:
            raise RecordError("garbage", f"{table.num_rows} rows, more than the record declares")
    except MemoryError:
        # The declared size is within the limits, so the process is short of memory and the record is not at fault.
        raise
    except (pa.ArrowException, ValueError, OSError, EOFError) as error:
        raise RecordError("garbage", f"not a whole Arrow IPC stream: {str(error)[:200]}") from error
    if table.num_rows == 0 and not may_be_empty:
        raise RecordError("empty_batch", "the batch has no rows")
    return plain_table(table, max_bytes) if has_expanding else table


def _reading(data: bytes, columns: Container[str]) -> tuple[pa.ipc.IpcReadOptions, bool]:
    """Return options that read only `columns`, and whether `is_expanding` holds for one of these columns."""
    # An Arrow stream begins with a mark, the length of its schema, and the schema. All records of a kind share these.
    length = int.from_bytes(data[4:8], "little")
    if length <= _LARGEST_SCHEMA_BYTES and isinstance(columns, Mapping):
        return _reading_for(data[: 8 + length], tuple(columns))
    return _reading_for.__wrapped__(data, columns)


@lru_cache(maxsize=64)
def _reading_for(data: bytes, columns: Container[str]) -> tuple[pa.ipc.IpcReadOptions, bool]:
    fields = list(pa.ipc.open_stream(pa.BufferReader(data), options=_READ_OPTIONS).schema)
    wanted = [index for index, field in enumerate(fields) if field.name in columns]
    options = pa.ipc.IpcReadOptions(included_fields=wanted, use_threads=False)
    has_expanding = any(is_expanding(fields[index].type) for index in wanted)
    return (options if len(wanted) < len(fields) else _READ_OPTIONS), has_expanding


def arrow_schema(columns: Mapping[str, pl.DataType]) -> pa.Schema:
    """Return the Arrow schema of a record that `encode` makes from a frame of `columns`."""
    return pl.DataFrame(schema=dict(columns)).to_arrow(compat_level=pl.CompatLevel.oldest()).schema


def conform(table: pa.Table, columns: Mapping[str, pl.DataType], *, strict: bool = True) -> pl.DataFrame:
    """Return `table` as a frame of exactly `columns`; absent columns are null.

    Integers of another width and strings of another offset width are converted.

    Args:
        table: a result of `read_table`.
        columns: the columns wanted, in order.
        strict: whether a number out of its column's range is an error; if not, it becomes null.

    Raises:
        RecordError: `wrong_type`: a type differs in kind, or a number is out of range.
    """
    names = set(table.schema.names)
    if len(names) != len(table.schema.names):
        raise RecordError("wrong_type", "two columns have one name")
    try:
        frame = pl.DataFrame(pl.from_arrow(table.select([name for name in columns if name in names])))
    except MemoryError:
        raise
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, pa.ArrowException, ValueError) as error:
        raise RecordError("wrong_type", f"a column cannot be read: {str(error)[:200]}") from error
    if dict(frame.schema) == dict(columns):
        return frame
    casts = []
    for name, dtype in columns.items():
        if name not in frame.columns:
            casts.append(pl.lit(None, dtype=dtype).alias(name))
        elif frame.schema[name] == dtype:
            casts.append(pl.col(name))
        elif frame.schema[name] == pl.Null or _same_kind(frame.schema[name], dtype):
            casts.append(pl.col(name).cast(dtype, strict=strict))
        else:
            raise RecordError("wrong_type", f"column {name} is {frame.schema[name]}, not {dtype}")
    try:
        return frame.select(casts)
    except pl.exceptions.PolarsError as error:
        raise RecordError("wrong_type", f"a value is out of range: {str(error)[:200]}") from error


def _same_kind(actual: pl.DataType, wanted: pl.DataType) -> bool:
    return (actual.is_integer() and wanted.is_integer()) or (actual.is_float() and wanted.is_float())
