"""Faust's aiokafka transport, reading from Feedmill's own committed positions.

It differs from Faust's transport as follows:
- the consumer has the project's connection options and reads committed records only;
- after an assignment it seeks to the positions that `WorkerPartitions` returns, not to Faust's own commits;
- Faust's commits are not sent: only a committed transaction acknowledges a record;
- every message carries the offset that it `follows`: no committed record lies between that offset and its own. So the
  receiver can prove that Faust dropped no message in between;
- a position outside the topic is an error and is never moved silently;
- an unreadable record is logged with its offset, and only its own partition waits.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import aiokafka
import faust
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import (
    ConsumerStoppedError,
    IllegalStateError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    TopicAuthorizationFailedError,
)
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from faust.types.tuples import ConsumerMessage

from broker.clients import Connection

log = logging.getLogger(__name__)

# A worker may rebuild its state between a group of records and the next poll.
_MAX_POLL_INTERVAL_MS = 600_000
_FETCH_WAIT_MS = 100
# A record that could not be read is tried again after this long, because the broker may have been repaired.
_READ_AGAIN_S = 30.0
_READ_ALONE_WITHIN_S = 5.0
_READ_ALONE_WAIT_S = 0.5
_READ_ALONE_RECORDS = 200
_NOTHING_TO_READ_S = 0.1
# Errors of the consumer or its access rights, not of a record.
_NOT_OF_A_RECORD = (ConsumerStoppedError, TopicAuthorizationFailedError)

Positions = Callable[[frozenset[TP], int], Awaitable[Mapping[TP, int]]]
Reopen = Callable[[TP], Awaitable[int | None]]


class PositionedMessage(ConsumerMessage):  # type: ignore[misc]  # untyped base
    """A Faust message with the offset that it follows and its timestamp in whole milliseconds."""

    follows: int
    time_ms: int | None


@dataclass(frozen=True)
class Held:
    """A partition that waits at an unreadable record.

    Attributes:
        offset: the offset of the record.
        error: why it cannot be read.
        again_at: when to try again, in seconds of `time.monotonic()`.
    """

    offset: int
    error: str
    again_at: float


class PositionedThread(driver.AIOKafkaConsumerThread):  # type: ignore[misc]  # untyped base
    """The thread that runs the aiokafka consumer."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Changed by this thread only: the offset after the last returned record, and the partitions that wait.
        self._next: dict[TP, int] = {}
        self.held: dict[TP, Held] = {}

    def _create_worker_consumer(self, transport: PositionedTransport) -> aiokafka.AIOKafkaConsumer:
        settings = transport.connection.settings
        session_ms = int(settings.session_timeout_s * 1000)
        self._assignor = RoundRobinPartitionAssignor
        return aiokafka.AIOKafkaConsumer(
            **transport.connection.aiokafka_options(),
            group_id=self.app.conf.id,
            partition_assignment_strategy=[self._assignor],
            enable_auto_commit=False,
            # A position outside the topic is an error to be handled, never a silent jump.
            auto_offset_reset="none",
            isolation_level="read_committed",
            # Kafka returns at least one record of any size; small fetches keep memory low.
            max_partition_fetch_bytes=settings.record_max_bytes,
            fetch_max_wait_ms=_FETCH_WAIT_MS,
            session_timeout_ms=session_ms,
            heartbeat_interval_ms=session_ms // 3,
            max_poll_interval_ms=_MAX_POLL_INTERVAL_MS,
        )

    async def seek_here(self, partition: TP, offset: int) -> None:
        """Seek in this thread, between two fetches."""
        try:
            self._ensure_consumer().seek(partition, offset)
        except IllegalStateError:
            # The partition was revoked: the next assignment seeks again.
            return
        self.held.pop(partition, None)
        self._next[partition] = offset

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Forget all offsets, because each assigned partition is sought before it is fetched."""
        self._next.clear()
        self.held.clear()
        await super().on_partitions_revoked(revoked)

    async def _fetch_records(
        self,
        consumer: aiokafka.AIOKafkaConsumer,
        active_partitions: set[TP],
        timeout: float | None = None,  # noqa: ASYNC109  the base class's signature
        max_records: int | None = None,
    ) -> dict[TP, list[Any]]:
        """Return the next records by partition, each with the offset it `follows`."""
        self._try_held_again()
        # A partition has no offset to read from before its first seek.
        readable = {tp for tp in active_partitions if tp in self._next and tp not in self.held}
        if not readable:
            self.note_alive()
            await asyncio.sleep(_NOTHING_TO_READ_S)
            return {}
        try:
            fetched = await super()._fetch_records(consumer, readable, timeout=timeout, max_records=max_records)
        except _NOT_OF_A_RECORD:
            raise
        except NoOffsetForPartitionError:
            # Raised between the assignment and the first seek; nothing was fetched.
            return {}
        except OffsetOutOfRangeError as error:
            # Opened again, the partition begins at the topic's beginning and counts the lost offsets. Nothing was
            # fetched.
            for tp in {TP(each.topic, each.partition) for each in error.args[0]} & set(self._next):
                self._hold(tp, "retention removed it before it was refined")
                self.transport.ask_to_reopen(tp)
            return {}
        except Exception as error:
            log.warning("a fetch failed (%s: %s): partitions are read one by one", type(error).__name__, error)
            return await self._read_apart(consumer, readable)
        for tp, records in fetched.items():
            self._chain(tp, records)
        return dict(fetched)

    def note_alive(self) -> None:
        """Reset the client's poll timeout without fetching.

        Without a fetch for `_MAX_POLL_INTERVAL_MS` the client leaves the consumer group and does not join again.
        """
        # aiokafka has no public call for this; its version is pinned.
        with self._ensure_consumer()._subscription.fetch_context():
            pass

    def _try_held_again(self) -> None:
        for tp, held in list(self.held.items()):
            if time.monotonic() >= held.again_at:
                # `feedmill skip` may have moved the position past the record, so the partition is opened again.
                self.held[tp] = replace(held, again_at=time.monotonic() + _READ_AGAIN_S)
                self.transport.ask_to_reopen(tp)

    def _chain(self, tp: TP, records: list[Any]) -> None:
        """Write into each record the offset that it follows. Call this before another task can seek."""
        follows = self._next.get(tp)
        for record in records:
            record.follows = record.offset if follows is None else follows
            follows = record.offset + 1
        if follows is not None:
            self._next[tp] = follows

    async def _read_apart(self, consumer: aiokafka.AIOKafkaConsumer, tps: set[TP]) -> dict[TP, list[Any]]:
        """Return the readable records of each partition after a failed fetch; hold the partitions at fault."""
        readable: dict[TP, list[Any]] = {}
        for tp in tps:
            if tp not in self._next:
                continue
            # The failed fetch took records out of the client's buffers, so fetch them again.
            await self.seek_here(tp, self._next[tp])
            records, error = await self._read_alone(consumer, tp)
            if records:
                readable[tp] = records
            elif error is not None and tp in self._next:
                self._hold(tp, f"{type(error).__name__}: {error}"[:300])
        return readable

    async def _read_alone(self, consumer: aiokafka.AIOKafkaConsumer, tp: TP) -> tuple[list[Any], Exception | None]:
        """Return the next records of one partition, read one by one, and the error that stopped reading.

        Each record is chained at once, because another task may seek before the next one.
        """
        records: list[Any] = []
        deadline = time.monotonic() + _READ_ALONE_WITHIN_S
        while time.monotonic() < deadline and len(records) < _READ_ALONE_RECORDS and tp in self._next:
            try:
                with consumer._fetcher._subscriptions.fetch_context():
                    taken = await consumer._fetcher.fetched_records({tp}, timeout=_READ_ALONE_WAIT_S, max_records=1)
            except _NOT_OF_A_RECORD:
                raise
            except Exception as error:
                return records, error
            if not taken.get(tp):
                break
            self._chain(tp, taken[tp])
            records += taken[tp]
        return records, None

    def _hold(self, tp: TP, error: str) -> None:
        offset = self._next[tp]
        self.held[tp] = Held(offset, error, time.monotonic() + _READ_AGAIN_S)
        log.error(
            "%s/%d: the record at offset %d cannot be read (%s); only this partition waits: `feedmill skip` passes "
            "over the record",
            tp.topic,
            tp.partition,
            offset,
            error,
        )


class PositionedConsumer(driver.Consumer):  # type: ignore[misc]  # untyped base
    """A Faust consumer that starts each partition at Feedmill's committed position."""

    def _new_consumer_thread(self) -> PositionedThread:
        return PositionedThread(self, loop=self.loop, beacon=self.beacon)

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Seek every assigned partition to its position and return the positions."""
        positions: Mapping[TP, int] = await self.transport.positions(
            frozenset(self.assignment()), self.app.consumer_generation_id
        )
        for partition, offset in positions.items():
            await self._seek(partition, offset)
        return positions

    async def _seek(self, partition: TP, offset: int) -> None:
        await self._thread.call_thread(self._thread.seek_here, partition, offset)

    async def seek(self, partition: TP, offset: int) -> None:
        """Seek one partition, backwards to read records again or forwards to skip them."""
        await self._seek(partition, offset)
        # Faust drops records below this offset.
        self._read_offset[partition] = offset or None

    def _to_message(self, tp: TP, record: Any) -> PositionedMessage:
        message = PositionedMessage(
            record.topic,
            record.partition,
            record.offset,
            None if record.timestamp is None else record.timestamp / 1000.0,
            record.timestamp_type,
            record.headers,
            record.key,
            record.value,
            record.checksum,
            record.serialized_key_size,
            record.serialized_value_size,
            tp,
            generation_id=self.app.consumer_generation_id,
        )
        message.follows = record.follows
        message.time_ms = record.timestamp
        return message

    @property
    def held(self) -> Mapping[TP, Held]:
        """The partitions that wait at an unreadable record."""
        return dict(self._thread.held)

    async def _wait_next_records(self, timeout: float) -> Any:  # noqa: ASYNC109  the base class's signature
        # Without partitions Faust fetches nothing, but a worker without partitions must stay in the consumer group.
        if self.flow_active and not self._get_active_partitions():
            self._thread.note_alive()
        return await super()._wait_next_records(timeout)

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        return True

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Do nothing: the worker's own watchdog detects stalls."""


class PositionedTransport(driver.Transport):  # type: ignore[misc]  # untyped base
    """The transport of a refine worker.

    `positions` takes the assignment and the consumer group's generation, and returns the offset to seek each partition
    to. `reopen` takes a partition whose position is no longer in the topic, and returns the offset to seek to.
    """

    Consumer = PositionedConsumer

    def __init__(self, app: faust.App, connection: Connection, positions: Positions, reopen: Reopen) -> None:
        super().__init__(app.conf.broker, app)
        self.connection = connection
        self.positions = positions
        self._reopen = reopen

    def ask_to_reopen(self, tp: TP) -> None:
        """Open a partition again and seek it, in the worker's event loop; callable from any thread."""
        asyncio.run_coroutine_threadsafe(self._reopened(tp), self.app.loop)

    async def _reopened(self, tp: TP) -> None:
        offset = await self._reopen(tp)
        if offset is not None:
            await self.app.consumer.seek(tp, offset)


def broker_url(servers: str) -> list[str]:
    """Return bootstrap servers in Faust's form, one URL each."""
    return [f"kafka://{server.strip()}" for server in servers.split(",")]
