"""Intake: the bytes of raw records -> one frame of rows, and dead letters for what cannot become rows.

Arrow micro-batches are read as they are. JSON (one object, or NDJSON) is judged line by line: each line that is an
object of the family's types becomes a row, each other line a dead letter of its own. A record of which nothing can be
read is one dead letter holding its original bytes. Nothing here raises for what a producer may have sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import groupby

import numpy as np
import polars as pl
import pyarrow as pa

from schema.decoded_size import row_width
from schema.errors import RecordError
from schema.family import Family
from schema.json_rows import lines_of, read_lines
from schema.record import ARROW_STREAM, JSON, RAW, ForeignHeaders, Headers, arrow_schema, conform, read_table
from schema.registry import FAMILIES
from streams.refine.row_size import lengths, row_bytes


@dataclass(frozen=True)
class RawRecord:
    """One record of a raw topic as fetched; `time_ms` is the broker's timestamp, milliseconds since the epoch."""

    topic: str
    partition: int
    offset: int
    time_ms: int
    value: bytes | None
    headers: Headers = ()


@dataclass(frozen=True)
class Limits:
    """What one raw record may hold.

    Attributes:
        record_bytes: its bytes as sent.
        rows: its rows.
        row_bytes: the bytes of text in one row.
        decoded_bytes: the memory that its rows take once decoded.
    """

    record_bytes: int
    rows: int
    row_bytes: int
    decoded_bytes: int


@dataclass(frozen=True)
class DeadLetter:
    """Bytes that could not become rows: one row of the accounts, with the reason it counts under."""

    record: int  # index of its raw record in the group
    reason: str
    message: str
    value: bytes


@dataclass
class Intake:
    """A group of raw records, read.

    Attributes:
        frame: all rows in order; column `record` (UInt32) is the index of the row's raw record in the group.
        dead: what could not be read.
        runs, chunks: what each record's headers say of its producer run, by record index.
    """

    frame: pl.DataFrame
    dead: list[DeadLetter] = field(default_factory=list)
    runs: list[str | None] = field(default_factory=list)
    chunks: list[int | None] = field(default_factory=list)


def read_group(records: Sequence[RawRecord], family: Family, limits: Limits) -> Intake:
    """Read a group of raw records of one family."""
    result = Intake(pl.DataFrame())
    pieces: list[_Piece] = []
    for index, record in enumerate(records):
        try:
            headers = ForeignHeaders.parse(record.headers)
            result.runs.append(headers.run)
            result.chunks.append(headers.chunk)
        except RecordError as error:
            result.runs.append(None)
            result.chunks.append(None)
            result.dead.append(DeadLetter(index, error.reason, str(error), record.value or b""))
            continue
        try:
            rows, dead = _read(record.value or b"", headers, family, limits)
        except RecordError as error:
            result.dead.append(DeadLetter(index, error.reason, str(error), record.value or b""))
            continue
        pieces.append(_Piece(index, rows))
        result.dead.extend(DeadLetter(index, letter.reason, letter.message, letter.value) for letter in dead)
    result.frame = _joined(pieces, family)
    _refuse_large_rows(result, records, family, limits.row_bytes)
    return result


@dataclass(frozen=True)
class _Piece:
    """The rows of one raw record: an Arrow table as it came where that is in the family's own form, else a frame."""

    record: int
    rows: pa.Table | pl.DataFrame


def _joined(pieces: Sequence[_Piece], family: Family) -> pl.DataFrame:
    """Return all rows in order with their `record`; neighbouring Arrow tables are turned into one frame at once."""
    frames = [pl.DataFrame(schema={**family.wire, "record": pl.UInt32()})]
    for is_arrow, run in groupby(pieces, key=lambda piece: isinstance(piece.rows, pa.Table)):
        neighbours = list(run)
        if is_arrow:
            frame = pl.DataFrame(pl.from_arrow(pa.concat_tables([piece.rows for piece in neighbours])))
        else:
            frame = pl.concat([piece.rows for piece in neighbours])
        heights = [len(piece.rows) for piece in neighbours]
        record = np.repeat(np.array([piece.record for piece in neighbours], dtype=np.uint32), heights)
        frames.append(frame.with_columns(record=pl.Series(record)))
    return pl.concat(frames)


def _refuse_large_rows(intake: Intake, records: Sequence[RawRecord], family: Family, limit: int) -> None:
    """Turn records that hold a row with more than `limit` bytes of text into dead letters.

    A small record can hold a large row, compressed; one that no record of ours could carry on is answered for whole.
    """
    each = lengths(family)
    longest = intake.frame.select(length.max() for length in each)
    if not intake.frame.height or longest.sum_horizontal().item() <= limit:
        return
    widest = intake.frame.group_by("record", maintain_order=True).agg(row_bytes(family).max().alias("bytes"))
    for index, found in widest.filter(pl.col("bytes") > limit).iter_rows():
        message = f"a row holds {found} bytes of text, over {limit}"
        intake.dead.append(DeadLetter(index, "row_too_large", message, records[index].value or b""))
        intake.frame = intake.frame.filter(pl.col("record") != index)


@lru_cache
def least_row_bytes(family: Family) -> int:
    """Return the bytes of memory that any row of a family takes at least, however empty it is."""
    return row_width(family.wire.values())


@lru_cache
def _own_form(family: Family) -> pa.Schema:
    return arrow_schema(family.wire)


def _read(
    value: bytes, headers: ForeignHeaders, family: Family, limits: Limits
) -> tuple[pa.Table | pl.DataFrame, list[DeadLetter]]:
    if len(value) > limits.record_bytes:
        raise RecordError("record_too_large", f"{len(value)} bytes, over {limits.record_bytes}: send smaller records")
    _check_type(headers, family)
    if headers.content_type == ARROW_STREAM:
        table = read_table(
            value,
            family.wire,
            limits.rows,
            may_be_empty=headers.says_empty,
            max_bytes=limits.decoded_bytes,
            row_bytes=least_row_bytes(family),
        )
        return (table if table.schema.equals(_own_form(family)) else conform(table, family.wire)), []
    if headers.content_type in (JSON, "application/x-ndjson"):
        return _read_json(value, family, limits)
    raise RecordError("unknown_content_type", f"content-type {headers.content_type[:80]!r} is neither Arrow nor JSON")


def _check_type(headers: ForeignHeaders, family: Family) -> None:
    if headers.ce_type is None:
        return
    name, stage, version = headers.ce_type
    if name not in FAMILIES:
        raise RecordError("unknown_family", f"no family is named {name!r}")
    if (name, stage) != (family.name, RAW):
        raise RecordError("wrong_topic", f"a {name}.{stage} record stands on {family.name}.{RAW}")
    if version != family.version:
        raise RecordError(
            "unknown_schema_version", f"version {version} of {name} is not known here (this is {family.version})"
        )


def _read_json(value: bytes, family: Family, limits: Limits) -> tuple[pl.DataFrame, list[DeadLetter]]:
    """Return (rows, dead letters with record index 0) of one JSON object or of NDJSON lines.

    Raises:
        RecordError: no line of it can be read (`empty_record`, `not_json`, `not_an_object`, `wrong_type`), or it has
            too many lines (`too_many_rows`, `too_many_bytes`).
    """
    if not value.strip():
        raise RecordError("empty_record", "the record has no bytes")
    lines = lines_of(value)
    if len(lines) > limits.rows:
        raise RecordError("too_many_rows", f"{len(lines)} lines in one record, over {limits.rows}: send smaller ones")
    size = len(lines) * least_row_bytes(family)
    if size > limits.decoded_bytes:
        raise RecordError("too_many_bytes", f"{size} bytes once read, over {limits.decoded_bytes}: send fewer lines")
    rows, others = read_lines(lines, family)
    if rows.is_empty():
        raise RecordError(others[0].reason, others[0].message)
    return rows, [DeadLetter(0, other.reason, other.message, other.line) for other in others]
