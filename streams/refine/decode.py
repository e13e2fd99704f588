"""Intake: the bytes of raw records -> one frame of rows, and dead letters for what cannot become rows.

Arrow micro-batches are read as they are. JSON (one object, or NDJSON) is judged line by line: each line that is an
object of the family's types becomes a row. The other lines of a record share a dead letter for each reason, which
counts as many rows as it has lines. A record that cannot be read as lines at all is one dead letter of one row, with
its original bytes. Numbers that are not finite, or out of their column's range, become null in Arrow micro-batches.
Nothing here raises for what a producer may have sent.
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
    """One record of a raw topic as fetched.

    Attributes:
        time_ms: its timestamp, milliseconds since the epoch, as claimed.
        follows: no committed record lies between this offset and the record's own; None where that is not known.
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
    """Bytes of one raw record that could not become rows, all for one reason.

    Attributes:
        record: the index of its raw record in the group.
        reason, message: the reason code that its rows count under, and a sentence for people.
        value: the original bytes; lines are joined by newlines.
        rows: how many rows of the accounts it is.
        lines: the numbers of its lines in the sender's file, where they are known.
    """

    record: int
    reason: str
    message: str
    value: bytes
    rows: int = 1
    lines: Sequence[int] | None = None


@dataclass
class Intake:
    """A group of raw records, read.

    Attributes:
        frame: all rows in order; column `record` (UInt32) is the index of the row's raw record in the group. Where a
            record says which lines of a file it holds, there are `source_file` and `source_line`, too.
        dead: what could not be read.
        runs, chunks: what each record's headers say of its producer run, by record index.
    """

    frame: pl.DataFrame
    dead: list[DeadLetter] = field(default_factory=list)
    runs: list[str | None] = field(default_factory=list)
    chunks: list[int | None] = field(default_factory=list)


def read_group(records: Sequence[RawRecord], family: Family, limits: RecordLimits) -> Intake:
    """Read a group of raw records of one family."""
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
    """The rows of one raw record: an Arrow table where that has the family's own form, else a frame."""

    record: int
    rows: pa.Table | pl.DataFrame
    source: RecordSource = UNKNOWN
    dead: Sequence[DeadLetter] = ()


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
    return with_sources(pl.concat(frames), [(len(piece.rows), piece.source) for piece in pieces])


def _refuse_large_rows(intake: Intake, records: Sequence[RawRecord], family: Family, limit: int) -> None:
    """Turn records that hold a row with more than `limit` bytes of text into dead letters, which count all their rows.

    A small record can hold a large row, compressed, that no record of ours could carry on.
    """
    each = lengths(family)
    longest = intake.frame.select(length.max() for length in each)
    if not intake.frame.height or longest.sum_horizontal().item() <= limit:
        return
    widest = intake.frame.group_by("record", maintain_order=True).agg(
        row_bytes(family).max().alias("bytes"), pl.len().alias("rows")
    )
    for index, found, rows in widest.filter(pl.col("bytes") > limit).iter_rows():
        message = f"a row holds {found} bytes of text, over {limit}"
        # Lines that are no rows have letters already; this letter holds them, too, and counts them.
        rows += sum(letter.rows for letter in intake.dead if letter.record == index)
        intake.dead = [letter for letter in intake.dead if letter.record != index]
        intake.dead.append(DeadLetter(index, "row_too_large", message, records[index].value or b"", rows))
        intake.frame = intake.frame.filter(pl.col("record") != index)


@lru_cache
def least_row_bytes(family: Family) -> int:
    """Return the bytes of memory that any row of a family takes at least, however empty it is."""
    return row_width(family.wire.values())


@lru_cache
def _own_form(family: Family) -> pa.Schema:
    return arrow_schema(family.wire)


def _read(index: int, value: bytes, headers: ForeignHeaders, family: Family, limits: RecordLimits) -> _Piece:
    """Read one raw record.

    Raises:
        RecordError: nothing of it can be read.
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
        raise RecordError("wrong_topic", f"a {name}.{stage} record stands on {family.name}.{RAW}")
    if version != family.version:
        raise RecordError(
            "unknown_schema_version", f"version {version} of {name} is not known here (this is {family.version})"
        )


def _read_json(index: int, value: bytes, headers: ForeignHeaders, family: Family, limits: RecordLimits) -> _Piece:
    """Read one JSON object, or NDJSON lines.

    Raises:
        RecordError: it has no lines (`empty_record`), or is not text (`not_json`), or is JSON of another kind
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
    """Return the dead letters of the lines of one record that are no rows: one for each reason, in order.

    A letter whose line numbers would not fit into its header is cut in several.
    """
    by_reason: dict[str, list[NoRow]] = {}
    for other in others:
        by_reason.setdefault(other.reason, []).append(other)
    letters = []
    for reason, found in by_reason.items():
        if len(found) == lines:
            letters.append(DeadLetter(index, reason, found[0].message, value, lines, source.lines))
            continue
        most = len(found) if source.lines is None else RANGES_MAX
        for begin in range(0, len(found), most):
            part = found[begin : begin + most]
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
