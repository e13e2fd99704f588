"""What is rebuilt from the topics themselves: a partition's state, and its position where Kafka has lost it.

Ids and texts come from clean, the counters of share gates and the position from the partition's own ledger. All
partitions of clean are read, and the rows that route here are kept: a row stands where it was routed under the
partition count of its day, so dedup stays right when the count has been raised since.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import polars as pl
from kafka import TopicPartition

from broker.clients import Connection
from broker.topics import extents, topic_name
from schema import ledger
from schema.errors import RefineError
from schema.family import Family, partition_of
from schema.record import CLEAN, LEDGER, decode
from streams.refine.state import State

_POLL_MS = 500
# Without a single record for this long while some are due, the broker is at fault.
_PATIENCE_POLLS = 60
# These are our own records, within the limits that they were written under.
_ANY_ROWS = 2**31


def states(connection: Connection, family: Family, wanted: Collection[int], partitions: int) -> dict[int, State]:
    """Return the state of each wanted raw partition, from all that is committed in clean and the ledger now.

    Blocks while it reads clean from its beginning to its last stable offset, and the ledger of the wanted partitions
    where the family has share gates.

    Raises:
        RefineError: a record cannot be decoded, or the broker stops answering meanwhile.
    """
    found = {partition: State.empty(family, connection.settings) for partition in wanted}
    topic = topic_name(connection.settings, family.name, CLEAN)
    # Only the columns that are asked for are decompressed.
    names = {"example_id", *family.route.meta.root_names()}
    if any(state.near.is_on for state in found.values()):
        names |= {"augmented_from", *family.group.meta.root_names()}
        names |= set() if family.text is None else set(family.text.meta.root_names())
    columns = {name: dtype for name, dtype in family.wire.items() if name in names}
    for value in _values(connection, _ends(connection, topic)):
        frame = decode(value, columns, max_rows=_ANY_ROWS).with_columns(partition_of(family, partitions))
        for partition, state in found.items():
            rows = frame.filter(pl.col("partition") == partition)
            state.ids.admit(rows["example_id"].to_numpy())
            state.near.remember(rows)
    if family.gates:
        _fold_ledger(connection, family, found)
    return found


def _fold_ledger(connection: Connection, family: Family, found: Mapping[int, State]) -> None:
    topic = topic_name(connection.settings, family.name, LEDGER)
    ends = {at: end for at, end in _ends(connection, topic).items() if at.partition in found}
    columns = {name: ledger.COLUMNS[name] for name in ("source_partition", "coverage")}
    for value in _values(connection, ends):
        entries = decode(value, columns, max_rows=_ANY_ROWS)
        counted = entries.explode("coverage", empty_as_null=False).unnest("coverage")
        for (partition,), coverage in counted.group_by("source_partition"):
            found[int(partition)].gates.remember(coverage)


def _ends(connection: Connection, topic: str) -> dict[TopicPartition, int]:
    """Return the last stable offset of each partition of a topic that has records."""
    return {
        TopicPartition(topic, partition): extent.end
        for partition, extent in extents(connection, topic).items()
        if extent.end > extent.begin
    }


def position_after_ledger(connection: Connection, family: Family, partition: int) -> int | None:
    """Return the offset after the last raw record of `partition` that the ledger has an entry for; None if it has none.

    Kafka forgets a group's committed offsets after a while without commits (a week, by default); the ledger, written
    in the same transactions, does not.

    Raises:
        RefineError: the broker stops answering meanwhile.
    """
    topic = topic_name(connection.settings, family.name, LEDGER)
    extent = extents(connection, topic)[partition]
    if extent.end == extent.begin:
        return None
    columns = {"source_offset": ledger.COLUMNS["source_offset"]}
    values = _values(connection, {TopicPartition(topic, partition): extent.end})
    return max((int(decode(value, columns, _ANY_ROWS)["source_offset"].max()) + 1 for value in values), default=None)  # type: ignore[arg-type]


def _values(connection: Connection, ends: Mapping[TopicPartition, int]) -> Iterator[bytes]:
    """Yield the values of all committed records of these partitions below these ends."""
    if not ends:
        return
    consumer = connection.consumer()
    try:
        consumer.assign(list(ends))
        consumer.seek_to_beginning(*ends)
        idle = 0
        while any(consumer.position(partition) < end for partition, end in ends.items()):
            polled = consumer.poll(timeout_ms=_POLL_MS)
            idle = 0 if polled else idle + 1
            if idle > _PATIENCE_POLLS:
                topics = ", ".join(sorted({partition.topic for partition in ends}))
                raise RefineError(f"{topics} stopped answering while state was rebuilt: check the broker, then restart")
            for partition, records in polled.items():
                yield from (record.value for record in records if record.offset < ends[partition])
    finally:
        consumer.close()
