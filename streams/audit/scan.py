"""The committed records of a topic between two offsets, and their rows as one frame."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from kafka import TopicPartition
from kafka.errors import KafkaError
from numpy.typing import NDArray

from broker.clients import Connection
from broker.committed import CommittedReader
from broker.topics import Extent
from broker.unreadable import unreadable_batch
from schema.errors import AuditError, RecordError
from schema.record import ForeignHeaders, conform, read_table

# A record has at most 1 MB, and ten times that decompressed, so some hundred MB are decoded at once at most.
_RECORDS_AT_ONCE = 32
# Refine workers wrote these records within their own limits, so reading sets none.
_ANY_ROWS = 2**31
_SOURCE = re.compile(
    rb"(?P<topic>.{1,400})/(?P<partition>[0-9]{1,9})/(?P<first>[0-9]{1,18})(?:-(?P<last>[0-9]{1,18}))?"
)

OnOffsets = Callable[[int], None]
# Called with a partition and its unreadable offsets; returns whether the ledger has them as skipped.
IsPassedOver = Callable[[int, range], bool]


def scan(
    connection: Connection,
    topic: str,
    ranges: Mapping[int, Extent],
    on_offsets: OnOffsets,
    is_passed_over: IsPassedOver | None = None,
) -> Iterator[Sequence[Any]]:
    """Yield the committed records of `topic` within `ranges`, some at a time; those of a partition come in order.

    `on_offsets` gets the number of offsets passed since its last call. An unreadable batch is left out if
    `is_passed_over` returns True for its offsets.

    Raises:
        AuditError: the topic cannot be read; the message names the unreadable batch, if it is known.
    """
    if all(extent.begin >= extent.end for extent in ranges.values()):
        return

    def silent(where: str) -> AuditError:
        return AuditError(f"no records came from {where}: see `feedmill doctor`")

    with CommittedReader(connection, silent=silent, max_poll_records=_RECORDS_AT_ONCE) as reader:
        reader.start(topic, ranges)
        left = reader.offsets_left
        while reader.unread:
            records = _polled(reader, topic, ranges, is_passed_over)
            on_offsets(left - reader.offsets_left)
            left = reader.offsets_left
            if records:
                yield records


def _polled(
    reader: CommittedReader, topic: str, ranges: Mapping[int, Extent], is_passed_over: IsPassedOver | None
) -> list[Any]:
    try:
        return [record for records in reader.poll().values() for record in records]
    except Exception as error:
        batch = unreadable_batch(error)
        if batch is not None and batch.partition is not None:
            at = TopicPartition(topic, batch.partition)
            reached = reader.unread[at]
            due = range(max(batch.offsets.start, reached), min(batch.offsets.stop, ranges[batch.partition].end))
            if due and not (is_passed_over and is_passed_over(batch.partition, due)):
                raise AuditError(
                    _unreadable(topic, batch.partition, due, error, is_raw=bool(is_passed_over))
                ) from error
            reader.skip(at, max(due.stop, reached))
            return []
        if not isinstance(error, KafkaError):
            raise
        if getattr(error, "retriable", False):
            return []
        raise AuditError(
            f"{reader.unread_text} cannot be read ({type(error).__name__}: {error}): see `feedmill doctor`"
        ) from error


def _unreadable(topic: str, partition: int, offsets: range, error: Exception, is_raw: bool) -> AuditError:
    skip = f"`feedmill skip FAMILY --partition {partition}`"
    advice = (
        f"the ledger has no entry that it was skipped; if a worker waits there, {skip} passes over it"
        if is_raw
        else "restore the topic from a replica or a backup"
    )
    return AuditError(
        f"{topic}/{partition} offset {offsets[0]} cannot be read, nor the rest of its batch up to offset {offsets[-1]} "
        f"({type(error).__name__}: {error}): {advice}"
    )


@dataclass(frozen=True)
class DecodedRecords:
    """Records that a worker wrote, and their rows.

    Attributes:
        records: the records, as fetched.
        frame: their rows in order; column `record` (UInt32) is the index of a row's record.
        foreign: the number of other records, which were left out.
    """

    records: Sequence[Any]
    frame: pl.DataFrame
    foreign: int

    def per_record(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return the sum over each record of `values` (one per row); unsigned sums wrap around."""
        heights = np.bincount(self.frame["record"].to_numpy(), minlength=len(self.records))
        sums = np.concatenate([np.zeros(1, values.dtype), np.cumsum(values)])
        ends = np.cumsum(heights)
        result: NDArray[Any] = sums[ends] - sums[ends - heights]
        return result


def decode_batch(
    records: Sequence[Any], ce_type: tuple[str, str, int], columns: Mapping[str, pl.DataType]
) -> DecodedRecords:
    """Decode those of `records` that are valid micro-batches of this `ce_type`."""
    whole = []
    for record in records:
        try:
            if ForeignHeaders.parse(record.headers).ce_type == ce_type:
                whole.append((record, read_table(record.value or b"", columns, _ANY_ROWS)))
        except RecordError:
            continue
    kept, frames = _conformed(whole, columns)
    heights = [frame.height for frame in frames] if len(frames) == len(kept) else [table.num_rows for _, table in whole]
    frame = pl.concat([pl.DataFrame(schema=dict(columns)), *frames])
    record_of_row = pl.Series("record", np.repeat(np.arange(len(kept), dtype=np.uint32), heights))
    return DecodedRecords(kept, frame.with_columns(record_of_row), len(records) - len(kept))


def _conformed(
    whole: Sequence[tuple[Any, pa.Table]], columns: Mapping[str, pl.DataType]
) -> tuple[list[Any], list[pl.DataFrame]]:
    """Return the records whose tables have these columns, and either one frame of all records or one for each."""
    tables = [table for _, table in whole]
    if tables and all(table.schema.equals(tables[0].schema) for table in tables):
        try:
            # One conversion for many records, because for small records conversion takes most of the time.
            return [record for record, _ in whole], [conform(pa.concat_tables(tables), columns)]
        except RecordError:
            pass
    kept, frames = [], []
    for record, table in whole:
        try:
            frames.append(conform(table, columns))
            kept.append(record)
        except RecordError:
            continue
    return kept, frames


def source_of(record: Any, raw_topic: str) -> tuple[int, int, int] | None:
    """Return (raw partition, first offset, last offset) from the source header of a refined record, or None."""
    match = _SOURCE.fullmatch(header(record, "feedmill-source"))
    if match is None or match["topic"].decode("utf-8", "replace") != raw_topic:
        return None
    first, last = int(match["first"]), int(match["last"] or match["first"])
    return (int(match["partition"]), first, last) if first <= last else None


def header(record: Any, name: str) -> bytes:
    """Return the last header of this name, which the worker wrote; empty without one."""
    return next((value or b"" for key, value in reversed(record.headers) if key == name), b"")
