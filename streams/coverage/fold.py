"""The ledger topics -> the coverage store.

Reads every partition of every family's ledger from the store's own position (no consumer group: the position lives with
the counts), read_committed, and folds what a poll brings in one DuckDB transaction for each family. The position stored
is the consumer's own, which stands past transaction markers.

Families do not stop one another. One that cannot be folded is left where it stands; `troubles` says why, and it is
tried again now and then. A record that is no ledger record, whoever wrote it, is passed over and counted.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import polars as pl
from kafka.errors import KafkaError, OffsetOutOfRangeError
from kafka.structs import TopicPartition

from broker.clients import Connection
from broker.topics import ensure_topics, extents, topic_id, topic_name
from schema.errors import BrokerError, BrokerUnavailableError, CoverageError, RecordError
from schema.family import Family
from schema.ledger_entries import decode_entries
from schema.record import LEDGER
from streams.coverage.completeness import note_missing, refined_positions
from streams.coverage.entries import ForeignRecord, sums
from streams.coverage.store import REBUILD_HINT, CoverageStore, FoldAdvance

# One transaction: a ledger record is some 10 kB, and stands for some 60 raw records.
_RECORDS_PER_FOLD = 1000
# Folding costs about 20 ms however little there is, so a live fold waits for some more.
_FOLD_INTERVAL_S = 0.5
# The partitions of one family commit within some milliseconds of each other: producers that follow wait for them all.
_GATHER_S = 0.05
# Raised partition counts are noticed within this.
_PARTITIONS_CHECK_S = 5.0
_STALL_S = 30.0
# What could not be folded is tried again after this long: the cause may have gone.
_RETRY_S = 30.0
# How often a service asks whether the ledger is complete.
_COMPLETE_CHECK_S = 30.0

log = logging.getLogger(__name__)


class LedgerFold:
    """A consumer of all ledgers and the store it folds them into; for one thread.

    For any thread to read:
        reachable: whether the broker answered when last asked.
        families: what it folds.
        troubles: {family: why it is not folded, in one line}: the store was folded from another topic, the ledger no
            longer has what is next to fold, or the store failed.
    """

    def __init__(self, connection: Connection, store: CoverageStore, families: Mapping[str, Family]) -> None:
        self._connection = connection
        self._store = store
        self.families = families
        self._topics = {topic_name(connection.settings, name, LEDGER): name for name in families}
        ensure_topics(connection, families)
        self._consumer = connection.consumer()
        self._checked_at = 0.0
        self.reachable = True
        self.troubles: Mapping[str, str] = {}
        self._retry_at = 0.0
        self._bound: set[str] = set()
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
            CoverageError: the ledgers cannot be read at all.
        """
        now = time.monotonic()
        if now - self._checked_at > _PARTITIONS_CHECK_S or (self.troubles and now > self._retry_at):
            self._look_for_partitions()
        starts = self._positions
        entries: dict[str, list[pl.DataFrame]] = {}
        foreign: dict[str, list[ForeignRecord]] = {}
        folded = 0
        until = 0.0
        while folded < _RECORDS_PER_FOLD:
            try:
                polled = self._poll(max(0.0, until - time.monotonic()) if folded else wait_s)
            except OffsetOutOfRangeError as error:
                # What was read in this step is read again: the others start where they are folded up to.
                cause = f"the ledger no longer has the offsets to fold ({error}): {REBUILD_HINT}"
                self._suspend({self._topics[at.topic]: cause for at in error.args[0]})
                return 0
            if not polled:
                break
            until = until or time.monotonic() + gather_s
            for partition, records in polled.items():
                family = self._topics[partition.topic]
                for record in records:
                    try:
                        entries.setdefault(family, []).append(self._decoded(family, record))
                    except RecordError as error:
                        _warn(record, error)
                        foreign.setdefault(family, []).append(
                            ForeignRecord(record.partition, record.offset, error.reason)
                        )
                folded += len(records)
        ends = {partition: self._consumer.position(partition) for partition in starts}
        causes: dict[str, str] = {}
        for family in self.families:
            moved = {at: end for at, end in ends.items() if self._topics[at.topic] == family and end != starts[at]}
            if not moved:
                continue
            advances = [FoldAdvance(family, at.partition, starts[at], end) for at, end in moved.items()]
            frames = entries.get(family)
            added = {family: pl.concat(frames)} if frames else {}
            try:
                self._store.fold(advances, sums(added, {family: foreign.get(family, [])}))
            except (CoverageError, pl.exceptions.PolarsError) as error:
                causes[family] = " ".join(str(error).split())
            else:
                self._positions = {**self._positions, **moved}
        if causes:
            self._suspend(causes)
        return folded

    def _suspend(self, causes: Mapping[str, str]) -> None:
        """Stop reading the ledgers of these families until they are tried again; {family: why}.

        The others are read again from where they are folded up to.
        """
        for family, cause in causes.items():
            log.warning("coverage of %s is not folded: %s", family, cause)
        self.troubles = {**self.troubles, **causes}
        self._retry_at = time.monotonic() + _RETRY_S
        self._positions = {at: end for at, end in self._positions.items() if self._topics[at.topic] not in causes}
        self._read_on()

    def to_end(self) -> None:
        """Fold all that is committed now in the ledgers of the families without trouble.

        Raises:
            CoverageError: the broker gave nothing for half a minute.
        """
        ends = {
            TopicPartition(topic, partition): extent.end
            for topic in self._topics
            for partition, extent in extents(self._connection, topic).items()
        }
        moved_at = time.monotonic()
        while behind := [
            partition
            for partition, end in ends.items()
            if self._topics[partition.topic] not in self.troubles and self._positions.get(partition, 0) < end
        ]:
            before = self._positions
            self.step(wait_s=0.5)
            if self._positions != before:
                moved_at = time.monotonic()
            elif time.monotonic() - moved_at > _STALL_S:
                names = ", ".join(f"{partition.topic}/{partition.partition}" for partition in behind)
                raise CoverageError(f"no ledger records came from {names} for {_STALL_S:.0f} s: see `feedmill doctor`")

    def check(self, family: str) -> None:
        """Raise what keeps `family` from being folded, if anything does.

        Raises:
            CoverageError: the family's figures are old, and will stay so.
        """
        if family in self.troubles:
            raise CoverageError(self.troubles[family])

    def run(self, stop: threading.Event, on_step: Callable[[int], None]) -> None:
        """Fold until `stop` is set; `on_step` is told after each step how many ledger records it folded.

        Raises:
            CoverageError: as `step`.
        """
        asked_at = float("-inf")
        refined: dict[str, dict[int, int]] = {}
        while not stop.is_set():
            folded = self.step(wait_s=_FOLD_INTERVAL_S, gather_s=_GATHER_S)
            on_step(folded)
            with suppress(BrokerError):
                if not folded and refined:
                    # Nothing came since the positions were asked for: the fold stands at the ledger's end.
                    for family in refined.keys() - self.troubles.keys():
                        note_missing(self._connection, self._store, family, refined[family])
                    refined = {}
                elif time.monotonic() - asked_at > _COMPLETE_CHECK_S and self.reachable:
                    asked_at = time.monotonic()
                    refined = {family: refined_positions(self._connection, family) for family in self.families}
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
        now = time.monotonic()
        self._checked_at = now
        is_retry = now > self._retry_at
        found: dict[TopicPartition, int] = {}
        troubles: dict[str, str] = {}
        for topic, family in self._topics.items():
            if family in self.troubles and not is_retry:
                troubles[family] = self.troubles[family]
                continue
            try:
                found |= self._starts(topic, family)
            except (CoverageError, BrokerError) as error:
                if isinstance(error, BrokerUnavailableError) or isinstance(error.__cause__, KafkaError):
                    raise
                troubles[family] = " ".join(str(error).split())
                log.warning("coverage of %s is not folded: %s", family, troubles[family])
        if is_retry:
            self._retry_at = now + _RETRY_S
        self.troubles = troubles
        if self._consumer.assignment() != found.keys():
            self._positions = found
            self._read_on()

    def _starts(self, topic: str, family: str) -> dict[TopicPartition, int]:
        """Return the next offset to fold of each partition of a family's ledger.

        Raises:
            CoverageError: the store was folded from another topic, or records that are next to fold are gone.
            BrokerError: the topic does not exist, or the broker does not answer.
        """
        if family not in self._bound:
            self._store.bind(family, topic, topic_id(self._connection, topic))
            self._bound.add(family)
        held = extents(self._connection, topic)
        self._store.begin({(family, partition): extent.begin for partition, extent in held.items()})
        stored = self._store.positions()
        starts = {TopicPartition(topic, partition): stored[family, partition] for partition in held}
        for at, position in starts.items():
            extent = held[at.partition]
            if not extent.begin <= position <= extent.end:
                raise CoverageError(
                    f"coverage stands at offset {position} of {at.topic}/{at.partition}, which holds "
                    f"[{extent.begin}, {extent.end}): records were removed; {REBUILD_HINT}"
                )
        return starts

    def _read_on(self) -> None:
        """Read exactly the partitions of `_positions`, from there."""
        self._consumer.assign(list(self._positions))
        for partition, position in self._positions.items():
            self._consumer.seek(partition, position)

    def _poll(self, wait_s: float) -> dict[TopicPartition, list[Any]]:
        if not self._positions:
            # A consumer of nothing returns at once.
            time.sleep(wait_s)
            return {}
        try:
            return dict(self._consumer.poll(timeout_ms=int(wait_s * 1000), max_records=_RECORDS_PER_FOLD))
        except OffsetOutOfRangeError:
            raise
        except KafkaError as error:
            if not getattr(error, "retriable", False):
                raise CoverageError(f"the ledger cannot be read ({error}): see `feedmill doctor`") from error
            return {}

    def _decoded(self, family: str, record: Any) -> pl.DataFrame:
        limit = self._connection.settings.raw_record_max_rows
        try:
            return decode_entries(record.value, record.headers, family, limit)
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
            raise RecordError("garbage", f"not a ledger record: {str(error)[:200]}") from error


def _warn(record: Any, error: RecordError) -> None:
    log.warning(
        "%s/%d offset %d is no ledger record (%s: %s) and is passed over; only refine workers may write there: stop "
        "what else does",
        record.topic,
        record.partition,
        record.offset,
        error.reason,
        error,
    )
