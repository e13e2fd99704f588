"""Where refining of a raw partition begins: the committed position, checked against the topic as it is now.

Takes a connection and a family; gives a `Start` for each partition. Nothing else decides where a worker reads.

1. The position is the offset committed under `position_group`, in the transaction that wrote the outputs. Its metadata
   holds the id of the raw topic.
2. Where Kafka has forgotten it (a group without commits, after a week by default), the ledger tells it: the offset
   after the last entry of this topic id.
3. A position or an entry with another topic id speaks of a raw topic that was deleted: it does not count, and the topic
   that stands there now is refined from its beginning.
4. A position beyond the end of the topic is an error: Kafka lost records, or the topic was replaced unseen.
5. A position before the beginning of the topic means that retention removed records before they were refined. Refining
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

# A leader that has just been elected may not know the end of its log yet.
_END_PATIENCE_S = 10.0
_ASK_AGAIN_S = 0.25


@dataclass(frozen=True)
class Start:
    """Where refining of a partition begins.

    Attributes:
        position: the offset of the next raw record to refine.
        lost: the offsets right before it that retention removed before they were refined.
        topic_id: Kafka's id of the raw topic, to which the position is bound.
    """

    position: int
    lost: int
    topic_id: str


def starting_positions(connection: Connection, family: Family, partitions: Collection[int]) -> dict[int, Start]:
    """Return where refining of each of `partitions` begins.

    Call it only once each partition's transactional id is fenced: then no position can change any more.

    Raises:
        RefineError: a position lies beyond the end of the topic.
        BrokerError: the broker cannot be asked.
    """
    topic = topic_name(connection.settings, family.name, RAW)
    found = positions_now(connection, family, partitions)
    deadline = time.monotonic() + _END_PATIENCE_S
    while beyond := _beyond_end(connection, topic, found):
        if time.monotonic() > deadline:
            partition, end = beyond
            raise RefineError(
                f"{topic}/{partition}: refining stands at offset {found[partition]}, but the topic ends at {end}, so "
                f"Kafka lost records or the topic was replaced: see `feedmill audit {family.name}`, then set the "
                f"position by `feedmill skip {family.name} --partition {partition} --to {end}`"
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
        for partition, position in found.items()
    }


def positions_now(connection: Connection, family: Family, partitions: Collection[int]) -> dict[int, int]:
    """Return the position of each partition as committed, else as the ledger tells it, else 0; nothing is checked.

    Raises:
        BrokerError: the broker cannot be asked.
    """
    topic = topic_name(connection.settings, family.name, RAW)
    own_id = topic_id(connection, topic)
    committed = bound_positions(connection, family.name)
    found = {partition: committed[partition] for partition in partitions if partition in committed}
    forgotten = [partition for partition in partitions if partition not in found]
    told = last_ledger_offsets(connection, family, forgotten, own_id) if forgotten else {}
    return found | {partition: told[partition] + 1 if partition in told else 0 for partition in forgotten}


def _beyond_end(connection: Connection, topic: str, positions: dict[int, int]) -> tuple[int, int] | None:
    """Return (partition, end) of a partition whose position lies beyond its end; None if there is none."""
    ends = write_offsets(connection, topic)
    return next(((each, ends[each]) for each, position in positions.items() if position > ends[each]), None)
