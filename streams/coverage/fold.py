"""Fold the ledger topics, and after them the retractions (`retraction_fold`), into the coverage store.

Reads every partition of every family's ledger from the position in the store, read_committed and without a consumer
group. The records of a poll are folded in one DuckDB transaction for each family, together with the position. The
stored position is the consumer's own, so it also moves past transaction markers.

The topic's id is read after every poll and before the fold. If it is still the id that the store was folded from, the
records are those of that topic. Otherwise the topic was created again, and its offsets mean other records.

Families do not stop one another. If a family cannot be folded, `troubles` gives the reason, its position stays, and it
is tried again from time to time. A record that is no ledger record is skipped and counted.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

import polars as pl
from kafka.errors import KafkaError, OffsetOutOfRangeError
from kafka.structs import TopicPartition

from broker.clients import Connection
from broker.committed import CommittedReader
from broker.topics import ensure_topics, extents, identified_extents, topic_id, topic_name
from schema.errors import BrokerError, BrokerUnavailableError, CoverageError, RecordError
from schema.family import Family
from schema.ledger_entries import decode_entries
from schema.record import LEDGER
from streams.coverage.completeness import note_missing
from streams.coverage.entries import ForeignRecord, sums
from streams.coverage.retraction_fold import RetractionFold
from streams.coverage.store import REBUILD_HINT, CoverageStore, FoldAdvance
from streams.positions import bound_positions

# Records in one transaction: a ledger record has some 10 kB, for some 60 raw records.
_RECORDS_PER_FOLD = 1000
# Folding takes about 20 ms even for one record, so a live fold waits for more records.
_FOLD_INTERVAL_S = 0.5
# The partitions of one family commit within some milliseconds of each other; following producers wait for all of them.
_GATHER_S = 0.05
# New partitions are noticed within this time.
_PARTITIONS_CHECK_S = 5.0
_STALL_S = 30.0
# A family that could not be folded is tried again after this long.
_RETRY_S = 30.0
# A service looks for new retractions this often; they are rare.
_RETRACTIONS_CHECK_S = 1.0
# How often a service checks that the ledger is complete.
_COMPLETE_CHECK_S = 30.0

log = logging.getLogger(__name__)


class LedgerFold:
    """Consumes all ledgers and folds them into a store; for one thread.

    Attributes (any thread may read them):
        reachable: whether the broker answered the last request.
        families: the families that are folded.
        troubles: {family: one line on why it is not folded}. The store was folded from another topic, the ledger no
            longer has the next offset to fold, or the store failed.
    """

    def __init__(self, connection: Connection, store: CoverageStore, families: Mapping[str, Family]) -> None:
        self._connection = connection
        self._store = store
        self.families = families
        self._topics = {topic_name(connection.settings, name, LEDGER): name for name in families}
        ensure_topics(connection, families)
        self._reader = CommittedReader(connection)
        self._retractions = RetractionFold(connection, store)
        self._checked_at = 0.0
        self.reachable = True
        self.troubles: Mapping[str, str] = {}
        self._retry_at = 0.0
        # By family: the id of the ledger topic that the store is folded from.
        self._bound: dict[str, str] = {}
        self._positions: dict[TopicPartition, int] = {}
        try:
            self._assign()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the reader; the caller closes the store."""
        self._reader.close()

    def step(self, wait_s: float, gather_s: float = 0.0) -> int:
        """Fold the records at hand and return how many ledger records were read.

        Waits up to `wait_s` for a first record and then `gather_s` for more.

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
                # The records of this step are read again, because every family restarts at its folded position.
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
        ends = self._reader.positions
        changed = {self._topics[at.topic] for at, end in ends.items() if end != starts[at]}
        try:
            causes = self._created_again(changed)
        except BrokerError:
            # The topic cannot be asked now, so its records are read again later.
            self._reader.follow(self._positions)
            return 0
        for family in changed - causes.keys():
            moved = {at: end for at, end in ends.items() if self._topics[at.topic] == family and end != starts[at]}
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

    def _created_again(self, families: Iterable[str]) -> dict[str, str]:
        """Return {family: cause} for those families whose ledger is another topic than the one that is folded.

        Raises:
            BrokerError: a topic does not exist, or the broker does not answer.
        """
        causes = {}
        for family in families:
            try:
                self._bind(family, topic_id(self._connection, topic_name(self._connection.settings, family, LEDGER)))
            except CoverageError as error:
                causes[family] = str(error)
        return causes

    def _bind(self, family: str, found: str) -> None:
        """Check that the ledger topic's id is the one that the store was folded from.

        Raises:
            CoverageError: it is another, or the store failed.
        """
        if self._bound.get(family) != found:
            self._store.bind(family, topic_name(self._connection.settings, family, LEDGER), found)
            self._bound[family] = found

    def _suspend(self, causes: Mapping[str, str]) -> None:
        """Stop reading the ledgers of the families in `causes` ({family: why}) until they are tried again.

        The other families are read again from their folded positions.
        """
        for family, cause in causes.items():
            log.warning("coverage of %s is not folded: %s", family, cause)
        self.troubles = {**self.troubles, **causes}
        self._retry_at = time.monotonic() + _RETRY_S
        self._positions = {at: end for at, end in self._positions.items() if self._topics[at.topic] not in causes}
        self._reader.follow(self._positions)

    def to_end(self) -> None:
        """Fold all records and retractions that are committed now, of the families without trouble.

        Raises:
            CoverageError: the broker returned no record for half a minute.
            BrokerError: the broker does not answer.
        """
        self._retractions.look(self.families.keys() - self.troubles.keys())
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
        self._fold_retractions()

    def _fold_retractions(self) -> int:
        """Fold the retractions whose ledger entries are folded; return how many families were folded."""
        folded: dict[str, dict[int, int]] = {}
        for at, end in self._positions.items():
            folded.setdefault(self._topics[at.topic], {})[at.partition] = end
        done, causes = self._retractions.fold(folded)
        if causes:
            self._suspend(causes)
        return done

    def check(self, family: str) -> None:
        """Raise an error if `family` cannot be folded.

        Raises:
            CoverageError: the family is not folded, so its figures are old.
        """
        if family in self.troubles:
            raise CoverageError(self.troubles[family])

    def run(self, stop: threading.Event, on_step: Callable[[int], None]) -> None:
        """Fold until `stop` is set; call `on_step` after each step with the number of records that were folded.

        Raises:
            CoverageError: the ledgers cannot be read at all.
        """
        asked_at = looked_at = float("-inf")
        refined: dict[str, dict[int, int]] = {}
        while not stop.is_set():
            folded = self.step(wait_s=_FOLD_INTERVAL_S, gather_s=_GATHER_S)
            retracted = 0
            with suppress(BrokerError):
                retracted = self._fold_retractions()
                if time.monotonic() - looked_at > _RETRACTIONS_CHECK_S and self.reachable:
                    looked_at = time.monotonic()
                    self._retractions.look(self.families.keys() - self.troubles.keys())
            on_step(folded + retracted)
            with suppress(BrokerError):
                if not folded and refined:
                    # No record came since the positions were read, so the fold has reached the ledger's end.
                    for family in refined.keys() - self.troubles.keys():
                        note_missing(self._connection, self._store, family, refined[family])
                    refined = {}
                elif time.monotonic() - asked_at > _COMPLETE_CHECK_S and self.reachable:
                    asked_at = time.monotonic()
                    refined = {family: bound_positions(self._connection, family) for family in self.families}
            if folded < _RECORDS_PER_FOLD:
                stop.wait(_FOLD_INTERVAL_S)

    def _look_for_partitions(self) -> None:
        """Start reading new partitions; if the broker does not answer, keep the counts and try again later."""
        try:
            if not self.reachable:
                # A client that lost its broker may wait half a minute before it tries again; a new client does not.
                lost, self._reader = self._reader, CommittedReader(self._connection)
                lost.close()
            self._assign()
            self.reachable = True
        except BrokerError:
            self.reachable = False
            self._checked_at = time.monotonic()

    def _assign(self) -> None:
        """Read all existing partitions from the store's positions, and new partitions from their beginning."""
        now = time.monotonic()
        self._checked_at = now
        is_retry = now > self._retry_at
        starts: dict[TopicPartition, int] = {}
        troubles: dict[str, str] = {}
        for topic, family in self._topics.items():
            if family in self.troubles and not is_retry:
                troubles[family] = self.troubles[family]
                continue
            try:
                starts |= self._starts(topic, family)
            except (CoverageError, BrokerError) as error:
                if isinstance(error, BrokerUnavailableError) or isinstance(error.__cause__, KafkaError):
                    raise
                troubles[family] = " ".join(str(error).split())
                log.warning("coverage of %s is not folded: %s", family, troubles[family])
        if is_retry:
            self._retry_at = now + _RETRY_S
        self.troubles = troubles
        if self._reader.partitions != starts.keys():
            self._positions = starts
            self._reader.follow(starts)

    def _starts(self, topic: str, family: str) -> dict[TopicPartition, int]:
        """Return the next offset to fold of each partition of a family's ledger.

        Raises:
            CoverageError: the store was folded from another topic, or the topic no longer has the next record to fold.
            BrokerError: the topic does not exist, or the broker does not answer.
        """
        found, bounds = identified_extents(self._connection, topic)
        self._bind(family, found)
        self._store.begin({(family, partition): extent.begin for partition, extent in bounds.items()})
        stored = self._store.positions()
        starts = {TopicPartition(topic, partition): stored[family, partition] for partition in bounds}
        for at, position in starts.items():
            extent = bounds[at.partition]
            if not extent.can_start_at(position):
                raise CoverageError(
                    f"coverage is folded up to offset {position} of {at.topic}/{at.partition}, which holds "
                    f"[{extent.begin}, {extent.end}): records were removed; {REBUILD_HINT}"
                )
        return starts

    def _poll(self, wait_s: float) -> dict[TopicPartition, list[Any]]:
        try:
            return self._reader.poll(wait_s, _RECORDS_PER_FOLD)
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
        "%s/%d offset %d is no ledger record (%s: %s) and is skipped: stop other programs from writing to this topic",
        record.topic,
        record.partition,
        record.offset,
        error.reason,
        error,
    )
