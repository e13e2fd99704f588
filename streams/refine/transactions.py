"""The transactions of one raw partition: the one way in which its outputs and its position are written.

A `PartitionProducer` has the partition's own transactional id, so starting one fences every other. All that answers for
a group of raw records, and the position that says so, goes in one transaction: all of it is committed, or none.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Sequence

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import (
    IllegalOperation,
    InvalidTimestampError,
    MessageSizeTooLargeError,
    PolicyViolationError,
    RecordListTooLargeError,
)
from aiokafka.structs import OffsetAndMetadata

from broker.clients import Connection
from broker.topics import topic_name
from schema.family import Family
from schema.record import RAW
from streams.positions import position_group
from streams.refine.outbound import OutRecord

# What a single record can bring about when it is sent; anything else is a failure of the partition.
RECORD_FAULTS = (
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    InvalidTimestampError,
    PolicyViolationError,
    TypeError,
    ValueError,
    AssertionError,
    OverflowError,
    struct.error,
)
# A producer whose broker went away may wait for it a long time; the next owner fences it anyway.
_STOP_WITHIN_S = 10.0


class PartitionProducer:
    """A transactional producer for what the owner of one raw partition writes."""

    def __init__(self, connection: Connection, family: Family, partition: int) -> None:
        self._settings = connection.settings
        self._family = family
        self._raw = TopicPartition(topic_name(connection.settings, family.name, RAW), partition)
        self._producer = AIOKafkaProducer(
            **connection.aiokafka_options(),
            transactional_id=f"{self._settings.namespace}.{family.name}.{partition}",
            acks="all",
            max_batch_size=self._settings.record_max_bytes,
            max_request_size=connection.max_request_bytes,
        )

    async def start(self) -> None:
        """Fence every earlier producer of the partition; its open transaction is settled once this returns.

        Raises:
            KafkaError: the broker cannot be reached, or refuses.
        """
        await self._producer.start()

    async def send(self, outgoing: Sequence[OutRecord], position: int, topic_id: str) -> None:
        """Send records, and the raw position that says they are done, in one transaction.

        `topic_id` is the raw topic's: the position is bound to it.

        Raises:
            ProducerFenced: somebody else has started a producer of this partition.
            KafkaError: it was not committed, or nobody knows.
            One of RECORD_FAULTS: one of the records cannot be sent.
        """
        producer = self._producer
        await producer.begin_transaction()
        try:
            sent = []
            for record in outgoing:
                future = await producer.send(
                    topic_name(self._settings, self._family.name, record.stage),
                    record.value,
                    key=record.key,
                    partition=record.partition,
                    headers=record.headers,
                )
                # Where a later one cannot be sent, nobody waits for this one any more.
                future.add_done_callback(lambda done: done.cancelled() or done.exception())
                sent.append(future)
            # All are waited for, so that no failure of another is left unseen.
            for outcome in await asyncio.gather(*sent, return_exceptions=True):
                if isinstance(outcome, BaseException):
                    raise outcome
            bound = {self._raw: OffsetAndMetadata(position, topic_id)}
            await producer.send_offsets_to_transaction(bound, position_group(self._settings, self._family.name))
            await producer.commit_transaction()
        except BaseException as error:
            cause = self._cause(error)
            # The failure that led here is the one to tell; what cannot be aborted, the broker times out.
            with contextlib.suppress(Exception):
                await asyncio.wait_for(producer.abort_transaction(), _STOP_WITHIN_S)
            if cause is error:
                raise
            raise cause from error

    def _cause(self, error: BaseException) -> BaseException:
        """Return what ended the transaction, where `error` only says that none is under way any more."""
        if not isinstance(error, IllegalOperation | AssertionError):
            return error
        # The client keeps it to itself; its versions are pinned, and this part has no name.
        ended = self._producer._txn_manager.wait_for_transaction_end()
        if ended is None or not ended.done() or ended.cancelled():
            return error
        found: BaseException | None = ended.exception()
        return found or error

    async def stop(self) -> None:
        """Stop the producer; what is uncommitted is aborted by the next one of the partition."""
        with contextlib.suppress(Exception):
            await asyncio.wait_for(self._producer.stop(), _STOP_WITHIN_S)
