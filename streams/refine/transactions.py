"""The transactions of one raw partition: its outputs and its position are written together or not at all.

A `PartitionProducer` has the partition's own transactional id, so starting one fences every other. The outputs of a
group of raw records and the position after the group go in one transaction.
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

# Errors that a single record can cause when it is sent; any other error is a failure of the partition.
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
# A producer may wait long for a broker that is down, but the next owner fences it anyway.
_STOP_WITHIN_S = 10.0


class PartitionProducer:
    """The transactional producer of the owner of one raw partition."""

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
        """Fence every earlier producer of the partition, and end its open transaction.

        Raises:
            KafkaError: the broker cannot be reached, or refuses the producer.
        """
        await self._producer.start()

    async def send(self, outgoing: Sequence[OutRecord], position: int, topic_id: str) -> None:
        """Send records and the new raw position in one transaction.

        `topic_id` is the id of the raw topic, to which the position is bound.

        Raises:
            ProducerFenced: another owner has started a producer of this partition.
            KafkaError: the transaction was not committed, or its outcome is unknown.
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
                # If a later record cannot be sent, this future is never awaited.
                future.add_done_callback(lambda done: done.cancelled() or done.exception())
                sent.append(future)
            # Await all futures, so that no failed one is left unread.
            for outcome in await asyncio.gather(*sent, return_exceptions=True):
                if isinstance(outcome, BaseException):
                    raise outcome
            bound = {self._raw: OffsetAndMetadata(position, topic_id)}
            await producer.send_offsets_to_transaction(bound, position_group(self._settings, self._family.name))
            await producer.commit_transaction()
        except BaseException as error:
            cause = self._cause(error)
            # Raise the first failure, not one of the abort; the broker times out a transaction that is not aborted.
            with contextlib.suppress(Exception):
                await asyncio.wait_for(producer.abort_transaction(), _STOP_WITHIN_S)
            if cause is error:
                raise
            raise cause from error

    def _cause(self, error: BaseException) -> BaseException:
        """Return the error that ended the transaction, if `error` only says that no transaction is under way."""
        if not isinstance(error, IllegalOperation | AssertionError):
            return error
        # aiokafka has no public name for this; its version is pinned.
        ended = self._producer._txn_manager.wait_for_transaction_end()
        if ended is None or not ended.done() or ended.cancelled():
            return error
        cause: BaseException | None = ended.exception()
        return cause or error

    async def stop(self) -> None:
        """Stop the producer; the partition's next producer aborts an open transaction."""
        with contextlib.suppress(Exception):
            await asyncio.wait_for(self._producer.stop(), _STOP_WITHIN_S)
