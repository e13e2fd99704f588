"""The owner of one raw partition: the refine protocol as a state machine.

    1. OPENING     Start a transactional producer under the partition's own id: it fences the earlier owner.
    2.             Read the position (`starting_position`); the caller seeks there. Count offsets lost to retention.
    3. REBUILDING  Read the state back from clean (`rebuild`), unless the state in memory is still known to be right.
    4. JUDGING     Take records in turn: skip those below the position, stop at a gap. Judge them in a thread.
    5. COMMITTING  In one transaction send clean, rejected, ledger, rerouted and augmented records and the new position.
                   The next group may be judged meanwhile; it is committed only after this commit succeeds.
    6. READY       No group is under way.
       DEAD        Closed or failed, from any phase. A dead partition judges and commits nothing. The next owner is
                   another `PartitionRefiner`, which begins at step 1.

Judging changes the state, so the state may only be used again after a commit. If a group cannot be judged or sent and
single records may be at fault, the partition is opened again (steps 1 to 3). Then each record is tried alone, and a
record at fault becomes a dead letter. Any other failure means DEAD.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from enum import Enum

from aiokafka import TopicPartition
from aiokafka.errors import ProducerFenced

from broker.clients import Connection
from broker.topics import topic_name
from schema.errors import RefineError
from schema.family import Family
from schema.record import RAW
from schema.retractions import NO_IDS, Ids
from streams.refine.decode import RawRecord, least_row_bytes
from streams.refine.gone import loss_record
from streams.refine.group_judge import GroupProgress, Judge, JudgedGroup, RecordFault, fault_of
from streams.refine.outbound import OutRecord
from streams.refine.pieces import pieces
from streams.refine.rebuild import states
from streams.refine.starting_position import Start, starting_positions
from streams.refine.state import State
from streams.refine.transactions import RECORD_FAULTS, PartitionProducer

log = logging.getLogger(__name__)


class Phase(Enum):
    """The phases of the refine protocol of one partition."""

    OPENING = "opening"
    REBUILDING = "rebuilding"
    READY = "ready"
    JUDGING = "judging"
    COMMITTING = "committing"
    DEAD = "dead"


_NEXT = {
    Phase.OPENING: {Phase.OPENING, Phase.REBUILDING, Phase.READY},
    Phase.REBUILDING: {Phase.OPENING, Phase.READY, Phase.COMMITTING},
    Phase.READY: {Phase.OPENING, Phase.REBUILDING, Phase.JUDGING, Phase.COMMITTING},
    Phase.JUDGING: {Phase.OPENING, Phase.REBUILDING, Phase.READY, Phase.JUDGING, Phase.COMMITTING},
    Phase.COMMITTING: {Phase.OPENING, Phase.READY, Phase.JUDGING},
    Phase.DEAD: set(),
}


class PartitionRefiner:
    """The owner of one raw partition, from assignment until it is closed or dies.

    Attributes:
        phase: the current phase.
        position: the offset after the last committed group.
        taken: the offset after the last group that was taken to be judged.
        error: the failure that made it dead; None if it was closed or is alive.
        moved_at: when it last made progress, in seconds of `time.monotonic()`.
        is_rebuilding: whether it is rebuilding its own state after a fault; no other code should rebuild it then.
    """

    def __init__(
        self,
        connection: Connection,
        family: Family,
        partition: int,
        partitions: int,
        on_progress: Callable[[GroupProgress], None],
        on_death: Callable[[PartitionRefiner], None],
        retracted: Callable[[], Ids] = lambda: NO_IDS,
    ) -> None:
        self.family = family
        self.partition = partition
        self.partitions = partitions
        self.phase = Phase.OPENING
        self.position = self.taken = 0
        self.error: BaseException | None = None
        self.moved_at = time.monotonic()
        self.is_rebuilding = False
        self._connection = connection
        self._settings = connection.settings
        self._on_progress = on_progress
        self._on_death = on_death
        self._retracted = retracted
        self._raw = TopicPartition(topic_name(connection.settings, family.name, RAW), partition)
        self._state: State | None = None
        self._judge: Judge | None = None
        self._producer: PartitionProducer | None = None
        self._commit: asyncio.Task[None] | None = None
        # Whether the commit under way tries records one by one. Then only that commit may use the state.
        self._tries_each = False

    @property
    def name(self) -> str:
        """`topic/partition`."""
        return f"{self._raw.topic}/{self.partition}"

    @property
    def topic_id(self) -> str | None:
        """Kafka's id of the raw topic; None before the partition is open."""
        return None if self._judge is None else self._judge.topic_id

    @property
    def is_dead(self) -> bool:
        """Whether the partition is closed or failed."""
        return self.phase is Phase.DEAD

    @property
    def is_fenced(self) -> bool:
        """Whether the partition died because another owner opened it."""
        return isinstance(self.error, ProducerFenced)

    async def fence(self) -> None:
        """Fence every earlier owner, this one included (step 1).

        Raises:
            KafkaError: the producer cannot be started; the partition is dead.
        """
        await self.settle()
        async with self._deadly():
            self._enter(Phase.OPENING)
            await self._new_producer()

    async def resume(self, start: Start) -> None:
        """Begin at `start`, which was read after `fence` (steps 2 and 3).

        The state is kept if no other owner has refined in between.

        Raises:
            KafkaError: lost offsets could not be written to the ledger; the partition is dead.
        """
        async with self._deadly():
            is_own = self._judge is not None and self._judge.topic_id == start.topic_id
            if not (is_own and start.position == self.position and not start.lost):
                self._state = None
            self._judge = Judge(
                self.family, self._settings, self.partition, self.partitions, start.topic_id, self._retracted
            )
            log.info("%s: begins at offset %d, lost %d", self.name, start.position, start.lost)
            self.position = self.taken = start.position
            if start.lost:
                log.error(
                    "%s: retention removed %d offsets below %d before they were refined: the ledger counts them",
                    self.name,
                    start.lost,
                    start.position,
                )
                await self._send([loss_record(self.family, self._raw, start)], start.position)
            self._enter(Phase.REBUILDING if self._state is None else Phase.READY)
            self.moved_at = time.monotonic()

    def remember(self, state: State) -> None:
        """Use `state`, which was rebuilt from the topics (step 3)."""
        self._state = state
        self._enter(Phase.READY)
        self.moved_at = time.monotonic()

    async def refine(self, records: Sequence[RawRecord]) -> bool:
        """Judge records of this partition, and begin to commit them once the group before is committed (steps 4, 5).

        Returns whether all records were in turn. If not, one is missing, and the caller seeks to `taken`.
        """
        if self.is_dead:
            return True
        in_turn = self._in_turn(records)
        with contextlib.suppress(Exception):
            async with self._deadly():
                for piece in pieces(in_turn, least_row_bytes(self.family)):
                    await self._refine_piece(piece)
        return self.is_dead or not records or records[-1].offset < self.taken

    async def advance(self, to: int) -> None:
        """Move the position to `to`, past transaction markers; no record may lie in between.

        So when retention removes old segments, the markers do not count as lost records.
        """
        if self.phase not in (Phase.READY, Phase.REBUILDING) or self.taken != self.position:
            return
        with contextlib.suppress(Exception):
            async with self._deadly():
                log.info("%s: moves from %d past markers to %d", self.name, self.position, to)
                await self._send([], to)
                self.position = self.taken = to

    async def settle(self) -> None:
        """Return once no commit is under way. If the commit failed, the partition is dead."""
        while self._commit is not None and not self._commit.done():
            await asyncio.wait({self._commit})

    async def close(self) -> None:
        """Finish the commit under way, stop the producer and drop the state (step 6); a failed commit sets `error`."""
        await self.settle()
        self.phase = Phase.DEAD
        self._state = None
        await self._stop_producer()

    def _enter(self, phase: Phase) -> None:
        if phase not in _NEXT[self.phase]:
            raise RefineError(f"{self.name} cannot go from {self.phase.value} to {phase.value}: start the worker again")
        self.phase = phase

    @contextlib.asynccontextmanager
    async def _deadly(self) -> AsyncIterator[None]:
        """Make the partition dead if the block raises."""
        try:
            yield
        except BaseException as error:
            self._die(error)
            raise

    def _die(self, error: BaseException) -> None:
        if self.is_dead:
            return
        self.phase, self.error, self._state = Phase.DEAD, error, None
        self._on_death(self)

    def _in_turn(self, records: Sequence[RawRecord]) -> list[RawRecord]:
        """Return the `records` that are in turn, up to the first gap (step 4)."""
        in_turn: list[RawRecord] = []
        next_offset = self.taken
        for record in records:
            if record.offset < next_offset:
                continue
            if record.follows is not None and record.follows > next_offset:
                log.warning("%s: records may be missing from %d to %d", self.name, next_offset, record.follows - 1)
                break
            in_turn.append(record)
            next_offset = record.offset + 1
        return in_turn

    async def _refine_piece(self, records: Sequence[RawRecord]) -> None:
        judged = await self._judged(records)
        await self.settle()
        if judged is not None and judged.state is not self._state and not self.is_dead:
            # The commit before had to rebuild the state, so this group was judged with an outdated one.
            judged = await self._judged(records)
        if self.is_dead:
            return
        self.taken = records[-1].offset + 1
        if judged is not None:
            self._enter(Phase.COMMITTING)
            self._commit = asyncio.create_task(self._commit_group(judged))

    async def _judged(self, records: Sequence[RawRecord]) -> JudgedGroup | None:
        """Judge a group in a thread (step 4); None if a fault made it commit the group record by record."""
        if self._tries_each:
            await self.settle()
        judge, state = self._ready()
        self._enter(Phase.JUDGING)
        # The group may have waited long for its turn, which is no lack of progress.
        self.moved_at = time.monotonic()
        try:
            judged = await asyncio.to_thread(judge.judge_group, records, state)
        except Exception as error:
            self._log_fault("judged", records, error)
        else:
            self.moved_at = time.monotonic()
            return judged
        # Judging may have changed the state, and the group before was judged with the same state.
        await self.settle()
        if self.is_dead:
            return None
        faults = await asyncio.to_thread(judge.faults_of, records)
        # Kafka answers a commit before its markers are written. Once the partition is open again, clean is complete.
        await self._reopen()
        await self._commit_each(records, faults)
        return None

    def _ready(self) -> tuple[Judge, State]:
        if self._judge is None or self._state is None:
            raise RefineError(f"{self.name} received records before it was ready: start the worker again")
        return self._judge, self._state

    async def _commit_group(self, judged: JudgedGroup) -> None:
        with contextlib.suppress(Exception):
            async with self._deadly():
                try:
                    await self._send(judged.outgoing, judged.position)
                except RECORD_FAULTS as error:
                    self._log_fault("sent", judged.records, error)
                    self._tries_each = True
                    await self._reopen()
                    await self._commit_each(judged.records, {})
                    self._tries_each = False
                else:
                    self._committed(judged)
                if self.phase is Phase.COMMITTING:
                    self._enter(Phase.READY)

    async def _commit_each(self, records: Sequence[RawRecord], faults: dict[int, RecordFault]) -> None:
        """Judge and commit records one by one. A record at fault becomes a dead letter, in the end without its bytes.

        Raises:
            Exception: even the dead letter without bytes could not be judged or sent.
        """
        self._enter(Phase.COMMITTING)
        for record in records:
            while not await self._commit_one(record, faults):
                await self._reopen()
                self._enter(Phase.COMMITTING)
        self._enter(Phase.READY)

    async def _commit_one(self, record: RawRecord, faults: dict[int, RecordFault]) -> bool:
        """Judge and commit one record; if it is at fault, add it to `faults` and return False."""
        judge, state = self._ready()
        known = faults.get(record.offset)
        try:
            judged = await asyncio.to_thread(judge.judge_group, [record], state, faults)
        except MemoryError:
            raise
        except Exception as error:
            if known is not None and known.is_bare:
                raise
            faults[record.offset] = fault_of(error, is_bare=known is not None)
            return False
        try:
            await self._send(judged.outgoing, judged.position)
        except RECORD_FAULTS as error:
            if known is not None and known.is_bare:
                raise
            faults[record.offset] = fault_of(error, is_bare=known is not None)
            return False
        self._committed(judged)
        return True

    async def _send(self, outgoing: Sequence[OutRecord], position: int) -> None:
        if self._producer is None or self._judge is None:
            raise RefineError(f"{self.name} is not open: start the worker again")
        await self._producer.send(outgoing, position, self._judge.topic_id)

    def _committed(self, judged: JudgedGroup) -> None:
        log.info("%s: committed offsets %d-%d", self.name, judged.records[0].offset, judged.position - 1)
        self.position = judged.position
        self.moved_at = time.monotonic()
        self._on_progress(judged.progress)

    async def _reopen(self) -> None:
        """Open the partition again as the same owner, after a record made judging or sending fail (steps 1 to 3)."""
        self._enter(Phase.OPENING)
        await self._new_producer()
        start = (await asyncio.to_thread(starting_positions, self._connection, self.family, [self.partition]))[
            self.partition
        ]
        if start.position != self.position:
            raise RefineError(
                f"{self.name}: another process moved the position from {self.position} to {start.position}: start the "
                "worker again"
            )
        await self._rebuild()

    async def _rebuild(self) -> None:
        self._enter(Phase.REBUILDING)
        self._state = None
        self.is_rebuilding = True
        try:
            rebuilt = await asyncio.to_thread(states, self._connection, self.family, [self.partition], self.partitions)
        finally:
            self.is_rebuilding = False
        self._state = rebuilt[self.partition]
        self.moved_at = time.monotonic()

    async def _new_producer(self) -> None:
        await self._stop_producer()
        self._producer = PartitionProducer(self._connection, self.family, self.partition)
        await self._producer.start()

    async def _stop_producer(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.stop()

    def _log_fault(self, step: str, records: Sequence[RawRecord], error: Exception) -> None:
        log.error(
            "%s: offsets %d-%d could not be %s (%s: %s): each is tried alone; a record at fault becomes a dead letter",
            self.name,
            records[0].offset,
            records[-1].offset,
            step,
            type(error).__name__,
            error,
            exc_info=log.isEnabledFor(logging.INFO),
        )
