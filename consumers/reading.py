"""Read a topic's committed records from explicit partitions, in a given order that timing cannot change.

Takes a `Connection` and blocks of offsets in an order; gives their `Record`s in that order. No consumer group is joined
and nothing is committed; the caller keeps track of the offsets.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from kafka import TopicPartition
from kafka.errors import KafkaError, OffsetOutOfRangeError

from broker.clients import Connection
from broker.committed import SILENCE_S
from broker.held_offsets import gone
from broker.topics import extents
from schema.errors import BrokerUnavailableError, FeedmillError

# A partition with this much read ahead of its turn is paused. A reader of P partitions holds about P times this, plus
# one fetch (1 MiB per partition).
_READ_AHEAD_BYTES = 4 * 1024 * 1024
# The most bytes of a partition in one fetch; a larger record still arrives, alone.
_FETCH_BYTES = 1024 * 1024
_POLL_MS = 500
# How long a new consumer sleeps between steps of connecting; the usual 100 ms would dominate a short read.
_BACKOFF_MS = 10


@dataclass(frozen=True, slots=True)
class Record:
    """One Kafka record as read; `value` is empty if Kafka holds null, `key` is None if the record has none."""

    partition: int
    offset: int
    headers: Sequence[tuple[str, bytes | None]]
    value: bytes
    key: bytes | None = None


@dataclass(frozen=True, slots=True)
class OffsetBlock:
    """Consecutive offsets of a partition, [begin, end)."""

    partition: int
    begin: int
    end: int


class _Lane:
    """One partition's way through its blocks: records read ahead, the block being read, and the blocks after it."""

    def __init__(self) -> None:
        self.read: deque[tuple[int, Record]] = deque()
        self.held_bytes = 0
        self.ahead: deque[tuple[int, OffsetBlock]] = deque()
        self.number, self.block = -1, OffsetBlock(0, 0, 0)
        self.done = False

    def enter_next(self) -> bool:
        """Move to the next block and return True; after the last block, set the number past all blocks."""
        if self.ahead:
            self.number, self.block = self.ahead.popleft()
            return True
        self.number, self.done = sys.maxsize, True
        return False


class TopicReader:
    """A consumer of one topic; a context manager.

    It has a poll loop of its own instead of a `broker.committed.CommittedReader`, because a feed's order fixes which
    partition is next. So it seeks from block to block, and a partition ahead of its turn is paused by its bytes.

    Args:
        connection: the broker to read from.
        topic: the topic's full name.
        error: class of the error for offsets that the topic does not hold (`FeedError` or `ReplayError`).
        silence_s: how many seconds a broker that must have records may send nothing.
        fetch_bytes: the most bytes of a partition in one fetch; None, the default size, suits reading without seeks.
    """

    def __init__(
        self,
        connection: Connection,
        topic: str,
        error: type[FeedmillError],
        silence_s: float = SILENCE_S,
        fetch_bytes: int | None = None,
    ) -> None:
        self._connection = connection
        self._topic = topic
        self._error = error
        self._silence_s = silence_s
        self._lent = connection.lend_consumer(
            max_partition_fetch_bytes=fetch_bytes or _FETCH_BYTES, retry_backoff_ms=_BACKOFF_MS
        )
        self._consumer: Any = None

    def __enter__(self) -> TopicReader:
        self._consumer = self._lent.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lent.__exit__(kind, error, trace)

    def records(self, order: Sequence[OffsetBlock]) -> Iterator[tuple[int, Record]]:
        """Yield (number of the block, record) for all records of the blocks, in the order of `order`.

        Each partition is read ahead along its own blocks, so the order does not depend on how fast a partition
        answers. A block without records yields nothing. Raises the reader's error if offsets are gone, and
        `BrokerUnavailableError` if the broker sends nothing for `silence_s`.
        """
        lanes: dict[int, _Lane] = {}
        for number, block in enumerate(order):
            lanes.setdefault(block.partition, _Lane()).ahead.append((number, block))
        # Only partitions with blocks are assigned, because the client needs a position for each assigned one.
        self._consumer.assign([TopicPartition(self._topic, partition) for partition in lanes])
        for partition, lane in lanes.items():
            lane.enter_next()
            self._seek(partition, lane.block.begin)
        for number, block in enumerate(order):
            lane = lanes[block.partition]
            while self._has_record(number, block.partition, lanes):
                record = lane.read.popleft()[1]
                lane.held_bytes -= len(record.value)
                yield number, record

    def _has_record(self, number: int, partition: int, lanes: Mapping[int, _Lane]) -> bool:
        """Poll until a record of the block has arrived (True) or the whole block has been read (False)."""
        lane, silent_since = lanes[partition], time.monotonic()
        while True:
            if lane.read:
                return lane.read[0][0] == number
            if lane.number > number:
                return False
            if self._position(partition) >= lane.block.end:
                self._leave_block(partition, lane)
                continue
            before = self._position(partition)
            self._pause_all_but_hungry(partition, lanes)
            self._take_in(lanes)
            if lane.read or lane.number > number or self._position(partition) > before:
                silent_since = time.monotonic()
            elif time.monotonic() - silent_since > self._silence_s:
                raise BrokerUnavailableError(
                    f"{self._topic}/{partition}: no answer for offset {before} in {self._silence_s:.0f} s: "
                    "check that the broker is up (`feedmill doctor`)"
                )

    def _take_in(self, lanes: Mapping[int, _Lane]) -> None:
        for partition, records in self._poll(_POLL_MS / 1000).items():
            lane = lanes[partition]
            for record in records:
                on_course = True
                while on_course and record.offset >= lane.block.end:
                    on_course = self._leave_block(partition, lane)
                if not on_course:
                    break
                lane.read.append((lane.number, record))
                lane.held_bytes += len(record.value)

    def _leave_block(self, partition: int, lane: _Lane) -> bool:
        """Move to the partition's next block; return False if that needs a seek, so fetched records are useless."""
        left = lane.block
        if not lane.enter_next():
            return False
        if lane.block.begin == left.end:
            return True
        self._seek(partition, lane.block.begin)
        return False

    def _seek(self, partition: int, offset: int) -> None:
        self._consumer.seek(TopicPartition(self._topic, partition), offset)

    def _position(self, partition: int) -> int:
        # The position also passes transaction markers, which take offsets and are never returned as records.
        return int(self._consumer.position(TopicPartition(self._topic, partition)))

    def _pause_all_but_hungry(self, wanted: int, lanes: Mapping[int, _Lane]) -> None:
        for partition, lane in lanes.items():
            full = lane.held_bytes > _READ_AHEAD_BYTES or lane.done
            change = self._consumer.pause if full and partition != wanted else self._consumer.resume
            change(TopicPartition(self._topic, partition))

    def _poll(self, wait_s: float) -> dict[int, list[Record]]:
        try:
            polled = self._consumer.poll(timeout_ms=int(wait_s * 1000))
        except OffsetOutOfRangeError as error:
            raise self._error(self._gone(error)) from None
        except KafkaError as error:
            raise BrokerUnavailableError(f"{self._topic} cannot be read ({error}): run `feedmill doctor`") from error
        return {
            where.partition: [
                Record(record.partition, record.offset, record.headers, record.value or b"", record.key)
                for record in records
            ]
            for where, records in polled.items()
        }

    def _gone(self, error: Any) -> str:
        kept = extents(self._connection, self._topic)
        for where, offset in error.args[0].items():
            return gone(self._topic, where.partition, offset, kept[where.partition])
        return f"{self._topic}: an offset that was asked for is missing"
