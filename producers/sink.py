"""Write examples to a raw topic as micro-batches, or to a file. Works for every family by its declaration.

Routing rows to partitions and encoding them is a pure function, `encode_block`, so it can run in worker processes.
`RecordSender` only sends to Kafka. `send_frames` combines the two in one process.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import polars as pl
from kafka.errors import KafkaError

from broker.clients import Connection
from broker.topics import ensure_topics, partition_count, topic_name
from schema.errors import DeliveryError, UsageError
from schema.family import Family, partition_of
from schema.record import RAW, Envelope, encode_parts, to_table
from schema.stale_files import in_making

# Bytes sent and not yet acknowledged; above this limit the producer waits for the oldest record.
UNACKNOWLEDGED_LIMIT_BYTES = 32 * 1024 * 1024
# Longer than the client's own delivery timeout (120 s), so that the client's error is the one reported.
ACKNOWLEDGE_TIMEOUT_S = 150.0
# How long an interrupted run waits for records that it already sent.
ABANDON_TIMEOUT_S = 2.0

# Called with the number of rows done so far.
OnProgress = Callable[[int], None]
# Called with each work unit of a run that is done.
OnUnit = Callable[[Any], None]


@dataclass(frozen=True)
class ProduceReport:
    """Totals of a finished run: `rows` and `bytes` of its records or its file; `records` is 0 for a file.

    `counts` adds up what the units of the run counted, {name: number}.
    """

    rows: int
    records: int
    bytes: int
    elapsed_s: float
    seed: int | None
    run: str
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class RecordLayout:
    """How rows become records: the raw topic's partition count, and the most rows and bytes of a record."""

    partitions: int
    rows_per_record: int
    record_max_bytes: int


@dataclass(frozen=True)
class EncodedRecord:
    """One record, ready to send; `chunk` is its first row's chunk, and (chunk, part) is unique within a run."""

    partition: int
    chunk: int
    part: int
    rows: int
    data: bytes


def raw_layout(connection: Connection, family: Family) -> RecordLayout:
    """Return the layout of the family's raw topic; creates a missing topic.

    Raises:
        BrokerError: the broker cannot be reached or refuses.
    """
    ensure_topics(connection, [family.name])
    settings = connection.settings
    partitions = partition_count(connection, topic_name(settings, family.name, RAW))
    return RecordLayout(partitions, settings.rows_per_record, settings.record_max_bytes)


def encode_block(frame: pl.DataFrame, family: Family, layout: RecordLayout, block: int = 0) -> list[EncodedRecord]:
    """Return the rows of an identified frame as records, by partition; each row is in the partition of its route.

    A partition's rows are divided evenly over its records. Two blocks of a run never share a chunk. Rows without a
    chunk get the chunk number `block`.

    Raises:
        UsageError: one row alone exceeds `layout.record_max_bytes`.
    """
    frame = frame.select(*family.wire)
    partitions = frame.select(partition_of(family, layout.partitions).fill_null(0)).to_series()
    records: list[EncodedRecord] = []
    for partition in range(layout.partitions):
        rows = frame.filter(partitions == partition)
        if rows.is_empty():
            continue
        pieces = -(-rows.height // layout.rows_per_record)
        begin = 0
        for height, data in encode_parts(to_table(rows), -(-rows.height // pieces), layout.record_max_bytes):
            chunk = rows["chunk"][begin] if "chunk" in family.columns else None
            records.append(EncodedRecord(partition, block if chunk is None else chunk, len(records), height, data))
            begin += height
    return records


class RecordSender:
    """Sends records of one run to the family's raw topic; reports every record that the broker did not accept.

    A context: leaving it waits until all records are acknowledged. An exception waits `ABANDON_TIMEOUT_S` at most and
    abandons the rest.
    """

    def __init__(self, connection: Connection, family: Family, run: str) -> None:
        self._topic = topic_name(connection.settings, family.name, RAW)
        self._family = family
        self._run = run
        self._producer = connection.producer()
        self._waiting: deque[tuple[int, int, Any]] = deque()
        self._waiting_bytes = 0
        self.rows = 0
        self.records = 0
        self.bytes = 0

    def __enter__(self) -> RecordSender:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.flush()
        finally:
            # The client raises if it could not send all in time. Abandoned records were never reported as done.
            with suppress(KafkaError):
                self._producer.close(timeout=ABANDON_TIMEOUT_S)

    def get_ready(self) -> None:
        """Connect and fetch the topic's metadata now, so that the first record is sent without delay.

        Raises:
            DeliveryError: the topic does not exist.
        """
        try:
            self._producer.partitions_for(self._topic)
        except KafkaError as error:
            raise self._refused(None, error) from error

    def send_record(self, record: EncodedRecord) -> None:
        """Send one micro-batch; waits while over `UNACKNOWLEDGED_LIMIT_BYTES` are unacknowledged.

        Raises:
            DeliveryError: this record, or an earlier one, was not accepted.
        """
        envelope = Envelope(
            self._family.name, RAW, self._family.version, self._run, record.chunk, record.part, record.rows
        )
        self.send(record.data, envelope.headers(), record.partition, record.rows)

    def send(
        self, value: bytes, headers: list[tuple[str, bytes]], partition: int, rows: int, key: bytes | None = None
    ) -> None:
        """Send any record; waits while over `UNACKNOWLEDGED_LIMIT_BYTES` are unacknowledged.

        Raises:
            DeliveryError: this record, or an earlier one, was not accepted.
        """
        while self._waiting and self._waiting_bytes + len(value) > UNACKNOWLEDGED_LIMIT_BYTES:
            self._acknowledge_oldest()
        while self._waiting and self._waiting[0][2].is_done:
            self._acknowledge_oldest()
        try:
            future = self._producer.send(self._topic, value=value, key=key, headers=headers, partition=partition)
        except KafkaError as error:
            raise self._refused(partition, error) from error
        self._waiting.append((partition, len(value), future))
        self._waiting_bytes += len(value)
        self.rows += rows
        self.records += 1
        self.bytes += len(value)

    def flush(self) -> None:
        """Wait until every record is acknowledged.

        Raises:
            DeliveryError: a record was not accepted.
        """
        try:
            self._producer.flush(timeout=ACKNOWLEDGE_TIMEOUT_S)
        except KafkaError as error:
            raise self._refused(None, error) from error
        while self._waiting:
            self._acknowledge_oldest()

    def _acknowledge_oldest(self) -> None:
        partition, size, future = self._waiting.popleft()
        try:
            future.get(timeout=ACKNOWLEDGE_TIMEOUT_S)
        except KafkaError as error:
            raise self._refused(partition, error) from error
        self._waiting_bytes -= size

    def _refused(self, partition: int | None, error: KafkaError) -> DeliveryError:
        where = self._topic if partition is None else f"{self._topic} partition {partition}"
        return DeliveryError(
            f"{where} did not accept a record ({type(error).__name__}: {error}): run `feedmill doctor` to check the "
            "broker and the topic's limits, then produce again"
        )


def send_frames(
    connection: Connection,
    family: Family,
    run: str,
    frames: Iterable[pl.DataFrame],
    on_progress: OnProgress | None = None,
    seed: int | None = None,
) -> ProduceReport:
    """Send identified frames to the family's raw topic; small frames are joined into full records.

    Raises:
        BrokerError: the broker cannot be reached.
        DeliveryError: the broker did not accept a record.
        UsageError: one row alone exceeds `settings.record_max_bytes`.
    """
    started = time.monotonic()
    layout = raw_layout(connection, family)
    with RecordSender(connection, family, run) as sender:
        for block, frame in enumerate(gathered(frames, layout.partitions * layout.rows_per_record)):
            for record in encode_block(frame, family, layout, block):
                sender.send_record(record)
            if on_progress:
                on_progress(sender.rows)
    return ProduceReport(sender.rows, sender.records, sender.bytes, time.monotonic() - started, seed, run)


def gathered(frames: Iterable[pl.DataFrame], rows: int) -> Iterator[pl.DataFrame]:
    """Yield the rows of `frames` in order, in frames of at least `rows` rows; the last may be smaller, never empty."""
    waiting: list[pl.DataFrame] = []
    height = 0
    for frame in frames:
        waiting.append(frame)
        height += frame.height
        if height >= rows:
            yield pl.concat(waiting)
            waiting, height = [], 0
    if height:
        yield pl.concat(waiting)


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Yield a stream whose bytes become the file `path` when the block succeeds; an error leaves `path` as it was.

    Raises:
        UsageError: the file cannot be written there.
    """
    partial = in_making(path, "partial")
    try:
        stream = partial.open("wb")
    except OSError as error:
        raise UsageError(f"{path} cannot be written ({error.strerror}): name a file in a folder that can") from error
    try:
        with stream:
            yield stream
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
