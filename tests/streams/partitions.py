"""Raw records and partition owners for tests of the refine protocol, on the real Kafka."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing

import polars as pl

from broker.clients import Connection
from broker.topics import ensure_topics, topic_name
from schema.record import RAW, Envelope, encode
from schema.reduction import FAMILY
from schema.settings import Settings
from streams.refine.decode import RawRecord
from streams.refine.group_judge import GroupProgress
from streams.refine.partition import PartitionRefiner
from streams.refine.rebuild import states
from streams.refine.starting_position import starting_positions
from tests import reductions
from tests.integration import workers

PARTITION = 0
# Rows of each record.
ROWS = 20


def rows_of(partition: int, count: int, partitions: int, first: int = 0) -> pl.DataFrame:
    """`count` valid rows that belong in one partition."""
    frame = reductions.valid(count * partitions * 2, first=first)
    return frame.filter(pl.col("example_id") % partitions == partition).head(count)


def send_raw(connection: Connection, frames: Sequence[pl.DataFrame], partition: int = PARTITION) -> None:
    """Send each frame to raw as one record."""
    topic = topic_name(connection.settings, FAMILY.name, RAW)
    with closing(connection.producer()) as producer:
        for number, frame in enumerate(frames):
            headers = Envelope(FAMILY.name, RAW, 1, "test", number, 0, frame.height).headers()
            producer.send(topic, value=encode(frame), partition=partition, headers=headers).get(30)


def two_partitions(settings: Settings) -> Settings:
    """Settings under which every topic has two partitions."""
    return settings.model_copy(update={"partitions": 2})


def with_raw(connection: Connection, records: int, different: int) -> Connection:
    """Make raw with `records` records of twenty valid rows in partition 0, the first `different` of them over again."""
    ensure_topics(connection, [FAMILY.name])
    rows = rows_of(PARTITION, different * ROWS, 2)
    send_raw(connection, [rows.slice(number % different * ROWS, ROWS) for number in range(records)])
    return connection


def raw_records(connection: Connection, partition: int = PARTITION) -> list[RawRecord]:
    """All records of a raw partition, each with the offset it follows."""
    topic = topic_name(connection.settings, FAMILY.name, RAW)
    found, follows = [], 0
    for read in workers.records(connection, RAW):
        if read.partition == partition:
            headers = list(read.headers.items())
            found.append(RawRecord(topic, partition, read.offset, 0, read.value, headers, follows=follows))
            follows = read.offset + 1
    return found


class Owner:
    """The owner of one raw partition, with the progress and deaths that it reported."""

    def __init__(self, connection: Connection, partition: int = PARTITION) -> None:
        self.connection = connection
        self.deaths: list[PartitionRefiner] = []
        self.progress: list[GroupProgress] = []
        partitions = connection.settings.partitions
        self.refiner = PartitionRefiner(
            connection, FAMILY, partition, partitions, self.progress.append, self.deaths.append
        )

    async def open(self) -> PartitionRefiner:
        """Steps 1 to 3."""
        refiner = self.refiner
        await refiner.fence()
        start = (await asyncio.to_thread(starting_positions, self.connection, FAMILY, [refiner.partition]))[
            refiner.partition
        ]
        await refiner.resume(start)
        rebuilt = await asyncio.to_thread(states, self.connection, FAMILY, [refiner.partition], refiner.partitions)
        refiner.remember(rebuilt[refiner.partition])
        return refiner


def run(work: Callable[[], Awaitable[None]]) -> None:
    """Run a coroutine to its end."""

    async def all_of_it() -> None:
        await work()

    asyncio.run(all_of_it())
