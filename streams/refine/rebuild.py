"""State rebuilt from the topics themselves: the dedup index of a partition comes from the ids in clean.

All partitions of clean are read, and the rows that route here are kept: a row stands where it was routed under the
partition count of its day, so dedup stays right when the count has been raised since.
"""

from __future__ import annotations

from collections.abc import Collection

import polars as pl
from kafka import TopicPartition

from broker.clients import Connection
from broker.topics import extents, topic_name
from schema.errors import RefineError
from schema.family import Family, partition_of
from schema.record import CLEAN, decode
from streams.refine.dedup import DedupIndex

_POLL_MS = 500
# Without a single record for this long while some are due, the broker is at fault.
_PATIENCE_POLLS = 60


def dedup_indices(
    connection: Connection, family: Family, wanted: Collection[int], partitions: int
) -> dict[int, DedupIndex]:
    """Return the dedup index of each wanted raw partition, from all that is committed in clean now.

    Blocks while it reads clean from its beginning to its last stable offset (about 10M ids/s).

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
    consumer = connection.consumer()
    try:
        consumer.assign(list(ends))
        consumer.seek_to_beginning(*ends)
        idle = 0
        while any(consumer.position(partition) < end for partition, end in ends.items()):
            polled = consumer.poll(timeout_ms=_POLL_MS)
            idle = 0 if polled else idle + 1
            if idle > _PATIENCE_POLLS:
                raise RefineError(f"{topic} stopped answering while its ids were read: check the broker, then restart")
            for partition, records in polled.items():
                for record in records:
                    if record.offset < ends[partition]:
                        _remember(record.value, columns, family, partitions, indices)
    finally:
        consumer.close()
    return indices


def _remember(
    value: bytes, columns: dict[str, pl.DataType], family: Family, partitions: int, indices: dict[int, DedupIndex]
) -> None:
    frame = decode(value, columns, max_rows=2**31).select("example_id", partition_of(family, partitions))
    for partition, index in indices.items():
        index.admit(frame.filter(pl.col("partition") == partition)["example_id"].to_numpy())
