"""The record form: a micro-batch as an Arrow IPC stream with zstd buffer compression, and its headers.

`encode` and `decode` are inverse; `decode` trusts nothing: any bytes give either a frame of the asked-for columns or a
`RecordError` with a stable reason code, so that a poisoned record ends in `rejected` and not in a crashed worker.
Headers follow CloudEvents binary mode; ours begin `feedmill-`. Records that came from a file also say which lines of it
they hold (`feedmill-source-file`, `feedmill-lines`): see `schema.source_lines`.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

import polars as pl
import pyarrow as pa

from schema.arrow_types import is_expanding, plain_table
from schema.decoded_size import DECODED_LIMIT_BYTES, WRITTEN_LIMIT_BYTES, check_stream
from schema.errors import RecordError, UsageError

ARROW_STREAM = "application/vnd.apache.arrow.stream"
JSON = "application/json"
SPEC_VERSION = "1.0"

RAW, CLEAN, REJECTED, LEDGER, REQUESTS = STAGES = ("raw", "clean", "rejected", "ledger", "requests")

Headers = Sequence[tuple[str, bytes]]

# The fastest of zstd's ordinary levels: 12% larger than the default on reduction rows, in two thirds of the time.
_WRITE_OPTIONS = pa.ipc.IpcWriteOptions(compression=pa.Codec("zstd", compression_level=-1), use_threads=False)
_READ_OPTIONS = pa.ipc.IpcReadOptions(use_threads=False)
# Ours takes some 2 KB; a foreign one that is larger is read anew for every record.
_LARGEST_SCHEMA_BYTES = 64 * 1024

_CE_TYPE = re.compile(r"feedmill\.(?P<family>[a-z_]+)\.(?P<stage>[a-z]+)\.v(?P<version>[0-9]{1,6})")


@dataclass(frozen=True)
class Envelope:
    """What a Feedmill record says of itself in its headers.

    `run`, `chunk` and `part` make the CloudEvents id; `source` is `topic/partition/offset` on refined records.
    """

    family: str
    stage: str
    version: int
    run: str
    chunk: int
    part: int | str
    rows: int
    source: str | None = None

    def headers(self) -> list[tuple[str, bytes]]:
        """Return the Kafka headers, in a fixed order, UTF-8."""
        values = {
            "ce_specversion": SPEC_VERSION,
            "ce_id": f"{self.run}/{self.chunk}/{self.part}",
            "ce_type": f"feedmill.{self.family}.{self.stage}.v{self.version}",
            "ce_source": f"feedmill/{self.family}",
            "ce_time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "content-type": ARROW_STREAM,
            "feedmill-run": self.run,
            "feedmill-chunk": str(self.chunk),
            "feedmill-rows": str(self.rows),
        }
        if self.source is not None:
            values["feedmill-source"] = self.source
        return [(name, value.encode()) for name, value in values.items()]


@dataclass(frozen=True)
class ForeignHeaders:
    """The headers of a record as read, whoever wrote it: all optional, none trusted.

    A record `says_empty` whose headers speak of no rows: it stands for itself, as a call to a model without an answer.
    """

    content_type: str
    ce_type: tuple[str, str, int] | None
    run: str | None
    chunk: int | None
    says_empty: bool = False

    @classmethod
    def parse(cls, headers: Iterable[tuple[str, bytes | None]] | None) -> ForeignHeaders:
        """Read `headers`; undecodable values read as absent.

        Raises:
            RecordError: `malformed_ce_type` where a ce_type is present and not of Feedmill's form.
        """
        texts = {name: value.decode("utf-8", "replace") for name, value in headers or () if value is not None}
        ce_type = None
        if "ce_type" in texts:
            match = _CE_TYPE.fullmatch(texts["ce_type"])
            if match is None:
                raise RecordError("malformed_ce_type", f"ce_type {texts['ce_type'][:80]!r} is not Feedmill's")
            ce_type = (match["family"], match["stage"], int(match["version"]))
        chunk = texts.get("feedmill-chunk", "")
        return cls(
            content_type=texts.get("content-type", JSON).partition(";")[0].strip().lower(),
            ce_type=ce_type,
            run=texts.get("feedmill-run"),
            chunk=int(chunk) if re.fullmatch(r"[0-9]{1,18}", chunk) else None,
            says_empty=texts.get("feedmill-rows") == "0",
        )


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
        row_bytes: bytes that each row counts for at least.

    Raises:
        RecordError: `empty_record`, `garbage` (not Arrow, truncated, or inconsistent inside), `empty_batch` (unless
            it may be), `too_many_rows`, `too_many_bytes`, or `wrong_type` (a dictionary inside a list or struct).
    """
    if not data:
        raise RecordError("empty_record", "the record has no bytes")
    check_stream(data, max_rows, max_bytes, row_bytes)
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


def conform(table: pa.Table, columns: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """Return `table` as a frame of exactly `columns`: null where absent, `wrong_type` where a type differs in kind.

    Integers of another width and strings of another offset width are the same kind; values out of range are not.
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
            casts.append(pl.col(name).cast(dtype, strict=True))
        else:
            raise RecordError("wrong_type", f"column {name} is {frame.schema[name]}, not {dtype}")
    try:
        return frame.select(casts)
    except pl.exceptions.PolarsError as error:
        raise RecordError("wrong_type", f"a value is out of range: {str(error)[:200]}") from error


def _same_kind(found: pl.DataType, wanted: pl.DataType) -> bool:
    return (found.is_integer() and wanted.is_integer()) or (found.is_float() and wanted.is_float())
