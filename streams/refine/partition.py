"""One raw partition, refined by the numbered protocol.

    1. Start a transactional producer under the partition's own id: it fences a zombie's.
    2. Read the position committed for the partition; the caller seeks there, for nothing else is the authority.
    3. Take events in groups; skip those below the position. The next group is judged while the last is committed.
    4. In one transaction send clean, rejected, ledger, rerouted and augmented records and the new position; commit.
       If it fails, abort and raise: what was not committed is never taken for done.
    5. On revocation or shutdown stop the producer and forget the state.

The state (what is remembered of clean) may only be used again after a commit; a failed group has touched it, so a
refiner that raised is closed and never used again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from broker.clients import Connection
from broker.topics import topic_name
from schema.family import Family
from schema.record import RAW
from streams.positions import position_group
from streams.refine.account import entries
from streams.refine.augmenting import augmented
from streams.refine.chain import judge
from streams.refine.intake import Limits, RawRecord, read_group
from streams.refine.outbound import Group, OutRecord, outbound
from streams.refine.rebuild import position_after_ledger
from streams.refine.state import State

# Room for the Arrow framing and envelope columns around a row's text within `record_max_bytes`.
_ROW_SHARE = 0.9


@dataclass(frozen=True)
class Progress:
    """What one committed group came to."""

    records: int = 0
    rows_in: int = 0
    rows_clean: int = 0
    rows_rejected: int = 0
    rows_rerouted: int = 0


@dataclass(frozen=True)
class Prepared:
    """A judged group: the records of its transaction, the position it leads to, and what it comes to."""

    outgoing: Sequence[OutRecord] = ()
    position: int = 0
    progress: Progress = field(default_factory=Progress)


class PartitionRefiner:
    """The owner of one raw partition, from assignment to revocation."""

    def __init__(self, connection: Connection, family: Family, partition: int, partitions: int) -> None:
        self.family = family
        self.partition = partition
        self.partitions = partitions
        self.position = self._taken = 0
        self.state: State | None = None
        settings = connection.settings
        self._settings = settings
        self._copies = settings.augment.get(family.name, 0.0)
        self._limits = Limits(
            record_bytes=settings.record_max_bytes,
            rows=settings.raw_record_max_rows,
            decoded_bytes=settings.record_max_decoded_bytes,
            row_bytes=int(settings.record_max_bytes * _ROW_SHARE),
        )
        self._raw = TopicPartition(topic_name(settings, family.name, RAW), partition)
        self._group = position_group(settings, family.name)
        self._connection = connection
        self._producer = AIOKafkaProducer(
            **connection.aiokafka_options(),
            transactional_id=f"{settings.namespace}.{family.name}.{partition}",
            acks="all",
            max_batch_size=settings.record_max_bytes,
            max_request_size=connection.max_request_bytes,
        )

    async def open(self) -> int:
        """Fence any zombie, then return the position to seek to (steps 1 and 2)."""
        # 1. Whoever wrote under this transactional id before is fenced, and its open transaction is settled.
        await self._producer.start()
        # 2. Settled, the committed position can no longer change under us.
        self.position = self._taken = await self.committed()
        return self.position

    async def committed(self) -> int:
        """Return the position committed for this partition.

        Where there is none it is what the ledger says, and for a partition never refined the beginning of raw.
        """
        reader = AIOKafkaConsumer(**self._connection.aiokafka_options(), group_id=self._group, enable_auto_commit=False)
        await reader.start()
        try:
            committed = await reader.committed(self._raw)
            if committed is not None:
                return int(committed)
            told = await asyncio.to_thread(position_after_ledger, self._connection, self.family, self.partition)
            return int((await reader.beginning_offsets([self._raw]))[self._raw]) if told is None else told
        finally:
            await reader.stop()

    async def prepare(self, records: Sequence[RawRecord]) -> Prepared:
        """Judge a group of records of this partition, in offset order, in a thread (step 3).

        The next group may be prepared while this one is committed: what it builds on is only kept if the commit holds.
        """
        # 3. What is below the position was committed before, or is about to be.
        records = [record for record in records if record.offset >= self._taken]
        state = self.state
        # Closed in between, its records are another worker's.
        if not records or state is None:
            return Prepared()
        prepared = await asyncio.to_thread(self._judge, records, state)
        self._taken = prepared.position
        return prepared

    def _judge(self, records: Sequence[RawRecord], state: State) -> Prepared:
        intake = read_group(records, self.family, self._limits)
        verdicts = judge(intake.frame, self.family, self.partition, self.partitions, state)
        made = augmented(verdicts.clean, self.family, self._copies, self.partitions, self._limits.row_bytes)
        made_of = np.bincount(made["record"].to_numpy(), minlength=len(records))
        entry = entries(records, intake, verdicts, made_of, self.family)
        group = Group(self.family, records, intake)
        sums = entry.select(pl.sum("rows_in", "rows_clean", "rows_rejected", "rows_rerouted")).row(0)
        outgoing = list(outbound(group, verdicts, entry, made, self._settings))
        return Prepared(outgoing, records[-1].offset + 1, Progress(len(records), *sums))

    async def commit(self, prepared: Prepared) -> None:
        """Send and commit a prepared group in one transaction (step 4).

        Raises:
            KafkaError: the transaction was not committed; the refiner must be closed.
        """
        if not prepared.outgoing:
            return
        # 4. All or nothing: the records and the position that says they are done.
        producer = self._producer
        await producer.begin_transaction()
        try:
            sent = [
                await producer.send(
                    topic_name(self._settings, self.family.name, record.stage),
                    record.value,
                    key=record.key,
                    partition=record.partition,
                    headers=record.headers,
                )
                for record in prepared.outgoing
            ]
            await asyncio.gather(*sent)
            await producer.send_offsets_to_transaction({self._raw: prepared.position}, self._group)
            await producer.commit_transaction()
        except BaseException:
            await self._abort()
            raise
        self.position = prepared.position

    async def _abort(self) -> None:
        # The failure that led here is the one to tell; what cannot be aborted, the broker times out.
        with contextlib.suppress(Exception):
            await self._producer.abort_transaction()

    async def close(self) -> None:
        """Stop the producer and forget the state (step 5)."""
        self.state = None
        await self._producer.stop()
