"""Replay an offset range of a topic to a file, with the same bytes every time.

`replay` reads committed records partition after partition, offset after offset. It keeps the rows that a filter
selects, and writes JSON lines, Parquet or Arrow IPC with a manifest next to the file. Rows of clean and rejected that
are retracted (`broker.retractions`) are left out. The offsets, the filter, the format and the bound of the retractions
decide the file's bytes; the manifest has all of them. Memory is bounded by one row group and the retracted ids.

Dead letters in `rejected` hold the original bytes of undecodable records. In JSON lines each becomes its own line, at
its place, with the value in base64. Parquet, Arrow and filtered replays leave dead letters out and count them.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path

import polars as pl

from broker.clients import Connection
from broker.retractions import RetractionBound, retracted_ids, retraction_bound
from broker.topics import Extent, topic_name
from consumers.form_options import FormIdentity, FormOptions
from consumers.reading import OffsetBlock, Record, TopicReader
from consumers.replay.bounds import Bound, resolve
from consumers.replay.replay_file import check_out, replay_file
from consumers.replay.row_groups import RowGroups
from consumers.replay.sequence_rows import SequenceRows, sequence_lines
from consumers.row_filter import RowFilter
from consumers.tensor_form import form_of
from schema import ledger
from schema.dead_letter import CONNECT_PREFIX, REASON_HEADER, is_dead_letter
from schema.decoding import decode_record, is_foreign
from schema.errors import ReplayError, UsageError
from schema.family import Family
from schema.json_form import json_lines
from schema.record import CLEAN, LEDGER, REJECTED, RETRACTIONS
from schema.registry import family_named
from schema.retractions import Ids, is_retracted

STAGES = (CLEAN, REJECTED, LEDGER)

# Columns that the refine stage adds to rejected rows: the broken rules, and the row's offset in raw.
_REJECTED_COLUMNS = {
    "reasons": pl.List(pl.String()),
    "source_offset": pl.Int64(),
    "source_file": pl.String(),
    "source_line": pl.Int64(),
}


@dataclass(frozen=True)
class ReplayProgress:
    """Progress of a replay: offsets read, all offsets, rows written."""

    offsets_done: int
    offsets_total: int
    rows: int


@dataclass(frozen=True)
class ReplayReport:
    """The result of a replay; its manifest has the same values, with file names for paths.

    Attributes:
        rows: rows or lines in the file, dead letters among them.
        sha256: of the file, in hex.
        offsets: {partition: [begin, end]}, without the end.
        dead_letters: lines with the original bytes of a dead letter.
        dead_letters_left_out: dead letters left out because of the format or the filter.
        foreign_records: records that another program wrote into the topic; they are left out, and a warning names each.
        rows_retracted: rows of these offsets that were left out because they, or their origins, are retracted.
        retractions: the bound of the retractions that were known; None if there are none yet, and for the ledger.
        form: what decides the sequences, if the file has sequences; `rows` then counts them.
        created: time of writing, ISO 8601 in UTC.
        feedmill: the version of Feedmill that wrote the file.
    """

    rows: int
    sha256: str
    offsets: dict[int, list[int]]
    path: str
    manifest: str
    family: str
    stage: str
    topic: str
    where: str | None
    dead_letters: int
    dead_letters_left_out: int
    foreign_records: int
    rows_retracted: int
    retractions: RetractionBound | None
    form: FormIdentity | None
    created: str
    feedmill: str


def replay(
    connection: Connection,
    family: str,
    out: Path,
    *,
    stage: str = CLEAN,
    start: Bound | None = None,
    end: Bound | None = None,
    where: str | None = None,
    form: FormOptions | None = None,
    on_progress: Callable[[ReplayProgress], None] = lambda progress: None,
) -> ReplayReport:
    """Write an offset range of `<family>.<stage>` to `out`, and its manifest to `<out>.manifest.json`.

    Args:
        connection: the broker to read from.
        family: a registered family.
        out: ends in .jsonl, .parquet or .arrow; an existing file is replaced.
        stage: "clean"; "rejected", whose rows also have `reasons`; or "ledger".
        start: the first offset of every partition, or the first time; None is the beginning of the topic.
        end: the offset or time to stop before; None is the last committed record now.
        where: an SQL condition over the columns.
        form: writes the training sequences of clean rows in place of the rows, for families whose tensor form makes
            sequences with a tokenizer.
        on_progress: called after every row group.

    Raises:
        UnknownFamilyError, UsageError: the family, stage or ending is unknown, the end lies before the start, or the
            family has no such form.
        BrokerError: the topic does not exist, or the broker cannot be read.
        ReplayError: retention removed the offsets, the filter is refused, a record cannot be read, or the file
            cannot be written.

    Example::

        written = replay(connection, "reduction", Path("small.parquet"), where="size < 100")
        pl.read_parquet("small.parquet").height == written.rows  # True
        written.stage  # 'clean'
    """
    declared = family_named(family)
    if stage not in STAGES:
        raise UsageError(f"stage {stage!r} cannot be replayed: use one of {', '.join(STAGES)}")
    check_out(out)
    if form is not None and stage != CLEAN:
        raise UsageError(f"only rows of clean have sequences, and the stage is {stage!r}: leave the stage out")
    expand = None if form is None else form_of(family, form).expand
    sequences = None if expand is None else SequenceRows(declared, expand)
    stage_columns = _stage_columns(declared, stage)
    lines = stage_columns.lines if sequences is None else sequence_lines
    topic = topic_name(connection.settings, family, stage)
    with RowFilter(where, stage_columns.columns, ReplayError) if where is not None else nullcontext() as row_filter:
        ranges = resolve(connection, topic, start, end)
        # The bound is taken after the ends, so that it holds every retraction of these rows.
        retractions = topic_name(connection.settings, family, RETRACTIONS)
        bound = None if stage == LEDGER else retraction_bound(connection, retractions)
        ids = retracted_ids(connection, retractions, bound, ReplayError)
        with replay_file(out, stage_columns.columns, lines, row_filter, sequences) as file:
            left_out = _read(connection, topic, ranges, stage_columns, ids, file.rows, on_progress)
            written = file.finish()
            report = ReplayReport(
                **written,
                rows=file.rows.written,
                offsets={number: [extent.begin, extent.end] for number, extent in ranges.items()},
                family=family,
                stage=stage,
                topic=topic,
                where=where,
                dead_letters=file.rows.lines,
                dead_letters_left_out=file.rows.lines_left_out,
                foreign_records=left_out.foreign_records,
                rows_retracted=left_out.rows_retracted,
                retractions=bound,
                form=None if expand is None else expand.identity,
            )
            file.place(report)
    return report


@dataclass
class _LeftOut:
    """The counts of a replay's records and rows that are not in its file."""

    foreign_records: int = 0
    rows_retracted: int = 0


def _read(
    connection: Connection,
    topic: str,
    ranges: Mapping[int, Extent],
    stage_columns: _StageColumns,
    ids: Ids,
    rows: RowGroups,
    on_progress: Callable[[ReplayProgress], None],
) -> _LeftOut:
    """Take the rows of these offset ranges, except those with the retracted `ids`."""
    left_out = _LeftOut()
    blocks = [OffsetBlock(number, extent.begin, extent.end) for number, extent in sorted(ranges.items())]
    with TopicReader(connection, topic, ReplayError) as reader:
        for _, record in reader.records(blocks):
            if stage_columns.kind[1] == REJECTED and is_dead_letter(record.headers):
                rows.take_line(_dead_letter(record))
                continue
            if is_foreign(record, topic, stage_columns.kind):
                left_out.foreign_records += 1
                continue
            frame = decode_record(record, topic, stage_columns.kind, stage_columns.columns, ReplayError)
            if ids.size:
                kept = frame.filter(~is_retracted(frame, ids))
                left_out.rows_retracted += frame.height - kept.height
                frame = kept
            if rows.take(frame, len(record.value)):
                on_progress(_progress(ranges, record, rows.written))
    return left_out


@dataclass(frozen=True)
class _StageColumns:
    """A stage's columns, the function that turns rows into JSON lines, and its records' (family, stage, version)."""

    columns: dict[str, pl.DataType]
    lines: Callable[[pl.DataFrame], bytes]
    kind: tuple[str, str, int]


def _stage_columns(family: Family, stage: str) -> _StageColumns:
    if stage == LEDGER:
        return _StageColumns(dict(ledger.COLUMNS), _plain_lines, (family.name, stage, ledger.VERSION))
    columns = family.wire | (_REJECTED_COLUMNS if stage == REJECTED else {})
    return _StageColumns(columns, partial(json_lines, family=family), (family.name, stage, family.version))


def _plain_lines(frame: pl.DataFrame) -> bytes:
    buffer = BytesIO()
    frame.write_ndjson(buffer)
    return buffer.getvalue()


def _dead_letter(record: Record) -> str:
    """Return a dead letter as a JSON line: reason, message, source of the record, and its bytes."""
    headers = {name: (value or b"").decode("utf-8", "replace") for name, value in record.headers}
    where = [headers.get(f"{CONNECT_PREFIX}{name}", "") for name in ("topic", "partition", "offset")]
    return json.dumps(
        {
            "reasons": [headers.get(REASON_HEADER) or headers.get(f"{CONNECT_PREFIX}exception.class.name", "")],
            "message": headers.get(f"{CONNECT_PREFIX}exception.message", ""),
            "source": "/".join(where),
            "value_base64": base64.b64encode(record.value).decode(),
        },
        ensure_ascii=False,
    )


def _progress(ranges: Mapping[int, Extent], record: Record, rows: int) -> ReplayProgress:
    sizes = {number: extent.end - extent.begin for number, extent in ranges.items()}
    before = sum(size for number, size in sizes.items() if number < record.partition)
    return ReplayProgress(before + record.offset + 1 - ranges[record.partition].begin, sum(sizes.values()), rows)
