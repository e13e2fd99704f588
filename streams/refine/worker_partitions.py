"""The raw partitions of one family that a worker owns: opened on assignment, refined, and closed.

The worker calls `assign` after every rebalance, and the family's agent calls `refine`. A lock keeps the two apart, so
no partition is revoked between the judging of a group and its commit. Each partition has a `PartitionRefiner`.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Mapping, Sequence

from broker.clients import Connection
from broker.topics import partition_count, topic_name
from schema.family import Family
from schema.record import RAW
from streams.refine.decode import RawRecord
from streams.refine.group_judge import GroupProgress
from streams.refine.partition import PartitionRefiner, Phase
from streams.refine.rebuild import states
from streams.refine.retraction_watch import RetractionWatch
from streams.refine.starting_position import starting_positions

log = logging.getLogger(__name__)


class WorkerPartitions:
    """All the raw partitions of one family that this worker owns.

    Attributes:
        refiners: the owner of each partition, by partition number.
        is_rebuilding: whether states are being rebuilt. That may take long, and `rebuild` has its own limit on silence.
        group_under_way: the number of the group that is being judged, or None. No other group begins before its end.
    """

    def __init__(
        self,
        connection: Connection,
        family: Family,
        on_progress: Callable[[GroupProgress], None],
        on_death: Callable[[PartitionRefiner], None],
    ) -> None:
        self.family = family
        self.topic = topic_name(connection.settings, family.name, RAW)
        self.refiners: dict[int, PartitionRefiner] = {}
        self.is_rebuilding = False
        self.group_under_way: int | None = None
        self._groups = itertools.count()
        self._connection = connection
        self._on_progress = on_progress
        self._on_death = on_death
        self._generation: int | None = None
        self._lock = asyncio.Lock()
        self._retractions = RetractionWatch(connection, family)

    async def assign(self, assigned: frozenset[int], generation: int) -> Mapping[int, int]:
        """Own exactly the partitions `assigned`; return the offset to seek each to.

        Every partition is opened again if `generation` of the consumer group has changed, because an owner in between
        may have fenced this one. The state is kept if no other owner refined in between.

        Raises:
            KafkaError, RefineError, BrokerError: a partition could not be opened.
        """
        async with self._lock:
            await self._settle()
            if generation == self._generation and assigned == set(self.refiners) and not self._dead():
                return {partition: refiner.taken for partition, refiner in self.refiners.items()}
            count = await asyncio.to_thread(partition_count, self._connection, self.topic)
            for partition, refiner in list(self.refiners.items()):
                if partition not in assigned or refiner.is_dead or refiner.partitions != count:
                    await self.refiners.pop(partition).close()
            for partition in assigned - set(self.refiners):
                self.refiners[partition] = PartitionRefiner(
                    self._connection,
                    self.family,
                    partition,
                    count,
                    self._on_progress,
                    self._on_death,
                    lambda: self._retractions.ids,
                )
            await self._open(list(self.refiners.values()))
            self._generation = generation
            return {partition: refiner.position for partition, refiner in self.refiners.items()}

    async def reopen(self, partition: int) -> int | None:
        """Open a partition again whose position is no longer in the topic; return the offset to seek to.

        Returns None if the partition is not owned, or dead.
        """
        async with self._lock:
            await self._settle()
            refiner = self.refiners.get(partition)
            if refiner is None or refiner.is_dead:
                return None
            await self._open([refiner])
            return refiner.position

    async def advance(self, partition: int, position: int, to: int) -> None:
        """Move a partition from `position` to `to`, with no record between; do nothing if it has moved since."""
        async with self._lock:
            await self._settle()
            refiner = self.refiners.get(partition)
            if refiner is not None and not refiner.is_dead and refiner.position == position:
                await refiner.advance(to)

    async def settle(self) -> None:
        """Wait until no group is under way, so that partitions are revoked between transactions."""
        async with self._lock:
            await self._settle()

    async def refine(self, records: Sequence[RawRecord]) -> dict[int, int]:
        """Judge a group that may mix partitions, and begin to commit it once the group before is committed.

        Records of partitions that are not owned are ignored. Returns the offset to seek to for each partition whose
        records were not in turn, because one before them is missing.

        Raises:
            RefineError: the state could not be rebuilt.
            BrokerError: the retractions could not be read before the first group.
        """
        async with self._lock:
            by_partition: dict[int, list[RawRecord]] = {}
            for record in records:
                if record.partition in self.refiners:
                    by_partition.setdefault(record.partition, []).append(record)
            await self._rebuild()
            await asyncio.to_thread(self._retractions.refresh)
            work = [(self.refiners[partition], group) for partition, group in by_partition.items()]
            self.group_under_way = next(self._groups)
            try:
                in_turn = await asyncio.gather(*(refiner.refine(group) for refiner, group in work))
            finally:
                self.group_under_way = None
            return {
                refiner.partition: refiner.taken for (refiner, _), done in zip(work, in_turn, strict=True) if not done
            }

    async def close(self) -> None:
        """Finish the groups under way, stop every producer and drop all state.

        If a partition fails meanwhile, `on_death` is called.
        """
        async with self._lock:
            await asyncio.gather(*(refiner.close() for refiner in self.refiners.values()))
            self.refiners.clear()

    def _dead(self) -> list[PartitionRefiner]:
        return [refiner for refiner in self.refiners.values() if refiner.is_dead]

    async def _open(self, refiners: Sequence[PartitionRefiner]) -> None:
        await asyncio.gather(*(refiner.fence() for refiner in refiners))
        wanted = [refiner.partition for refiner in refiners]
        starts = await asyncio.to_thread(starting_positions, self._connection, self.family, wanted)
        await asyncio.gather(*(refiner.resume(starts[refiner.partition]) for refiner in refiners))

    async def _settle(self) -> None:
        await asyncio.gather(*(refiner.settle() for refiner in self.refiners.values()))

    async def _rebuild(self) -> None:
        """Rebuild the state of all partitions that need it, in one pass over clean.

        A partition that rebuilds its own state after a fault is left out: it commits on its own, so this state would be
        outdated.
        """
        stale = {
            each.partition: each
            for each in self.refiners.values()
            if each.phase is Phase.REBUILDING and not each.is_rebuilding
        }
        if not stale:
            return
        count = next(iter(stale.values())).partitions
        self.is_rebuilding = True
        try:
            rebuilt = await asyncio.to_thread(states, self._connection, self.family, list(stale), count)
        finally:
            self.is_rebuilding = False
        for partition, refiner in stale.items():
            refiner.remember(rebuilt[partition])
            log.info("%s: %d ids remembered", refiner.name, len(rebuilt[partition].ids))
