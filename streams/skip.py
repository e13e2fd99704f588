"""Pass over raw records that cannot be read, and account for them.

Takes a connection, a family and a partition; moves the position in one transaction with the ledger entries and a dead
letter. The partition's transactional id is used, so a worker that owns it is fenced and opens it again.

1. Fence whoever owns the partition.
2. Read the position, and the end of the topic.
3. Find how far to go: to the end of the batch that cannot be read, or to where the user says.
4. Send one ledger entry for each offset passed over, a dead letter that names them, and the new position; commit. What
   retention removed before the position is counted as lost, as a worker would.
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

# What is asked of the log at a time, at most; each becomes a ledger entry.
MOST_OFFSETS = 1_000_000
_READ_WITHIN_S = 20.0
# Errors that are about the rights or the position, not about a record.
_NOT_OF_A_RECORD = (NoOffsetForPartitionError, OffsetOutOfRangeError, TopicAuthorizationFailedError)


@dataclass(frozen=True)
class SkipReport:
    """What was passed over: offsets `begin` to `end` - 1 of a raw partition; none where only the position was moved."""

    family: str
    partition: int
    begin: int
    end: int
    error: str | None

    @property
    def skipped(self) -> int:
        """How many offsets were passed over."""
        return max(self.end - self.begin, 0)


def skip(connection: Connection, family: Family, partition: int, to: int | None = None) -> SkipReport:
    """Pass over the record at the position that cannot be read, with its batch; or over all before offset `to`.

    Where the position lies beyond the end of the topic, it is moved back to `to`, and nothing is passed over.

    Raises:
        UsageError: there is no such partition; the record can be read, and no `to` was given; `to` is out of range.
        RefineError: the transaction failed.
        BrokerError: the broker cannot be asked.
    """
    topic = topic_name(connection.settings, family.name, RAW)
    ends = write_offsets(connection, topic)
    if partition not in ends:
        raise UsageError(f"{topic} has no partition {partition}: use one of 0 to {len(ends) - 1}")
    return asyncio.run(_skip(connection, family, TopicPartition(topic, partition), ends[partition], to))


async def _skip(connection: Connection, family: Family, raw: TopicPartition, end: int, to: int | None) -> SkipReport:
    # 1. Nobody else's transaction can move the position from here on.
    producer = PartitionProducer(connection, family, raw.partition)
    await producer.start()
    try:
        # 2.
        found = await asyncio.to_thread(positions_now, connection, family, [raw.partition])
        begin = await asyncio.to_thread(lambda: extents(connection, raw.topic)[raw.partition].begin)
        position = max(found[raw.partition], begin)
        error = None
        # 3.
        if to is None:
            to, error = await _end_of_unreadable(connection, raw, position, end)
        _check(raw, position, begin, end, to)
        # 4.
        own_id = await asyncio.to_thread(topic_id, connection, raw.topic)
        offsets = range(position, to)
        told = []
        if position > found[raw.partition]:
            told = [loss_record(family, raw, Start(position, position - found[raw.partition], own_id))]
        if offsets:
            told += [skip_record(family, raw, own_id, offsets), skip_letter(raw, offsets, error or "on request")]
        await producer.send(told, to, own_id)
    except KafkaError as failure:
        raise RefineError(
            f"{raw.topic}/{raw.partition}: nothing was passed over ({type(failure).__name__}: {failure}): check the "
            "broker (feedmill doctor) and try again"
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
            f"{name}: --to {to} passes over nothing: refining stands at {position}, and the topic ends at {end}"
        )
    elif to - position > MOST_OFFSETS:
        raise UsageError(f"{name}: --to {to} passes over more than {MOST_OFFSETS:,} offsets: go in smaller steps")


async def _end_of_unreadable(connection: Connection, raw: TopicPartition, position: int, end: int) -> tuple[int, str]:
    """Return (the offset after the batch at `position` that cannot be read, why it cannot).

    Raises:
        UsageError: it can be read, or there is none.
        KafkaError: it may not be read, or the position is not in the topic.
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
            f"{raw.topic}/{raw.partition}: no record stands at offset {position} or after it: nothing to pass over"
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
    """Return the offset after the batch whose reading raised `error`; after one offset where no batch is known."""
    batch = unreadable_batch(error)
    return batch.offsets.stop if batch and position < batch.offsets.stop <= end else position + 1
