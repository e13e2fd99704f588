"""Read the committed records of given partitions, from given offsets up to given ends.

`committed_records` yields the records of one topic. `first_records` and `has_records` look for one record of each
partition. All of them use `CommittedReader`, which owns the loop: poll the consumer, find out which ends are reached,
and fail if nothing more comes although an end was not reached.

An end is reached when the consumer's position reaches it. Counting records would not do, because transaction markers
and aborted records have offsets too and are never returned. Everything below an end is on the broker's disk, so a
broker that sends nothing for long is at fault.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any

from kafka import TopicPartition

from broker.clients import Connection
from broker.topics import Extent, client_errors, extents
from schema.errors import BrokerError, FeedmillError

# How long a broker that must have records may send nothing.
SILENCE_S = 30.0
_POLL_S = 0.5
# Looking for one record: a poll that gets only markers waits this long for a record.
_PEEK_POLL_S = 0.02
# The broker would delay the answer to a fetch of markers only by 500 ms.
_PEEK_WAIT_MS = 10
# Checking for one record must not fetch megabytes; Kafka still sends a single larger batch.
_PEEK_BYTES = 64 * 1024
_PEEK_SILENCE_S = 60.0


class CommittedReader:
    """A consumer of committed records that knows which ends it has reached; a context manager.

    After `start`, poll while `unread` has partitions. After `follow`, there are no ends and the caller decides when to
    stop. Either may be called again.

    Args:
        connection: the broker to read from.
        silence_s: how many seconds of polling may pass without progress; time between polls does not count.
        silent: makes the error for a broker that sends nothing for so long, from the text `topic/partition from offset
            N, ...`; None makes a `BrokerError`.
        options: options of the consumer, such as `max_poll_records`.

    Raises:
        BrokerUnavailableError: no broker answers.

    Attributes:
        unread: {partition: the next offset to read}, of the partitions whose ends are not reached.

    Example:
        >>> with CommittedReader(connection) as reader:  # doctest: +SKIP
        ...     reader.start("feedmill.code.clean", {0: Extent(0, 100)})
        ...     while reader.unread:
        ...         for records in reader.poll().values():
        ...             print(records[-1].offset)
    """

    def __init__(
        self,
        connection: Connection,
        *,
        silence_s: float = SILENCE_S,
        silent: Callable[[str], FeedmillError] | None = None,
        **options: Any,
    ) -> None:
        self._silence_s, self._silent = silence_s, silent
        self._silent_for_s = 0.0
        self._ends: Mapping[TopicPartition, int] = {}
        self.unread: dict[TopicPartition, int] = {}
        self._lent = connection.lend_consumer(**options)
        self._consumer = self._lent.__enter__()
        self._assigned: list[TopicPartition] = []

    def __enter__(self) -> CommittedReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lent.__exit__(kind, error, trace)

    def close(self) -> None:
        """Close the consumer."""
        self.__exit__(None, None, None)

    def start(self, topic: str, ranges: Mapping[int, Extent]) -> None:
        """Read these offset ranges of `topic`, by partition, and nothing else; an empty range is not read at all."""
        filled = {TopicPartition(topic, number): held for number, held in ranges.items() if held.begin < held.end}
        self._assign({at: held.begin for at, held in filled.items()})
        self._ends = {at: held.end for at, held in filled.items()}
        self.unread = {at: held.begin for at, held in filled.items()}

    def follow(self, starts: Mapping[TopicPartition, int]) -> None:
        """Read these partitions from these offsets on, without an end, and nothing else."""
        self._assign(starts)

    def _assign(self, starts: Mapping[TopicPartition, int]) -> None:
        self._ends, self.unread, self._silent_for_s = {}, {}, 0.0
        self._assigned = list(starts)
        self._consumer.assign(self._assigned)
        # A partition that was assigned before keeps its pause.
        self._consumer.resume(*self._assigned)
        for partition, offset in starts.items():
            self._consumer.seek(partition, offset)

    def poll(self, wait_s: float = _POLL_S, max_records: int | None = None) -> dict[TopicPartition, list[Any]]:
        """Return the next records below the ends, by partition; waits up to `wait_s` for a first record.

        No partition comes with an empty list.

        Raises:
            BrokerError, or the error of `silent`: the broker sent nothing for `silence_s`.
            KafkaError: the client's own error. It is `OffsetOutOfRangeError` if the topic no longer holds the next
                offset: retention removed it, or the topic was created again.
        """
        if self._silent_for_s > self._silence_s:
            raise self._silence_error()
        if not self._assigned:
            # The client would return at once.
            time.sleep(wait_s)
            return {}
        began = time.monotonic()
        try:
            polled: dict[TopicPartition, list[Any]] = self._consumer.poll(int(wait_s * 1000), max_records)
        finally:
            if self.unread:
                self._silent_for_s += time.monotonic() - began
        if self._ends:
            polled = self._below_ends(polled)
            self._advance()
        return polled

    def skip(self, partition: TopicPartition, offset: int) -> None:
        """Continue a partition at `offset`."""
        self._consumer.seek(partition, offset)
        self._advance()

    def finish(self, partition: TopicPartition) -> None:
        """Read no more of a partition."""
        self._consumer.pause(partition)
        self.unread.pop(partition, None)

    @property
    def partitions(self) -> set[TopicPartition]:
        """The partitions that are read."""
        return set(self._assigned)

    @property
    def positions(self) -> dict[TopicPartition, int]:
        """{partition: the next offset to read}, of all partitions that are read; also past transaction markers."""
        return {partition: self._consumer.position(partition) for partition in self._assigned}

    @property
    def offsets_left(self) -> int:
        """How many offsets lie before the ends."""
        return sum(self._ends[partition] - reached for partition, reached in self.unread.items())

    @property
    def unread_text(self) -> str:
        """The unread partitions for an error line: `topic/partition from offset N, ...`."""
        return ", ".join(f"{at.topic}/{at.partition} from offset {offset}" for at, offset in self.unread.items())

    def _below_ends(self, polled: Mapping[TopicPartition, list[Any]]) -> dict[TopicPartition, list[Any]]:
        below = {}
        for partition, records in polled.items():
            end = self._ends[partition]
            if records[-1].offset >= end:
                records = [record for record in records if record.offset < end]
            if records:
                below[partition] = records
        return below

    def _advance(self) -> None:
        """Note the positions, and finish the partitions whose ends are reached."""
        for partition, reached in list(self.unread.items()):
            position = self._consumer.position(partition)
            if position > reached:
                self.unread[partition] = position
                self._silent_for_s = 0.0
            if position >= self._ends[partition]:
                self.finish(partition)

    def _silence_error(self) -> FeedmillError:
        if self._silent is not None:
            return self._silent(self.unread_text)
        topics = ", ".join(sorted({partition.topic for partition in self.unread}))
        return BrokerError(f"{topics} could not be read for {self._silence_s:.0f} s: run `feedmill doctor`")


def committed_records(
    connection: Connection,
    topic: str,
    ranges: Mapping[int, Extent] | None = None,
    silent: Callable[[str], FeedmillError] | None = None,
) -> Iterator[Any]:
    """Yield the committed records of some offset ranges of `topic`; those of a partition come in order.

    Args:
        connection: the broker to read from.
        topic: its full name.
        ranges: the offsets to read, by partition; None reads all records that are committed when the first is asked
            for.
        silent: see `CommittedReader`.

    Raises:
        BrokerError: the topic does not exist.
        BrokerError, KafkaError, or the error of `silent`: see `CommittedReader.poll`.
    """
    wanted = extents(connection, topic) if ranges is None else ranges
    if all(extent.begin >= extent.end for extent in wanted.values()):
        return
    with CommittedReader(connection, silent=silent) as reader:
        reader.start(topic, wanted)
        while reader.unread:
            for records in reader.poll().values():
                yield from records


def first_records(connection: Connection, topic: str, ranges: Mapping[int, Extent]) -> dict[int, int]:
    """Return the offset of the first committed record of each range, by partition; ranges without one are absent.

    At most one batch after the transaction markers and aborted records of a range is read.

    Raises:
        BrokerError: the topic cannot be read.
    """
    first: dict[int, int] = {}
    if all(extent.begin >= extent.end for extent in ranges.values()):
        return first
    with (
        client_errors(connection),
        CommittedReader(
            connection,
            silence_s=_PEEK_SILENCE_S,
            max_partition_fetch_bytes=_PEEK_BYTES,
            max_poll_records=1,
            fetch_max_wait_ms=_PEEK_WAIT_MS,
        ) as reader,
    ):
        reader.start(topic, ranges)
        while reader.unread:
            for partition, records in reader.poll(_PEEK_POLL_S).items():
                first[partition.partition] = records[0].offset
                reader.finish(partition)
    return first


def has_records(
    connection: Connection, topic: str, positions: Mapping[int, int], held: Mapping[int, Extent] | None = None
) -> dict[int, bool]:
    """Return for each partition of `positions` whether there is a committed record at or after its position.

    Transaction markers and aborted records do not count. At most one batch after them is read per partition, and
    nothing from partitions whose position is at their end. The topic is read up to the extents `held`, or up to its
    current ones. Give `held` if the answer False must hold for known ends: a restarted broker may report other ends.

    Raises:
        BrokerError: the topic does not exist, or cannot be read.
    """
    kept = extents(connection, topic) if held is None else held
    ranges = {number: Extent(max(at, kept[number].begin), kept[number].end) for number, at in positions.items()}
    first = first_records(connection, topic, ranges)
    return {number: number in first for number in positions}
