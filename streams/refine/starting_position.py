"""The offset at which refining of a raw partition begins: the committed position, checked against the topic.

Takes a connection and a family; returns a `Start` for each partition. Nothing else decides where a worker reads.

1. The position is the offset committed under `position_group`, in the transaction that wrote the outputs. Its metadata
   holds the id of the raw topic.
2. Kafka forgets the position of a consumer group without commits, after a week by default. Then the ledger gives it:
   the offset after the last entry of this topic id.
3. A position or entry with another topic id belongs to a raw topic that was deleted. It does not count, and the present
   topic is refined from its beginning.
4. A position beyond the end of the topic is an error: Kafka lost records, or the topic was replaced by one with the
   same id.
5. If the position lies before the beginning of the topic, retention removed records before they were refined. Refining
   begins at the beginning, and the removed offsets are counted as lost.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass

from broker.clients import Connection
from broker.topics import extents, topic_id, topic_name, write_offsets
from schema.errors import RefineError
from schema.family import Family
from schema.record import RAW
from streams.positions import bound_positions
from streams.refine.rebuild import last_ledger_offsets

# A newly elected leader may not know the end of its log yet.
_END_PATIENCE_S = 10.0
_ASK_AGAIN_S = 0.25


@dataclass(frozen=True)
class Start:
    """The offset at which refining of a partition begins.

    Attributes:
        position: the offset of the next raw record to refine.
        lost: how many offsets right before `position` retention removed before they were refined.
        topic_id: Kafka's id of the raw topic, to which the position is bound.
    """

    position: int
    lost: int
    topic_id: str


def starting_positions(connection: Connection, family: Family, partitions: Collection[int]) -> dict[int, Start]:
    """Return the `Start` of each of `partitions`.

    Call it only after fencing each partition's transactional id: then no position can change any more.

    Raises:
        RefineError: a position lies beyond the end of the topic.
        BrokerError: the broker does not answer.
    """
    topic = topic_name(connection.settings, family.name, RAW)
    positions = positions_now(connection, family, partitions)
    deadline = time.monotonic() + _END_PATIENCE_S
    while beyond := _beyond_end(connection, topic, positions):
        if time.monotonic() > deadline:
            partition, end = beyond
            raise RefineError(
                f"{topic}/{partition}: the position is {positions[partition]}, but the topic ends at {end}, so Kafka "
                f"lost records or the topic was replaced: see `feedmill audit {family.name}`, then set the position by "
                f"`feedmill skip {family.name} --partition {partition} --to {end}`"
            )
        time.sleep(_ASK_AGAIN_S)
    own_id = topic_id(connection, topic)
    begins = extents(connection, topic)
    return {
        partition: Start(
            position=max(position, begins[partition].begin),
            lost=max(begins[partition].begin - position, 0),
            topic_id=own_id,
        )
        for partition, position in positions.items()
    }


def positions_now(connection: Connection, family: Family, partitions: Collection[int]) -> dict[int, int]:
    """Return the position of each partition unchecked: the committed one, else the one in the ledger, else 0.

    Raises:
        BrokerError: the broker does not answer.
    """
    topic = topic_name(connection.settings, family.name, RAW)
    own_id = topic_id(connection, topic)
    committed = bound_positions(connection, family.name)
    positions = {partition: committed[partition] for partition in partitions if partition in committed}
    forgotten = [partition for partition in partitions if partition not in positions]
    in_ledger = last_ledger_offsets(connection, family, forgotten, own_id) if forgotten else {}
    return positions | {partition: in_ledger[partition] + 1 if partition in in_ledger else 0 for partition in forgotten}


def _beyond_end(connection: Connection, topic: str, positions: dict[int, int]) -> tuple[int, int] | None:
    """Return (partition, end) of a partition whose position lies beyond its end; None if every position is valid."""
    ends = write_offsets(connection, topic)
    return next(((each, ends[each]) for each, position in positions.items() if position > ends[each]), None)
