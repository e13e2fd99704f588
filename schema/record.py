"""The record form: a micro-batch as an Arrow IPC stream with zstd buffer compression, and its headers.

`encode` and `decode` are inverse; `decode` trusts nothing: any bytes give either a frame of the asked-for columns or a
`RecordError` with a stable reason code, so that a poisoned record ends in `rejected` and not in a crashed worker.
Its headers are those of `schema.envelope`, whose names can be imported from here, too.
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

RAW, CLEAN, REJECTED, LEDGER, REQUESTS = STAGES = ("raw", "clean", "rejected", "ledger", "requests")


# The fastest of zstd's ordinary levels: 12% larger than the default on reduction rows, in two thirds of the time.
_WRITE_OPTIONS = pa.ipc.IpcWriteOptions(compression=pa.Codec("zstd", compression_level=-1), use_threads=False)
_READ_OPTIONS = pa.ipc.IpcReadOptions(use_threads=False)
# A value in a frame, as a rule.
_LEAST_BYTES = 4
# Ours takes some 2 KB; a foreign one that is larger is read anew for every record.
_LARGEST_SCHEMA_BYTES = 64 * 1024


def encode(frame: pl.DataFrame) -> bytes:
    """Return `frame` as an Arrow IPC stream of one record batch, buffers compressed with zstd."""
    return _encode(to_table(frame))


def to_table(frame: pl.DataFrame) -> pa.Table:
    """Return `frame` as the Arrow table that a record holds; doing it once for many records is much cheaper."""
    return frame.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())


def encode_parts(
    table: pa.Table, max_rows: int, max_bytes: int, max_decoded_bytes: int = WRITTEN_LIMIT_BYTES
) -> Iterator[tuple[int, bytes]]:
    """Yield (rows, bytes) of stretches of `table`, in order.

    Each has at most `max_rows` rows and `max_bytes` bytes. Decoded it takes at most `max_decoded_bytes` bytes, unless
    one row alone takes more.

    Raises:
        UsageError: a single row is larger than `max_bytes`.
    """
    is_large = table.num_rows > 1 and table.nbytes > max_decoded_bytes
    for begin in range(0, table.num_rows, max_rows):
        piece = table.slice(begin, max_rows)
        # What compresses well would otherwise become a small record that no reader may decode.
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
    """Return the frame of a record, with exactly `columns` in order; absent ones are null, unknown ones dropped.

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
    """Return the Arrow table of a record, of its columns that are in `columns`, checked down to offsets and UTF-8.

    Its rows and bytes are bounded before anything is decompressed, by what the record declares. Arrow allocates what a
    buffer declares and refuses one that holds more or less. Dictionaries come back as plain columns.

    Args:
        data: the record's bytes.
        columns: names of the columns to read; others are not even decompressed.
        max_rows: rows that the record may hold.
        may_be_empty: whether a record without rows is sound.
        max_bytes: bytes that all its columns may take once decoded.
        row_bytes: bytes that each row counts for at least; 0 is four for each column.

    Raises:
        RecordError: `empty_record`, `garbage` (not Arrow, truncated, or inconsistent inside), `empty_batch` (unless
            it may be), `too_many_rows`, `too_many_bytes`, or `wrong_type` (a dictionary inside a list or struct).
    """
    if not data:
        raise RecordError("empty_record", "the record has no bytes")
    # Columns that the record lacks, or of nulls only, take memory all the same once they are read.
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
            raise RecordError("garbage", f"{table.num_rows} rows, which is not what the record declares")
    except (pa.ArrowException, ValueError, OSError, EOFError, MemoryError) as error:
        raise RecordError("garbage", f"not a whole Arrow IPC stream: {str(error)[:200]}") from error
    if table.num_rows == 0 and not may_be_empty:
        raise RecordError("empty_batch", "the batch has no rows")
    return plain_table(table, max_bytes) if has_expanding else table


def _reading(data: bytes, columns: Container[str]) -> tuple[pa.ipc.IpcReadOptions, bool]:
    """Return how to read a record so that other columns are not decompressed, and whether one read is expanding."""
    # An Arrow stream begins with a mark, the length of its schema, and the schema: the same in all records of a kind.
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
    """Return the Arrow schema of a record that `encode` makes of a frame of `columns`."""
    return pl.DataFrame(schema=dict(columns)).to_arrow(compat_level=pl.CompatLevel.oldest()).schema


def conform(table: pa.Table, columns: Mapping[str, pl.DataType], *, strict: bool = True) -> pl.DataFrame:
    """Return `table` as a frame of exactly `columns`: null where absent.

    Integers of another width and strings of another offset width are the same kind.

    Args:
        table: as `read_table` gives it.
        columns: the columns wanted, in order.
        strict: whether a number out of its column's range is an error; else it becomes null.

    Raises:
        RecordError: `wrong_type`: a type differs in kind, or a number is out of range.
    """
    names = set(table.schema.names)
    if len(names) != len(table.schema.names):
        raise RecordError("wrong_type", "two columns have one name")
    try:
        frame = pl.DataFrame(pl.from_arrow(table.select([name for name in columns if name in names])))
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


def _same_kind(found: pl.DataType, wanted: pl.DataType) -> bool:
    return (found.is_integer() and wanted.is_integer()) or (found.is_float() and wanted.is_float())
