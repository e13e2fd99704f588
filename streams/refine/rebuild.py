"""What is rebuilt from the topics themselves: a partition's dedup index from clean, a lost position from the ledger.

All partitions of clean are read, and the rows that route here are kept: a row stands where it was routed under the
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
from streams.refine.dedup import DedupIndex

_POLL_MS = 500
# Without a single record for this long while some are due, the broker is at fault.
_PATIENCE_POLLS = 60
# These are our own records, within the limits that they were written under.
_ANY_ROWS = 2**31


def dedup_indices(
    connection: Connection, family: Family, wanted: Collection[int], partitions: int
) -> dict[int, DedupIndex]:
    """Return the dedup index of each wanted raw partition, from all that is committed in clean now.

    Blocks while it reads clean from its beginning to its last stable offset.

    Raises:
        RefineError: a clean record cannot be decoded, or the broker stops answering meanwhile.
    """
    indices = {partition: DedupIndex(connection.settings.dedup_window_rows) for partition in wanted}
    topic = topic_name(connection.settings, family.name, CLEAN)
    ends = {
        TopicPartition(topic, partition): extent.end
        for partition, extent in extents(connection, topic).items()
        if extent.end > extent.begin
    }
    if not ends:
        return indices
    # Only the columns that the route and the id need are decompressed.
    names = {"example_id", *family.route.meta.root_names()}
    columns = {name: dtype for name, dtype in family.wire.items() if name in names}
    for value in _values(connection, ends):
        frame = decode(value, columns, max_rows=_ANY_ROWS).select("example_id", partition_of(family, partitions))
        for partition, index in indices.items():
            index.admit(frame.filter(pl.col("partition") == partition)["example_id"].to_numpy())
    return indices


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
