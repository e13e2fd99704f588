"""The ledger topics -> the coverage store.

Reads every partition of every family's ledger from the store's own position (no consumer group: the position lives with
the counts), read_committed, and folds what a poll brings in one DuckDB transaction. The position stored is the
consumer's own, which stands past transaction markers.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import polars as pl
from kafka.errors import KafkaError, OffsetOutOfRangeError
from kafka.structs import TopicPartition

from broker.clients import Connection
from broker.topics import Extent, ensure_topics, extents, topic_id, topic_name
from schema.errors import BrokerError, CoverageError, RecordError
from schema.family import Family
from schema.record import LEDGER
from streams.coverage.entries import decode_entries, sums
from streams.coverage.store import REBUILD_HINT, Advance, CoverageStore

# One transaction: a ledger record is some 10 kB, and stands for some 60 raw records.
_RECORDS_PER_FOLD = 1000
# Folding costs about 20 ms however little there is, so a live fold waits for some more.
_FOLD_INTERVAL_S = 0.5
# The partitions of one family commit within some milliseconds of each other: producers that follow wait for them all.
_GATHER_S = 0.05
# Raised partition counts are noticed within this.
_PARTITIONS_CHECK_S = 5.0
_STALL_S = 30.0


class LedgerFold:
    """A consumer of all ledgers and the store it folds them into; for one thread.

    `reachable` (for any thread to read) says whether the broker answered when last asked; `families` is what it folds.

    Raises:
        CoverageError: the store was folded from other topics, or the ledger no longer has what is next to fold.
    """

    def __init__(self, connection: Connection, store: CoverageStore, families: Mapping[str, Family]) -> None:
        self._connection = connection
        self._store = store
        self.families = families
        self._topics = {topic_name(connection.settings, name, LEDGER): name for name in families}
        ensure_topics(connection, families)
        for topic, family in self._topics.items():
            store.bind(family, topic, topic_id(connection, topic))
        self._consumer = connection.consumer()
        self._checked_at = 0.0
        self.reachable = True
        self._positions: dict[TopicPartition, int] = {}
        try:
            self._assign()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the consumer; the store is the caller's."""
        self._consumer.close()

    def step(self, wait_s: float, gather_s: float = 0.0) -> int:
        """Fold what there is, waiting up to `wait_s` for a first record and then `gather_s` for more; return how many.

        What is counted are ledger records.

        Raises:
            CoverageError: a record is not a ledger record, or its offsets are gone; nothing of this step was folded.
        """
        if time.monotonic() - self._checked_at > _PARTITIONS_CHECK_S:
            self._look_for_partitions()
        starts = self._positions
        entries: dict[str, list[pl.DataFrame]] = {}
        folded = 0
        until = 0.0
        while folded < _RECORDS_PER_FOLD:
            polled = self._poll(max(0.0, until - time.monotonic()) if folded else wait_s)
            if not polled:
                break
            until = until or time.monotonic() + gather_s
            for partition, records in polled.items():
                family = self._topics[partition.topic]
                entries.setdefault(family, []).extend(self._decoded(family, record) for record in records)
                folded += len(records)
        ends = {partition: self._consumer.position(partition) for partition in starts}
        advances = [
            Advance(self._topics[partition.topic], partition.partition, start, ends[partition])
            for partition, start in starts.items()
            if ends[partition] != start
        ]
        if advances:
            self._store.fold(advances, sums({family: pl.concat(frames) for family, frames in entries.items()}))
            self._positions = ends
        return folded

    def to_end(self) -> None:
        """Fold all that is committed in the ledgers now.

        Raises:
            CoverageError: as `step`; or the broker gave nothing for half a minute.
        """
        ends = {
            TopicPartition(topic, partition): extent.end
            for topic in self._topics
            for partition, extent in extents(self._connection, topic).items()
        }
        moved_at = time.monotonic()
        while behind := [partition for partition, end in ends.items() if self._positions.get(partition, 0) < end]:
            before = self._positions
            self.step(wait_s=0.5)
            if self._positions != before:
                moved_at = time.monotonic()
            elif time.monotonic() - moved_at > _STALL_S:
                names = ", ".join(f"{partition.topic}/{partition.partition}" for partition in behind)
                raise CoverageError(f"no ledger records came from {names} for {_STALL_S:.0f} s: see `feedmill doctor`")

    def run(self, stop: threading.Event, on_step: Callable[[int], None]) -> None:
        """Fold until `stop` is set; `on_step` is told after each step how many ledger records it folded.

        Raises:
            CoverageError: as `step`.
        """
        while not stop.is_set():
            folded = self.step(wait_s=_FOLD_INTERVAL_S, gather_s=_GATHER_S)
            on_step(folded)
            if folded < _RECORDS_PER_FOLD:
                stop.wait(_FOLD_INTERVAL_S)

    def _look_for_partitions(self) -> None:
        """Take up new partitions; a broker that does not answer is waited for, and what was folded stands."""
        try:
            if not self.reachable:
                # A client that lost its broker may wait for half a minute before it tries again; a new one does not.
                lost, self._consumer = self._consumer, self._connection.consumer()
                lost.close()
            self._assign()
            self.reachable = True
        except BrokerError:
            self.reachable = False
            self._checked_at = time.monotonic()

    def _assign(self) -> None:
        """Take up all partitions there are, at the store's positions; new ones at their beginning."""
        self._checked_at = time.monotonic()
        found: dict[TopicPartition, Extent] = {
            TopicPartition(topic, partition): extent
            for topic in self._topics
            for partition, extent in extents(self._connection, topic).items()
        }
        if self._consumer.assignment() == found.keys():
            return
        self._store.begin({(self._topics[tp.topic], tp.partition): extent.begin for tp, extent in found.items()})
        stored = self._store.positions()
        self._positions = {tp: stored[self._topics[tp.topic], tp.partition] for tp in found}
        for partition, extent in found.items():
            position = self._positions[partition]
            if not extent.begin <= position <= extent.end:
                raise CoverageError(
                    f"coverage stands at offset {position} of {partition.topic}/{partition.partition}, which holds "
                    f"[{extent.begin}, {extent.end}): records were removed; {REBUILD_HINT}"
                )
        self._consumer.assign(list(found))
        for partition, position in self._positions.items():
            self._consumer.seek(partition, position)

    def _poll(self, wait_s: float) -> dict[TopicPartition, list[Any]]:
        try:
            return dict(self._consumer.poll(timeout_ms=int(wait_s * 1000), max_records=_RECORDS_PER_FOLD))
        except OffsetOutOfRangeError as error:
            raise CoverageError(f"the ledger no longer has the offsets to fold ({error}): {REBUILD_HINT}") from error
        except KafkaError as error:
            if not getattr(error, "retriable", False):
                raise CoverageError(f"the ledger cannot be read ({error}): see `feedmill doctor`") from error
            return {}

    def _decoded(self, family: str, record: Any) -> pl.DataFrame:
        try:
            return decode_entries(record.value, record.headers, family, self._connection.settings.raw_record_max_rows)
        except RecordError as error:
            raise CoverageError(
                f"{record.topic}/{record.partition} offset {record.offset} is no ledger record ({error.reason}: "
                f"{error}); only refine workers may write there: stop what else does, and remove the record"
            ) from error
