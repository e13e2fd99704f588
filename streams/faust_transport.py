"""Faust's aiokafka transport, with the project's own position as the authority on where to read.

What differs from the stock transport:
- the consumer is made with the project's connection options and reads committed records only;
- after an assignment it seeks to the positions that the refineries give, not to Faust's own commits;
- Faust's commits go nowhere: acknowledging an event means nothing, only a committed transaction does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import aiokafka
import faust
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from broker.clients import Connection

# Between a group's end and the next poll a worker may be rebuilding its state.
_MAX_POLL_INTERVAL_MS = 600_000
_FETCH_WAIT_MS = 100

Positions = Callable[[frozenset[TP]], Awaitable[Mapping[TP, int]]]


class PositionedThread(driver.AIOKafkaConsumerThread):  # type: ignore[misc]  # untyped base
    """The thread that runs the aiokafka consumer."""

    def _create_worker_consumer(self, transport: PositionedTransport) -> aiokafka.AIOKafkaConsumer:
        settings = transport.connection.settings
        session_ms = int(settings.session_timeout_s * 1000)
        self._assignor = RoundRobinPartitionAssignor
        return aiokafka.AIOKafkaConsumer(
            **transport.connection.aiokafka_options(),
            group_id=self.app.conf.id,
            partition_assignment_strategy=[self._assignor],
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            # At least one record comes whatever its size; small fetches keep memory flat.
            max_partition_fetch_bytes=settings.record_max_bytes,
            fetch_max_wait_ms=_FETCH_WAIT_MS,
            session_timeout_ms=session_ms,
            heartbeat_interval_ms=session_ms // 3,
            max_poll_interval_ms=_MAX_POLL_INTERVAL_MS,
        )


class PositionedConsumer(driver.Consumer):  # type: ignore[misc]  # untyped base
    """A Faust consumer that starts each partition where the project's committed position says."""

    def _new_consumer_thread(self) -> PositionedThread:
        return PositionedThread(self, loop=self.loop, beacon=self.beacon)

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Seek every assigned partition to its position and return the positions."""
        positions: Mapping[TP, int] = await self.transport.positions(frozenset(self.assignment()))
        for partition, offset in positions.items():
            await self._seek(partition, offset)
        return positions

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        return True

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Leave stalls to the worker's own watchdog, which knows what progress is."""


class PositionedTransport(driver.Transport):  # type: ignore[misc]  # untyped base
    """The transport of a refine worker."""

    Consumer = PositionedConsumer

    def __init__(self, app: faust.App, connection: Connection, positions: Positions) -> None:
        super().__init__(app.conf.broker, app)
        self.connection = connection
        self.positions = positions


def broker_url(servers: str) -> list[str]:
    """Return bootstrap servers in Faust's form, one URL each."""
    return [f"kafka://{server.strip()}" for server in servers.split(",")]
