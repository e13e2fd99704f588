"""Read Parquet files, Arrow files and Arrow streams as rows.

Takes an open file and a family; yields lists of `Row`, one batch at a time. Columns are taken by name: those of the
family's records and of its JSON form; other columns are ignored. Each row becomes a line of JSON, so a value of a wrong
type only causes that one row to be rejected. Row numbers count from 1.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from decimal import Decimal
from io import BytesIO
from typing import Any, BinaryIO

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from producers.ingest.batches import Row
from producers.ingest.kinds import Kind
from schema.errors import UsageError
from schema.family import Family
from schema.json_form import ID_COLUMNS, hex_digits

# Rows of a Parquet batch, or of a slice of an Arrow batch: a few MB as JSON.
_ROWS_AT_ONCE = 2048
# The texts of a slice together, unless one row has more. A dictionary of one long text can repeat it in every row.
_TEXT_BYTES_AT_ONCE = 16 * 1024 * 1024


def read_tables(stream: BinaryIO, kind: Kind, family: Family, name: str) -> Iterator[list[Row]]:
    """Yield the rows of a Parquet file, an Arrow file or an Arrow stream.

    Raises:
        UsageError: the file is damaged, has no column of the family, or has two columns of one name.
    """
    done = 0
    try:
        for batch in _batches(stream, kind, family, name):
            for part in _slices(batch):
                lines = json_rows(part)
                yield list(enumerate(lines, done + 1))
                done += len(lines)
    except MemoryError:
        raise
    except (pa.ArrowException, OSError, EOFError, ValueError) as error:
        reason = str(error).partition("\n")[0][:200]
        raise UsageError(
            f"{name} cannot be read as {kind.value} after row {done} ({reason}): write the file again, then ingest it"
        ) from None


def _batches(stream: BinaryIO, kind: Kind, family: Family, name: str) -> Iterator[pa.RecordBatch]:
    if kind is Kind.PARQUET:
        schema = pq.read_schema(stream)
        columns = _columns(schema, family, name)
        # Texts stay in their dictionary until a slice of them is read.
        texts = [column for column in columns if pa.types.is_string(schema.field(column).type)]
        file = pq.ParquetFile(stream, pre_buffer=False, read_dictionary=texts)
        yield from file.iter_batches(_ROWS_AT_ONCE, columns=columns, use_threads=False)
        return
    if kind is Kind.ARROW_STREAM:
        source: Any = pa.ipc.open_stream(stream)
        batches: Iterable[pa.RecordBatch] = source
    else:
        source = pa.ipc.open_file(stream)
        batches = (source.get_batch(number) for number in range(source.num_record_batches))
    columns = _columns(source.schema, family, name)
    for batch in batches:
        # A foreign batch may hold invalid offsets, so they are checked before use.
        batch.validate()
        yield batch.select(columns)


def _slices(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Yield the rows in slices of at most `_ROWS_AT_ONCE` rows and `_TEXT_BYTES_AT_ONCE` bytes of text."""
    sizes = np.zeros(batch.num_rows, dtype=np.int64)
    for column in batch.columns:
        if pa.types.is_dictionary(column.type) and _is_text(column.type.value_type):
            lengths = pc.binary_length(column.dictionary).take(column.indices)
        elif _is_text(column.type):
            lengths = pc.binary_length(column)
        else:
            continue
        sizes += pc.fill_null(lengths, 0).to_numpy(zero_copy_only=False)
    ends, begin = np.cumsum(sizes), 0
    while begin < batch.num_rows:
        before = int(ends[begin - 1]) if begin else 0
        fitting = int(np.searchsorted(ends, before + _TEXT_BYTES_AT_ONCE, side="right")) - begin
        rows = min(max(1, fitting), _ROWS_AT_ONCE)
        yield batch.slice(begin, rows)
        begin += rows


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _columns(schema: pa.Schema, family: Family, name: str) -> list[str]:
    """Return the file's columns that belong to the family's records or to its JSON form.

    Raises:
        UsageError: the file has no such column, or two of one name.
    """
    nested = family.nest(pl.DataFrame(schema=family.wire)).columns
    known = dict.fromkeys((*family.columns, *nested, "augmented_from"))
    columns = [column for column in schema.names if column in known and column not in ("example_id", "split")]
    if not columns:
        raise UsageError(
            f"{name} has no column of {family.name} (its columns are {', '.join(schema.names)[:200]}): rename them to "
            f"{', '.join(family.columns)}"
        )
    if len(set(columns)) != len(columns):
        raise UsageError(f"{name} has two columns of one name among {', '.join(columns)}: rename one")
    return columns


def json_rows(batch: pa.RecordBatch) -> list[bytes]:
    """Return each row as a JSON object on one line; ids are 16 hex digits because JSON numbers lose precision.

    A value without a JSON form becomes an object that names its type; a number that is not finite becomes `NaN` or
    `Infinity`. No column accepts these, so the refine stage rejects the row with the column's name.

    Raises:
        pa.ArrowInvalid: the batch is inconsistent.
    """
    names = batch.schema.names
    is_text = [_has_valid_text(column) for column in batch.columns]
    columns = [
        column.dictionary_decode() if pa.types.is_dictionary(column.type) else column for column in batch.columns
    ]
    if all(is_text) and all(map(_is_plain, columns)):
        frame = pl.DataFrame([_plain(name, column) for name, column in zip(names, columns, strict=True)])
        buffer = BytesIO()
        frame.write_ndjson(buffer)
        return buffer.getvalue().splitlines()
    values = [_objects(name, column) for name, column in zip(names, columns, strict=True)]
    return [
        json.dumps(dict(zip(names, row, strict=True)), default=_foreign).encode() for row in zip(*values, strict=True)
    ]


def _has_valid_text(column: pa.Array) -> bool:
    """Whether all texts are UTF-8; also checks the offsets and lengths that reading relies on.

    Raises:
        pa.ArrowInvalid: the column is inconsistent.
    """
    try:
        column.validate(full=True)
    except pa.ArrowInvalid as error:
        if "UTF8" not in str(error):
            raise
        return False
    return True


def _is_plain(column: pa.Array) -> bool:
    """Whether Polars writes the values without loss: JSON has a form for their type, and numbers are finite."""
    kind = column.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _is_plain(column.flatten())
    if pa.types.is_struct(kind):
        return all(map(_is_plain, column.flatten()))
    if pa.types.is_float32(kind) or pa.types.is_float64(kind):
        return pc.all(pc.is_finite(column)).as_py() is not False
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_integer(kind)
        or pa.types.is_null(kind)
    )


def _plain(name: str, column: pa.Array) -> pl.Series:
    series = pl.Series(name, pl.from_arrow(column))
    return hex_digits(series) if name in ID_COLUMNS and series.dtype == pl.UInt64 else series


def _objects(name: str, column: pa.Array) -> list[Any]:
    try:
        values: list[Any] = column.to_pylist()
    except (pa.ArrowException, ValueError, OverflowError):
        values = [_object(value) for value in column]
    if name in ID_COLUMNS:
        return [f"{value:016x}" if type(value) is int and value >= 0 else value for value in values]
    return values


def _object(value: pa.Scalar) -> Any:
    """Convert a single value, because some value of its column is unreadable (e.g. text that is not UTF-8)."""
    try:
        return value.as_py()
    except (pa.ArrowException, ValueError, OverflowError):
        return {"unreadable": str(value.type)}


def _foreign(value: object) -> object:
    return float(value) if isinstance(value, Decimal) else {"type": type(value).__name__}
