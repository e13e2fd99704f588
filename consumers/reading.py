"""Reading a topic's records: explicit partitions, committed records only, in an order that owes nothing to timing.

Takes a `Connection` and the offset to start at per partition; gives `Record`s. No group is joined and nothing is
committed: where a reader stands is known by whoever holds it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from kafka import TopicPartition
from kafka.errors import KafkaError, OffsetOutOfRangeError

from broker.clients import Connection
from broker.topics import Extent, extents
from schema.errors import BrokerUnavailableError, FeedmillError

# A partition with this much read ahead of its turn is paused, so that a reader of P partitions holds about
# P times this and what one fetch brings (1 MiB per partition).
_READ_AHEAD_BYTES = 4 * 1024 * 1024
# A partition's share of one answer; a larger record still comes, alone.
_FETCH_BYTES = 1024 * 1024
_POLL_MS = 500
# Everything below a committed end offset is on the broker's disk: silence this long means that no broker is there.
_SILENCE_S = 30.0
# How soon a reader that follows notices partitions added to its topic.
_METADATA_AGE_MS = 15_000


@dataclass(frozen=True, slots=True)
class Record:
    """One Kafka record as read; `value` is empty where Kafka holds null."""

    partition: int
    offset: int
    headers: Sequence[tuple[str, bytes | None]]
    value: bytes


def gone(topic: str, partition: int, wanted: int, kept: Extent) -> str:
    """Return the line that tells that the offset `wanted` is outside what the topic keeps."""
    if wanted < kept.begin:
        cause = "retention removed what was before, so start there or keep the topic longer"
    else:
        cause = "the topic was made anew since, so start from its beginning"
    return (
        f"{topic}/{partition}: offset {wanted} was asked for, but the topic holds {kept.begin} to {kept.end}: {cause}"
    )


class TopicReader:
    """A consumer of some partitions of one topic; a context manager.

    Args:
        connection: the broker to read from.
        topic: the topic's full name.
        starts: the first offset to read, per partition.
        error: what is raised where the offsets asked for are not there (`FeedError` or `ReplayError`).
        silence_s: how long a broker that must have records may say nothing.
    """

    def __init__(
        self,
        connection: Connection,
        topic: str,
        starts: Mapping[int, int],
        error: type[FeedmillError],
        silence_s: float = _SILENCE_S,
    ) -> None:
        self._connection = connection
        self._topic = topic
        self._error = error
        self._silence_s = silence_s
        self._starts = dict(starts)
        self._consumer: Any = connection.consumer(
            max_partition_fetch_bytes=_FETCH_BYTES, metadata_max_age_ms=_METADATA_AGE_MS
        )
        self._assign(self._starts)

    def __enter__(self) -> TopicReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections to the broker."""
        self._consumer.close()

    def interleaved(self, stops: Mapping[int, int]) -> Iterator[Record]:
        """Yield all records below `stops`, one of each partition in turn until it is exhausted.

        The order follows from the offsets alone. Raises the reader's error where offsets are gone, and
        `BrokerUnavailableError` where the broker falls silent.
        """
        queues: dict[int, deque[Record]] = {partition: deque() for partition in sorted(stops)}
        open_partitions = list(queues)
        while open_partitions:
            for partition in list(open_partitions):
                if self._fill(partition, queues, stops):
                    yield queues[partition].popleft()
                else:
                    open_partitions.remove(partition)

    def in_turn(self, stops: Mapping[int, int]) -> Iterator[Record]:
        """Yield all records below `stops`, partition after partition; raises as `interleaved` does."""
        starts = dict(self._starts)
        for partition in sorted(stops):
            self._assign({partition: starts[partition]})
            queues: dict[int, deque[Record]] = {partition: deque()}
            while self._fill(partition, queues, stops):
                yield queues[partition].popleft()

    def arriving(self, wait_s: float) -> list[Record]:
        """Return what has arrived since the last call, by partition and offset; wait up to `wait_s` for the first.

        Partitions added to the topic meanwhile are read from their beginning.
        """
        known = self._consumer.partitions_for_topic(self._topic) or set()
        added = {partition: 0 for partition in known if partition not in self._starts}
        if added:
            at = {partition: self._position(partition) for partition in self._starts}
            self._starts.update(added)
            self._assign({**at, **added})
        polled = self._poll(wait_s)
        return [record for partition in sorted(polled) for record in polled[partition]]

    def _assign(self, starts: Mapping[int, int]) -> None:
        self._consumer.assign([TopicPartition(self._topic, partition) for partition in starts])
        for partition, offset in starts.items():
            self._consumer.seek(TopicPartition(self._topic, partition), offset)

    def _position(self, partition: int) -> int:
        # Past transaction markers too, which take offsets and are never returned as records.
        return int(self._consumer.position(TopicPartition(self._topic, partition)))

    def _fill(self, partition: int, queues: dict[int, deque[Record]], stops: Mapping[int, int]) -> bool:
        """Poll until a record of `partition` is queued (True) or all below its stop has been read (False)."""
        silent_since = time.monotonic()
        while not queues[partition]:
            if self._position(partition) >= stops[partition]:
                return False
            self._pause_all_but_hungry(partition, queues, stops)
            before = self._position(partition)
            for other, records in self._poll(_POLL_MS / 1000).items():
                queues[other].extend(record for record in records if record.offset < stops[other])
            if self._position(partition) > before:
                silent_since = time.monotonic()
            elif time.monotonic() - silent_since > self._silence_s:
                raise BrokerUnavailableError(
                    f"{self._topic}/{partition}: no answer for offset {before} in {self._silence_s:.0f} s: "
                    "check that the broker is up (`feedmill doctor`)"
                )
        return True

    def _pause_all_but_hungry(self, wanted: int, queues: Mapping[int, deque[Record]], stops: Mapping[int, int]) -> None:
        for partition, queue in queues.items():
            held = sum(len(record.value) for record in queue)
            full = held > _READ_AHEAD_BYTES or self._position(partition) >= stops[partition]
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
                Record(record.partition, record.offset, record.headers, record.value or b"") for record in records
            ]
            for where, records in polled.items()
        }

    def _gone(self, error: Any) -> str:
        kept = extents(self._connection, self._topic)
        for where, offset in error.args[0].items():
            return gone(self._topic, where.partition, offset, kept[where.partition])
        return f"{self._topic}: an offset asked for is not there"
