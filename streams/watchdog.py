"""The refine worker's watchdog: ends a worker that makes no progress.

The watchdog checks every partition that Faust assigned to the worker. A partition counts as

- alive while it is opened, rebuilt, judged or committed. These phases have a longer time limit;
- orphaned if it is assigned, but dead or without an owner for longer than the next rebalance should take;
- stalled if a record waited at its position in two checks, `refine_stall_s` apart, and the position did not move.
  Time does not count while one group of the family is judged: other partitions wait for the end of that group;
- held if its next record cannot be read. The transport reports it, and the other partitions go on.

If the broker cannot be reached during a check, the stall clocks start again once the broker answers.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import faust
from faust.types import TP

from broker.clients import Connection
from broker.committed import has_records
from broker.topics import extents, topic_id
from schema.errors import BrokerError, RefineError
from streams.refine.partition import PartitionRefiner, Phase
from streams.refine.worker_partitions import WorkerPartitions

log = logging.getLogger(__name__)

# A partition that is at work may take this many times `refine_stall_s`.
_BUSY_PATIENCE = 10
# A rebalance starts after a session timeout, and opening partitions takes time.
_REBALANCE_SESSIONS = 5
# The consumer group may wait for members that were killed, and a new broker creates its group topics first.
_JOIN_SESSIONS = 10


@dataclass
class _Suspect:
    """A partition that has had records waiting at `position` for `seconds`."""

    position: int
    seconds: float = 0.0


class Watchdog:
    """Watches one refine worker; `watch` returns the error for which the worker must end."""

    def __init__(
        self,
        app: faust.App,
        connection: Connection,
        owned: Mapping[str, WorkerPartitions],
        is_member: Callable[[], bool],
    ) -> None:
        self._app = app
        self._connection = connection
        self._owned = owned
        self._is_member = is_member
        self._patience_s = connection.settings.refine_stall_s
        self._orphaned_s: dict[TP, float] = {}
        self._suspects: dict[TP, _Suspect] = {}
        self._groups: dict[str, int | None] = {}
        self._outside_s = 0.0

    async def watch(self) -> BaseException:
        """Check the worker again and again; return the error for which it must end."""
        interval_s = min(1.0, self._patience_s / 4)
        last = time.monotonic()
        while True:
            await asyncio.sleep(interval_s)
            # Time during which this process was suspended does not count.
            passed_s = min(time.monotonic() - last, 2 * interval_s)
            last = time.monotonic()
            try:
                finding = await self._look(passed_s)
            except BrokerError as error:
                log.warning("the watchdog cannot reach the broker (%s): it tries again", error)
                self._suspects.clear()
                continue
            if finding is not None:
                return finding

    async def _look(self, passed_s: float) -> BaseException | None:
        crash: BaseException | None = self._app.crash_reason
        if crash is not None:
            return crash
        self._outside_s = 0.0 if self._is_member() else self._outside_s + passed_s
        patience_s = max(self._patience_s, _JOIN_SESSIONS * self._connection.settings.session_timeout_s)
        if self._outside_s > patience_s:
            return RefineError(
                f"the worker could not join its consumer group in {patience_s:.0f} s: check the broker "
                "(`feedmill doctor`)"
            )
        assigned = frozenset(self._app.consumer.assignment()) if self._is_member() else frozenset()
        return self._orphan(assigned, passed_s) or self._too_busy(assigned) or await self._stalled(assigned, passed_s)

    def _refiner(self, tp: TP) -> PartitionRefiner | None:
        owned = self._owned.get(tp.topic)
        return None if owned is None else owned.refiners.get(tp.partition)

    def _orphan(self, assigned: frozenset[TP], passed_s: float) -> BaseException | None:
        """Return an error if an assigned partition has had no living owner here for too long."""
        patience_s = max(_REBALANCE_SESSIONS * self._connection.settings.session_timeout_s, self._patience_s)
        orphans = {tp for tp in assigned if (refiner := self._refiner(tp)) is None or refiner.is_dead}
        self._orphaned_s = {tp: self._orphaned_s.get(tp, 0.0) + passed_s for tp in orphans}
        for tp, orphaned_s in self._orphaned_s.items():
            refiner = self._refiner(tp)
            is_fenced = refiner is not None and refiner.is_fenced
            limit_s = _REBALANCE_SESSIONS * self._connection.settings.session_timeout_s if is_fenced else patience_s
            if orphaned_s > limit_s:
                cause = "another owner fenced it" if is_fenced else "it was not opened"
                return RefineError(f"{tp.topic}/{tp.partition} is assigned to this worker but dead: {cause}")
        return None

    def _too_busy(self, assigned: frozenset[TP]) -> BaseException | None:
        limit_s = _BUSY_PATIENCE * self._patience_s
        for tp in assigned:
            refiner = self._refiner(tp)
            if refiner is None or refiner.phase in (Phase.READY, Phase.DEAD, Phase.REBUILDING):
                continue
            if time.monotonic() - refiner.moved_at > limit_s:
                return RefineError(
                    f"{refiner.name}: {refiner.phase.value} at offset {refiner.position} for over {limit_s:.0f} s"
                )
        return None

    async def _stalled(self, assigned: frozenset[TP], passed_s: float) -> BaseException | None:
        """Return an error if records have waited for too long while the position did not move."""
        held = self._app.consumer.held
        idle: dict[TP, PartitionRefiner] = {}
        for tp in assigned:
            refiner = self._refiner(tp)
            if refiner is None or tp in held or refiner.is_rebuilding or self._owned[tp.topic].is_rebuilding:
                continue
            # In REBUILDING nothing happens before the first records arrive, so the partition may be idle.
            if refiner.phase not in (Phase.READY, Phase.REBUILDING):
                continue
            if time.monotonic() - refiner.moved_at > self._patience_s / 4:
                idle[tp] = refiner
        self._suspects = {
            tp: suspect
            for tp, suspect in self._suspects.items()
            if tp in idle and idle[tp].position == suspect.position
        }
        groups = {topic: owned.group_under_way for topic, owned in self._owned.items()}
        for tp, suspect in self._suspects.items():
            # Records wait for the end of a group of other partitions; those have limits of their own.
            if groups[tp.topic] is None or groups[tp.topic] != self._groups.get(tp.topic):
                suspect.seconds += passed_s
        self._groups = groups
        for tp, suspect in self._suspects.items():
            if suspect.seconds >= self._patience_s:
                return RefineError(
                    f"{tp.topic}/{tp.partition}: no progress for {self._patience_s:.0f} s while records are waiting at "
                    f"offset {suspect.position}"
                )
        new = {tp: refiner for tp, refiner in idle.items() if tp not in self._suspects}
        for topic in {tp.topic for tp in new}:
            finding = await self._ask(topic, [refiner for tp, refiner in new.items() if tp.topic == topic])
            if finding is not None:
                return finding
        return None

    async def _ask(self, topic: str, idle: Sequence[PartitionRefiner]) -> BaseException | None:
        """Ask the broker about idle partitions: suspect those with waiting records, advance the others."""
        positions = {refiner.partition: refiner.position for refiner in idle}
        own_id = await asyncio.to_thread(topic_id, self._connection, topic)
        ends = await asyncio.to_thread(extents, self._connection, topic)
        # `has_records` reads to exactly the ends that a partition may be advanced to: a second query may differ.
        has_waiting = await asyncio.to_thread(has_records, self._connection, topic, positions, ends)
        for refiner in idle:
            position, end = positions[refiner.partition], ends[refiner.partition].end
            if refiner.topic_id not in (None, own_id):
                return RefineError(f"{topic} was deleted and created again while this worker ran")
            if has_waiting[refiner.partition]:
                self._suspects[TP(topic, refiner.partition)] = _Suspect(position)
                continue
            # No record waits, so the next question may wait as well.
            refiner.moved_at = time.monotonic()
            # `advance` would wait for the group under way, and the watchdog with it.
            if end > position and self._owned[topic].group_under_way is None:
                await self._owned[topic].advance(refiner.partition, position, end)
        return None
