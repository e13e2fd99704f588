"""Rebuild a partition's state from the topics, and its position if Kafka has forgotten it.

Ids and texts come from clean. The counters of share gates and the position come from the partition's own ledger. All
partitions of clean are read, and the rows that route to the wanted partitions are kept. So dedup stays right after the
partition count was raised, although older rows were routed by the smaller count.

Anybody can write to a topic. A record that no refine worker wrote, or that cannot be read, is skipped. A warning names
its topic, partition and offset, and `feedmill audit` counts such records. So one record never stops a partition.
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
# If this many polls in a row return no record while records are left, the broker is at fault.
_PATIENCE_POLLS = 60
# Refine workers wrote these records within their own limits, so reading sets none.
_ANY_ROWS = 2**31


def states(connection: Connection, family: Family, wanted: Collection[int], partitions: int) -> dict[int, State]:
    """Return the state of each wanted raw partition, rebuilt from all committed records of clean and the ledger.

    Blocks while it reads clean from its beginning to its last stable offset. If the family has share gates, it also
    reads the ledger of the wanted partitions.

    Raises:
        RefineError: the broker stops answering.
    """
    rebuilt = {partition: State.empty(family, connection.settings) for partition in wanted}
    topic = topic_name(connection.settings, family.name, CLEAN)
    # Only the named columns are decompressed.
    names = {"example_id", *family.route.meta.root_names()}
    if any(state.near.is_on for state in rebuilt.values()):
        names |= {"augmented_from", *family.group.meta.root_names()}
        names |= set() if family.text is None else set(family.text.meta.root_names())
    columns = {name: dtype for name, dtype in family.wire.items() if name in names}
    for record in _records(connection, _ends(connection, topic)):
        clean = _clean_rows(record, family, columns)
        if clean is None:
            continue
        frame = clean.with_columns(partition_of(family, partitions))
        for partition, state in rebuilt.items():
            rows = frame.filter(pl.col("partition") == partition)
            state.ids.admit(rows["example_id"].to_numpy())
            state.near.remember(rows)
    if family.gates:
        _fold_ledger(connection, family, rebuilt)
    return rebuilt


def _fold_ledger(connection: Connection, family: Family, rebuilt: Mapping[int, State]) -> None:
    topic = topic_name(connection.settings, family.name, LEDGER)
    ends = {at: end for at, end in _ends(connection, topic).items() if at.partition in rebuilt}
    for record in _records(connection, ends):
        entries = _entries(record, family)
        if entries is None:
            continue
        counted = entries.explode("coverage", empty_as_null=False).unnest("coverage")
        for (partition,), coverage in counted.group_by("source_partition"):
            if partition in rebuilt:
                rebuilt[int(partition)].gates.remember(coverage)


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
    """Return the last raw offset in the ledger for each of `partitions`; partitions without an entry are absent.

    Entries of a raw topic with another id than `raw_topic_id` do not count. Kafka forgets a consumer group's offsets
    after a time without commits (a week by default). The ledger is written in the same transactions and is kept.

    Raises:
        RefineError: the broker stops answering.
    """
    topic = topic_name(connection.settings, family.name, LEDGER)
    ends = {at: end for at, end in _ends(connection, topic).items() if at.partition in partitions}
    offsets: dict[int, int] = {}
    for record in _records(connection, ends):
        entries = _entries(record, family)
        if entries is None:
            continue
        own = entries.filter(pl.col("source_topic_id").is_null() | (pl.col("source_topic_id") == raw_topic_id))
        for partition, offset in own.group_by("source_partition").agg(pl.col("source_offset").max()).iter_rows():
            offsets[partition] = max(offset, offsets.get(partition, -1))
    return {partition: offset for partition, offset in offsets.items() if partition in partitions}


def _clean_rows(record: Any, family: Family, columns: Mapping[str, pl.DataType]) -> pl.DataFrame | None:
    """Return the rows of a record of clean, or None if it is not a valid clean record."""
    try:
        if ForeignHeaders.parse(record.headers).ce_type != (family.name, CLEAN, family.version):
            raise RecordError("not_a_clean_record", f"its ce_type is not {family.name}.{CLEAN}.v{family.version}")
        return decode(record.value or b"", columns, max_rows=_ANY_ROWS)
    except RecordError as error:
        _pass_over(record, error)
        return None


def _entries(record: Any, family: Family) -> pl.DataFrame | None:
    """Return the entries of a record of the ledger, or None if it is not a valid ledger record."""
    try:
        return decode_entries(record.value, record.headers, family.name, _ANY_ROWS)
    except RecordError as error:
        _pass_over(record, error)
        return None


def _pass_over(record: Any, error: RecordError) -> None:
    log.warning(
        "%s/%d offset %d is skipped, because no refine worker wrote it or it cannot be read (%s: %s): "
        "see `feedmill audit`",
        record.topic,
        record.partition,
        record.offset,
        error.reason,
        error,
    )


def _records(connection: Connection, ends: Mapping[TopicPartition, int]) -> Iterator[Any]:
    """Yield all committed records of the partitions in `ends`, each up to its end."""
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
