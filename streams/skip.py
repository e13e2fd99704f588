"""Skip raw records that cannot be read, and account for them in the ledger.

Takes a connection, a family and a partition. Moves the position in one transaction with the ledger entries and a dead
letter. It uses the partition's transactional id, so the worker that owns the partition is fenced and opens it again.

1. Read the position and the end of the topic.
2. Find the offset to move to: the end of the unreadable batch, or the offset that the user gives. If there is nothing
   to skip, the owner of the partition is left alone.
3. Fence the owner, and check that it has not moved the position since step 1.
4. Send one ledger entry for each skipped offset, a dead letter that names the offsets, and the new position; commit.
   Offsets that retention removed before the position are counted as lost.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import (
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    TopicAuthorizationFailedError,
)

from broker.clients import Connection
from broker.topics import extents, topic_id, topic_name, write_offsets
from broker.unreadable import unreadable_batch
from schema.errors import RefineError, UsageError
from schema.family import Family
from schema.record import RAW
from streams.refine.gone import loss_record, skip_letter, skip_record
from streams.refine.starting_position import Start, positions_now
from streams.refine.transactions import PartitionProducer

# The most offsets that one call may skip; each becomes a ledger entry.
MOST_OFFSETS = 1_000_000
_READ_WITHIN_S = 20.0
# Errors of access rights or of the position, not of a record.
_NOT_OF_A_RECORD = (NoOffsetForPartitionError, OffsetOutOfRangeError, TopicAuthorizationFailedError)


@dataclass(frozen=True)
class SkipReport:
    """The skipped offsets of a raw partition, `begin` to `end` - 1; empty if only the position was moved back."""

    family: str
    partition: int
    begin: int
    end: int
    error: str | None

    @property
    def skipped(self) -> int:
        """The number of skipped offsets."""
        return max(self.end - self.begin, 0)


def skip(connection: Connection, family: Family, partition: int, to: int | None = None) -> SkipReport:
    """Skip the unreadable batch at the position, or all offsets before `to`.

    If the position lies beyond the end of the topic, it is moved back to `to`, and nothing is skipped.

    Raises:
        UsageError: no such partition; the next record can be read and no `to` was given; or `to` is out of range.
        RefineError: the transaction failed.
        BrokerError: the broker does not answer.
    """
    topic = topic_name(connection.settings, family.name, RAW)
    ends = write_offsets(connection, topic)
    if partition not in ends:
        raise UsageError(f"{topic} has no partition {partition}: use one of 0 to {len(ends) - 1}")
    return asyncio.run(_skip(connection, family, TopicPartition(topic, partition), ends[partition], to))


async def _skip(connection: Connection, family: Family, raw: TopicPartition, end: int, to: int | None) -> SkipReport:
    producer = PartitionProducer(connection, family, raw.partition)
    try:
        # 1.
        positions = await asyncio.to_thread(positions_now, connection, family, [raw.partition])
        begin = await asyncio.to_thread(lambda: extents(connection, raw.topic)[raw.partition].begin)
        position = max(positions[raw.partition], begin)
        error = None
        # 2.
        if to is None:
            to, error = await _end_of_unreadable(connection, raw, position, end)
        _check(raw, position, begin, end, to)
        # 3. From here on no other transaction can move the position.
        await producer.start()
        if await asyncio.to_thread(positions_now, connection, family, [raw.partition]) != positions:
            raise UsageError(f"{raw.topic}/{raw.partition}: a worker moved the position meanwhile: try again")
        # 4.
        own_id = await asyncio.to_thread(topic_id, connection, raw.topic)
        offsets = range(position, to)
        records = []
        if position > positions[raw.partition]:
            records = [loss_record(family, raw, Start(position, position - positions[raw.partition], own_id))]
        if offsets:
            records += [skip_record(family, raw, own_id, offsets), skip_letter(raw, offsets, error or "on request")]
        await producer.send(records, to, own_id)
    except KafkaError as failure:
        raise RefineError(
            f"{raw.topic}/{raw.partition}: nothing was passed over ({type(failure).__name__}: {failure}): check the "
            "broker (`feedmill doctor`) and try again"
        ) from failure
    finally:
        await producer.stop()
    return SkipReport(family.name, raw.partition, position, to, error)


def _check(raw: TopicPartition, position: int, begin: int, end: int, to: int) -> None:
    name = f"{raw.topic}/{raw.partition}"
    if position > end:
        if not begin <= to <= end:
            raise UsageError(f"{name}: --to {to} is not in the topic: give an offset from {begin} to {end}")
    elif not position < to <= end:
        raise UsageError(
            f"{name}: --to {to} passes over nothing: the position is {position} and the topic ends at {end}: give an "
            "offset between them"
        )
    elif to - position > MOST_OFFSETS:
        raise UsageError(f"{name}: --to {to} passes over more than {MOST_OFFSETS:,} offsets: go in smaller steps")


async def _end_of_unreadable(connection: Connection, raw: TopicPartition, position: int, end: int) -> tuple[int, str]:
    """Return (the offset after the unreadable batch at `position`, the read error).

    Raises:
        UsageError: the batch can be read, or there is no record.
        KafkaError: reading the topic is not permitted, or the position is not in the topic.
    """
    consumer = AIOKafkaConsumer(
        **connection.aiokafka_options(),
        enable_auto_commit=False,
        auto_offset_reset="none",
        isolation_level="read_committed",
        max_partition_fetch_bytes=connection.max_request_bytes,
    )
    await consumer.start()
    try:
        consumer.assign([raw])
        consumer.seek(raw, position)
        record = await asyncio.wait_for(consumer.getone(), _READ_WITHIN_S)
    except TimeoutError:
        raise UsageError(
            f"{raw.topic}/{raw.partition}: there is no record at offset {position} or after it: nothing to pass over"
        ) from None
    except _NOT_OF_A_RECORD:
        raise
    except Exception as error:
        return _batch_end(error, position, end), f"{type(error).__name__}: {error}"[:300]
    finally:
        await consumer.stop()
    raise UsageError(
        f"{raw.topic}/{raw.partition}: the next record, at offset {record.offset}, can be read: to pass over it "
        f"nevertheless, give --to {record.offset + 1}"
    )


def _batch_end(error: Exception, position: int, end: int) -> int:
    """Return the offset after the batch whose reading raised `error`; `position` + 1 if the batch is not known."""
    batch = unreadable_batch(error)
    return batch.offsets.stop if batch and position < batch.offsets.stop <= end else position + 1
