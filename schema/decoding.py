"""Decode the records of Feedmill's own stages into frames, after a check of their type and version."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from schema.errors import FeedmillError, RecordError
from schema.record import ForeignHeaders, conform, read_table

log = logging.getLogger(__name__)

# (family, stage, version) of a record.
Kind = tuple[str, str, int]

# The refine stage writes far fewer rows; this limit bounds the memory that a damaged record can claim.
_MAX_ROWS = 10_000_000


class ReadRecord(Protocol):
    """A record as read from Kafka, by any reader."""

    @property
    def partition(self) -> int:
        """The number of its partition."""

    @property
    def offset(self) -> int:
        """Its offset in the partition."""

    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]:
        """Its headers, in order."""

    @property
    def value(self) -> bytes:
        """Its bytes."""


def is_foreign(record: ReadRecord, topic: str, kind: Kind) -> bool:
    """Return whether another program wrote a record into a topic of Feedmill's; a warning names it.

    A record of the same family and stage is not foreign, whatever its version: a reader of another version must fail
    instead of leaving rows out.
    """
    try:
        found = ForeignHeaders.parse(record.headers).ce_type
    except RecordError:
        found = None
    if found is not None and found[:2] == kind[:2]:
        return False
    log.warning(
        "%s/%d offset %d is no record of Feedmill's and is passed over: stop other programs from writing to this topic",
        topic,
        record.partition,
        record.offset,
    )
    return True


def decode_record(
    record: ReadRecord,
    topic: str,
    kind: Kind,
    columns: Mapping[str, pl.DataType],
    error: type[FeedmillError],
) -> pl.DataFrame:
    """Return the rows of one record; arguments and errors are those of `decode_records`."""
    return decode_records([record], topic, kind, columns, error)[0]


def decode_records(
    records: Sequence[ReadRecord],
    topic: str,
    kind: Kind,
    columns: Mapping[str, pl.DataType],
    error: type[FeedmillError],
) -> tuple[pl.DataFrame, npt.NDArray[np.int64]]:
    """Return the rows of all records, in order, and the number of rows of each record (R,).

    Many small records at once cost little more than one, because most of the cost does not depend on the size.

    Args:
        records: records read from `topic`, at least one.
        topic: the topic's name, for the error line.
        kind: (family, stage, version) that the records must have.
        columns: the columns to read, in order; a column that a record lacks is null.
        error: class of the error for a record that has another kind or cannot be decoded.
    """
    tables = [_table(record, topic, kind, columns, error) for record in records]
    counts = np.array([table.num_rows for table in tables], dtype=np.int64)
    if all(table.schema == tables[0].schema for table in tables):
        return _conform(records[0], topic, pa.concat_tables(tables), columns, error), counts
    frames = [_conform(record, topic, table, columns, error) for record, table in zip(records, tables, strict=True)]
    return pl.concat(frames), counts


def _table(
    record: ReadRecord, topic: str, kind: Kind, columns: Mapping[str, pl.DataType], error: type[FeedmillError]
) -> pa.Table:
    try:
        kind_read = ForeignHeaders.parse(record.headers).ce_type
        if kind_read == kind:
            return read_table(record.value, columns, _MAX_ROWS)
    except RecordError as cause:
        raise error(_undecodable(record, topic, cause)) from cause
    wanted = "feedmill.{}.{}.v{}".format(*kind)
    named = "(missing)" if kind_read is None else "feedmill.{}.{}.v{}".format(*kind_read)
    raise error(
        f"{topic}/{record.partition} offset {record.offset} has type {named}, but this build reads {wanted}: "
        "use a build that reads that type, or another topic"
    )


def _conform(
    record: ReadRecord, topic: str, table: pa.Table, columns: Mapping[str, pl.DataType], error: type[FeedmillError]
) -> pl.DataFrame:
    try:
        return conform(table, columns)
    except RecordError as cause:
        raise error(_undecodable(record, topic, cause)) from cause


def _undecodable(record: ReadRecord, topic: str, cause: RecordError) -> str:
    where = f"{topic}/{record.partition} offset {record.offset}"
    return f"{where} cannot be decoded ({cause.reason}: {cause}): run `feedmill doctor`"
