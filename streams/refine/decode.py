"""Decode raw records: one frame of rows, and dead letters for the bytes that are no rows.

Arrow micro-batches are read as they are. JSON (one object, or NDJSON) is read line by line: each line that is an object
of the family's types becomes a row. The other lines of a record share one dead letter for each reason, which counts one
row for each line. A record that cannot be split into lines is one dead letter of one row, with its original bytes. In
Arrow micro-batches, numbers become null if they are not finite or out of their column's range. Invalid bytes from a
producer never raise an error here.
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
from schema.json_rows import NoRow, lines_of, read_lines
from schema.record import ARROW_STREAM, JSON, RAW, ForeignHeaders, Headers, arrow_schema, conform, read_table
from schema.registry import FAMILIES
from schema.source_lines import RANGES_MAX
from streams.refine.numbers import finite
from streams.refine.row_size import lengths, row_bytes
from streams.refine.sources import SOURCE_COLUMNS, UNKNOWN, RecordSource, with_sources


@dataclass(frozen=True)
class RawRecord:
    """One fetched record of a raw topic.

    Attributes:
        time_ms: its timestamp as sent, in milliseconds since the epoch.
        follows: no committed record lies between this offset and the record's own; None if that is not known.
    """

    topic: str
    partition: int
    offset: int
    time_ms: int
    value: bytes | None
    headers: Headers = ()
    key: bytes | None = None
    follows: int | None = None


@dataclass(frozen=True)
class RecordLimits:
    """Size limits of one raw record.

    Attributes:
        record_bytes: bytes of the record as sent.
        rows: rows of the record.
        row_bytes: bytes of text in one row.
        decoded_bytes: bytes of memory that the decoded rows take.
    """

    record_bytes: int
    rows: int
    row_bytes: int
    decoded_bytes: int


@dataclass(frozen=True)
class DeadLetter:
    """Bytes of one raw record that are no rows, all for one reason.

    Attributes:
        record: the index of its raw record in the group.
        reason, message: the reason code that its rows count under, and a sentence for people.
        value: the original bytes; lines are joined by newlines.
        rows: how many rejected rows it counts as.
        lines: the numbers of its lines in the sender's file; None if they are not known.
    """

    record: int
    reason: str
    message: str
    value: bytes
    rows: int = 1
    lines: Sequence[int] | None = None


@dataclass
class Intake:
    """A group of raw records after decoding.

    Attributes:
        frame: all rows in order; column `record` (UInt32) is the index of the row's raw record in the group. If any
            record names the lines of its file, the frame also has `source_file` and `source_line`.
        dead: the bytes that are no rows.
        runs, chunks: producer run and chunk from each record's headers, by record index.
    """

    frame: pl.DataFrame
    dead: list[DeadLetter] = field(default_factory=list)
    runs: list[str | None] = field(default_factory=list)
    chunks: list[int | None] = field(default_factory=list)


def read_group(records: Sequence[RawRecord], family: Family, limits: RecordLimits) -> Intake:
    """Decode a group of raw records of one family."""
    result = Intake(pl.DataFrame())
    pieces: list[_Piece] = []
    for index, record in enumerate(records):
        run, chunk = None, None
        try:
            headers = ForeignHeaders.parse(record.headers)
            run, chunk = headers.run, headers.chunk
            piece = _read(index, record.value or b"", headers, family, limits)
        except RecordError as error:
            result.dead.append(DeadLetter(index, error.reason, str(error), record.value or b""))
        else:
            result.dead.extend(piece.dead)
            if len(piece.rows):
                pieces.append(piece)
        result.runs.append(run)
        result.chunks.append(chunk)
    result.frame = finite(_joined(pieces, family), family)
    _refuse_large_rows(result, records, family, limits.row_bytes)
    return result


@dataclass(frozen=True)
class _Piece:
    """The rows of one raw record: an Arrow table if its schema is the family's own, else a frame."""

    record: int
    rows: pa.Table | pl.DataFrame
    source: RecordSource = UNKNOWN
    dead: Sequence[DeadLetter] = ()


def _joined(pieces: Sequence[_Piece], family: Family) -> pl.DataFrame:
    """Return all rows in order with their `record`; neighbouring Arrow tables become one frame in one step."""
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
    return with_sources(pl.concat(frames), [(len(piece.rows), piece.source) for piece in pieces])


def _refuse_large_rows(intake: Intake, records: Sequence[RawRecord], family: Family, limit: int) -> None:
    """Turn each record with a row of more than `limit` bytes of text into a dead letter that counts all its rows.

    A small compressed record can hold a row that is too large for the records that the refine stage sends.
    """
    each = lengths(family)
    longest = intake.frame.select(length.max() for length in each)
    if not intake.frame.height or longest.sum_horizontal().item() <= limit:
        return
    widest = intake.frame.group_by("record", maintain_order=True).agg(
        row_bytes(family).max().alias("bytes"), pl.len().alias("rows")
    )
    for index, size, rows in widest.filter(pl.col("bytes") > limit).iter_rows():
        message = f"a row holds {size} bytes of text, over {limit}"
        # Lines that are no rows already have letters; this letter replaces those and counts their rows.
        rows += sum(letter.rows for letter in intake.dead if letter.record == index)
        intake.dead = [letter for letter in intake.dead if letter.record != index]
        intake.dead.append(DeadLetter(index, "row_too_large", message, records[index].value or b"", rows))
        intake.frame = intake.frame.filter(pl.col("record") != index)


@lru_cache
def least_row_bytes(family: Family) -> int:
    """Return the bytes of memory that any row of a family takes at least, even an empty one."""
    return row_width(family.wire.values())


@lru_cache
def _own_form(family: Family) -> pa.Schema:
    return arrow_schema(family.wire)


def _read(index: int, value: bytes, headers: ForeignHeaders, family: Family, limits: RecordLimits) -> _Piece:
    """Decode one raw record.

    Raises:
        RecordError: no part of the record can be read.
    """
    if len(value) > limits.record_bytes:
        raise RecordError("record_too_large", f"{len(value)} bytes, over {limits.record_bytes}: send smaller records")
    _check_type(headers, family)
    if headers.content_type == ARROW_STREAM:
        return _read_arrow(index, value, headers, family, limits)
    if headers.content_type in (JSON, "application/x-ndjson"):
        return _read_json(index, value, headers, family, limits)
    raise RecordError("unknown_content_type", f"content-type {headers.content_type[:80]!r} is neither Arrow nor JSON")


def _read_arrow(index: int, value: bytes, headers: ForeignHeaders, family: Family, limits: RecordLimits) -> _Piece:
    table = read_table(
        value,
        _read_columns(family),
        limits.rows,
        may_be_empty=headers.says_empty,
        max_bytes=limits.decoded_bytes,
        row_bytes=least_row_bytes(family),
    )
    source = RecordSource.of_headers(headers, table.num_rows)
    names = table.schema.names
    if any(name in names for name in SOURCE_COLUMNS):
        source = RecordSource.of_columns(table) or source
        table = table.drop_columns([name for name in SOURCE_COLUMNS if name in names])
    rows = table if table.schema.equals(_own_form(family)) else conform(table, family.wire, strict=False)
    return _Piece(index, rows, source)


@lru_cache
def _read_columns(family: Family) -> dict[str, pl.DataType]:
    return {**family.wire, **SOURCE_COLUMNS}


def _check_type(headers: ForeignHeaders, family: Family) -> None:
    if headers.ce_type is None:
        return
    name, stage, version = headers.ce_type
    if name not in FAMILIES:
        raise RecordError("unknown_family", f"no family is named {name!r}")
    if (name, stage) != (family.name, RAW):
        raise RecordError("wrong_topic", f"a {name}.{stage} record is on {family.name}.{RAW}")
    if version != family.version:
        raise RecordError(
            "unknown_schema_version", f"version {version} of {name} is not known here (this is {family.version})"
        )


def _read_json(index: int, value: bytes, headers: ForeignHeaders, family: Family, limits: RecordLimits) -> _Piece:
    """Decode one JSON object, or NDJSON lines.

    Raises:
        RecordError: the record has no lines (`empty_record`), is not text (`not_json`), or is JSON but not an object
            (`not_an_object`).
    """
    if not value.strip():
        raise RecordError("empty_record", "the record has no bytes")
    lines = lines_of(value)
    source = RecordSource.of_headers(headers, len(lines))
    fault = _too_many(len(lines), family, limits)
    if fault is not None:
        letter = DeadLetter(index, fault.reason, str(fault), value, len(lines))
        return _Piece(index, pl.DataFrame(schema=family.wire), dead=[letter])
    rows, others = read_lines(lines, family)
    if rows.is_empty() and all(other.reason == "not_json" for other in others) and not _is_text(value):
        raise RecordError("not_json", f"neither JSON nor text in UTF-8: {others[0].message}")
    dead = _letters(index, value, others, len(lines), source)
    return _Piece(index, rows, source.without([other.index for other in others]), dead)


def _too_many(lines: int, family: Family, limits: RecordLimits) -> RecordError | None:
    if lines > limits.rows:
        return RecordError("too_many_rows", f"{lines} lines in one record, over {limits.rows}: send smaller ones")
    size = lines * least_row_bytes(family)
    if size > limits.decoded_bytes:
        return RecordError("too_many_bytes", f"{size} bytes once read, over {limits.decoded_bytes}: send fewer lines")
    return None


def _letters(index: int, value: bytes, others: Sequence[NoRow], lines: int, source: RecordSource) -> list[DeadLetter]:
    """Return the dead letters of one record's lines that are no rows: one letter for each reason, in order.

    A letter is split if its line numbers would not fit into one header.
    """
    by_reason: dict[str, list[NoRow]] = {}
    for other in others:
        by_reason.setdefault(other.reason, []).append(other)
    letters = []
    for reason, refused in by_reason.items():
        if len(refused) == lines:
            letters.append(DeadLetter(index, reason, refused[0].message, value, lines, source.lines))
            continue
        most = len(refused) if source.lines is None else RANGES_MAX
        for begin in range(0, len(refused), most):
            part = refused[begin : begin + most]
            numbers = None if source.lines is None else [source.lines[other.index] for other in part]
            joined = b"\n".join(other.line for other in part)
            letters.append(DeadLetter(index, reason, part[0].message, joined, len(part), numbers))
    return letters


def _is_text(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True
