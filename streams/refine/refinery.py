"""The refinery of one worker: the partitions it owns, and the lock that keeps assignment and refining apart.

`assign` and `revoke` are called on a rebalance, `refine` by the agent of each family. A group that is being refined
when a rebalance comes is finished first, so nothing is revoked in the middle of a transaction.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence

from aiokafka.errors import ProducerFenced

from broker.clients import Connection
from broker.topics import partition_count, topic_name
from schema.family import Family
from schema.record import RAW
from streams.refine.intake import RawRecord
from streams.refine.partition import PartitionRefiner, Prepared, Progress
from streams.refine.rebuild import states

log = logging.getLogger(__name__)


class Refinery:
    """All the raw partitions of one family that this worker owns."""

    def __init__(
        self,
        connection: Connection,
        family: Family,
        on_progress: Callable[[Progress], None],
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self.family = family
        self._connection = connection
        self._on_progress = on_progress
        self._on_failure = on_failure
        self._refiners: dict[int, PartitionRefiner] = {}
        self._lock = asyncio.Lock()
        self._last_commit: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._last_commit.set_result(None)
        self.topic = topic_name(connection.settings, family.name, RAW)
        self.moved_at = time.monotonic()

    @property
    def positions(self) -> dict[int, int]:
        """{partition: offset of the next record to refine} of the partitions owned."""
        return {partition: refiner.position for partition, refiner in self._refiners.items()}

    async def assign(self, assigned: frozenset[int]) -> Mapping[int, int]:
        """Own exactly the partitions `assigned`; return the position to seek each to."""
        async with self._lock:
            await self._last_commit
            count = await asyncio.to_thread(partition_count, self._connection, self.topic)
            for partition in list(self._refiners):
                refiner = self._refiners[partition]
                kept = partition in assigned and refiner.partitions == count
                # Where the committed position is still ours, nobody has refined in between, and the state holds.
                if not (kept and await refiner.committed() == refiner.position):
                    await self._close(partition)
            new = [partition for partition in assigned if partition not in self._refiners]
            opened = [PartitionRefiner(self._connection, self.family, partition, count) for partition in new]
            await asyncio.gather(*(refiner.open() for refiner in opened))
            self._refiners.update({refiner.partition: refiner for refiner in opened})
            self.moved_at = time.monotonic()
            return self.positions

    async def settle(self) -> None:
        """Wait until no group is under way: what is revoked next is revoked between transactions."""
        async with self._lock:
            await self._last_commit

    async def refine(self, records: Sequence[RawRecord]) -> None:
        """Judge a group that may mix partitions, and begin to commit it once the group before is committed.

        Records of partitions not owned are left to their owners. A commit that fails is told to `on_failure`.

        Raises:
            RefineError: the state could not be rebuilt.
        """
        async with self._lock:
            by_partition: dict[int, list[RawRecord]] = {}
            for record in records:
                if record.partition in self._refiners:
                    by_partition.setdefault(record.partition, []).append(record)
            await self._rebuild()
            groups = [(self._refiners[partition], group) for partition, group in by_partition.items()]
            prepared = await asyncio.gather(*(refiner.prepare(group) for refiner, group in groups))
            await self._last_commit
            judged = [(refiner, each) for (refiner, _), each in zip(groups, prepared, strict=True)]
            self._last_commit = asyncio.create_task(self._commit(judged))

    async def _commit(self, groups: Sequence[tuple[PartitionRefiner, Prepared]]) -> None:
        # A partition whose commit before this one failed is nobody's here any more.
        owned = [(refiner, each) for refiner, each in groups if self._refiners.get(refiner.partition) is refiner]
        results = await asyncio.gather(*(refiner.commit(each) for refiner, each in owned), return_exceptions=True)
        for (refiner, each), result in zip(owned, results, strict=True):
            if result is None:
                self._on_progress(each.progress)
                continue
            if isinstance(result, ProducerFenced):
                # Another worker owns the partition by now: its events are that worker's to refine.
                log.warning("%s/%d: fenced by its next owner", self.topic, refiner.partition)
                await self._close(refiner.partition)
            else:
                self._on_failure(result)
        self.moved_at = time.monotonic()

    async def _rebuild(self) -> None:
        stale = {partition: refiner for partition, refiner in self._refiners.items() if refiner.state is None}
        if not stale:
            return
        count = next(iter(stale.values())).partitions
        # Reading back much data takes long and is no stall; it has a limit of its own on how long nothing comes.
        self.moved_at = float("inf")
        rebuilt = await asyncio.to_thread(states, self._connection, self.family, list(stale), count)
        self.moved_at = time.monotonic()
        for partition, refiner in stale.items():
            refiner.state = rebuilt[partition]
            log.info("%s/%d: %d ids remembered", self.topic, partition, len(rebuilt[partition].ids))

    async def _close(self, partition: int) -> None:
        await self._refiners.pop(partition).close()

    async def close(self) -> None:
        """Stop every producer and forget all state."""
        async with self._lock:
            await self._last_commit
            for partition in list(self._refiners):
                await self._close(partition)
