"""What is rebuilt from the topics themselves: a partition's state, and its position where Kafka has lost it.

Ids and texts come from clean, the counters of share gates and the position from the partition's own ledger. All
partitions of clean are read, and the rows that route here are kept: a row stands where it was routed under the
partition count of its day, so dedup stays right when the count has been raised since.

Anybody can write to a topic. A record there that no refine worker wrote, or that cannot be read, is passed over with a
warning that names topic, partition and offset: one record never stops a partition. `feedmill audit` counts them.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import polars as pl
from kafka import TopicPartition

from broker.clients import Connection
from broker.topics import extents, topic_name
from schema.errors import RecordError, RefineError
from schema.family import Family, partition_of
from schema.ledger_entries import decode_entries
from schema.record import CLEAN, LEDGER, ForeignHeaders, decode
from streams.refine.state import State

log = logging.getLogger(__name__)

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
        RefineError: the broker stops answering meanwhile.
    """
    found = {partition: State.empty(family, connection.settings) for partition in wanted}
    topic = topic_name(connection.settings, family.name, CLEAN)
    # Only the columns that are asked for are decompressed.
    names = {"example_id", *family.route.meta.root_names()}
    if any(state.near.is_on for state in found.values()):
        names |= {"augmented_from", *family.group.meta.root_names()}
        names |= set() if family.text is None else set(family.text.meta.root_names())
    columns = {name: dtype for name, dtype in family.wire.items() if name in names}
    for record in _records(connection, _ends(connection, topic)):
        clean = _clean_rows(record, family, columns)
        if clean is None:
            continue
        frame = clean.with_columns(partition_of(family, partitions))
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
    for record in _records(connection, ends):
        entries = _entries(record, family)
        if entries is None:
            continue
        counted = entries.explode("coverage", empty_as_null=False).unnest("coverage")
        for (partition,), coverage in counted.group_by("source_partition"):
            if partition in found:
                found[int(partition)].gates.remember(coverage)


def _ends(connection: Connection, topic: str) -> dict[TopicPartition, int]:
    """Return the last stable offset of each partition of a topic that has records."""
    return {
        TopicPartition(topic, partition): extent.end
        for partition, extent in extents(connection, topic).items()
        if extent.end > extent.begin
    }


def last_ledger_offsets(
    connection: Connection, family: Family, partitions: Collection[int], raw_topic_id: str
) -> dict[int, int]:
    """Return the last raw offset of each of `partitions` that the ledger accounts for; one without an entry is absent.

    Entries of a raw topic with another id than `raw_topic_id` do not count. Kafka forgets a group's committed offsets
    after a while without commits (a week, by default); the ledger, written in the same transactions, does not.

    Raises:
        RefineError: the broker stops answering meanwhile.
    """
    topic = topic_name(connection.settings, family.name, LEDGER)
    ends = {at: end for at, end in _ends(connection, topic).items() if at.partition in partitions}
    found: dict[int, int] = {}
    for record in _records(connection, ends):
        entries = _entries(record, family)
        if entries is None:
            continue
        own = entries.filter(pl.col("source_topic_id").is_null() | (pl.col("source_topic_id") == raw_topic_id))
        for partition, offset in own.group_by("source_partition").agg(pl.col("source_offset").max()).iter_rows():
            found[partition] = max(offset, found.get(partition, -1))
    return {partition: offset for partition, offset in found.items() if partition in partitions}


def _clean_rows(record: Any, family: Family, columns: Mapping[str, pl.DataType]) -> pl.DataFrame | None:
    """Return the rows of a record of clean, or None where it is none."""
    try:
        if ForeignHeaders.parse(record.headers).ce_type != (family.name, CLEAN, family.version):
            raise RecordError("not_a_clean_record", f"its ce_type is not {family.name}.{CLEAN}.v{family.version}")
        return decode(record.value or b"", columns, max_rows=_ANY_ROWS)
    except RecordError as error:
        _pass_over(record, error)
        return None


def _entries(record: Any, family: Family) -> pl.DataFrame | None:
    """Return the entries of a record of the ledger, or None where it is none."""
    try:
        return decode_entries(record.value, record.headers, family.name, _ANY_ROWS)
    except RecordError as error:
        _pass_over(record, error)
        return None


def _pass_over(record: Any, error: RecordError) -> None:
    log.warning(
        "%s/%d offset %d was not written by a refine worker, or cannot be read (%s: %s), and is passed over: "
        "see `feedmill audit`",
        record.topic,
        record.partition,
        record.offset,
        error.reason,
        error,
    )


def _records(connection: Connection, ends: Mapping[TopicPartition, int]) -> Iterator[Any]:
    """Yield all committed records of these partitions below these ends."""
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
                yield from (record for record in records if record.offset < ends[partition])
    finally:
        consumer.close()
