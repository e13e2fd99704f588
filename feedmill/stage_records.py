"""Reads all committed records of one stage of a family, partition by partition.

Takes a connection, a family, a stage and perhaps blocks of offsets. Yields `consumers.reading.Record`s, and reports the
number of offsets read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from schema.family import Family

if TYPE_CHECKING:
    from broker.clients import Connection
    from consumers.reading import OffsetBlock, Record

# Called with the number of offsets read so far, and the number of offsets to read.
OnProgress = Callable[[int, int], None]


def stage_records(
    connection: Connection,
    family: Family,
    stage: str,
    on_progress: OnProgress | None = None,
    blocks: Sequence[OffsetBlock] | None = None,
) -> Iterator[Record]:
    """Yield the committed records in `blocks`; without `blocks`, all records of the stage that are committed now.

    Raises:
        BrokerError: the topic cannot be read.
        ReplayError: retention removed an offset during the read.
    """
    from broker.topics import extents, topic_name
    from consumers.reading import OffsetBlock, TopicReader
    from schema.errors import ReplayError

    topic = topic_name(connection.settings, family.name, stage)
    if blocks is None:
        blocks = [
            OffsetBlock(partition, held.begin, held.end) for partition, held in extents(connection, topic).items()
        ]
    blocks = [block for block in blocks if block.end > block.begin]
    before = [0]
    for block in blocks:
        before.append(before[-1] + block.end - block.begin)
    with TopicReader(connection, topic, ReplayError) as reader:
        for number, record in reader.records(blocks):
            yield record
            if on_progress:
                on_progress(before[number] + record.offset + 1 - blocks[number].begin, before[-1])
