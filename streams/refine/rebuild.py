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

from broker.clients import Connection
from broker.committed import committed_records
from broker.topics import extents, topic_name
from schema.errors import RecordError, RefineError
from schema.family import Family, partition_of
from schema.ledger_entries import decode_entries
from schema.record import CLEAN, LEDGER, ForeignHeaders, decode
from streams.refine.state import State

log = logging.getLogger(__name__)

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
    # Only the named columns are decompressed.
    names = {"example_id", *family.route.meta.root_names()}
    if any(state.near.is_on for state in rebuilt.values()):
        names |= {"augmented_from", "split", *family.group.meta.root_names()}
        names |= set() if family.text is None else set(family.text.meta.root_names())
    columns = {name: dtype for name, dtype in family.wire.items() if name in names}
    for record in _records(connection, family, CLEAN):
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
    for record in _records(connection, family, LEDGER, rebuilt):
        entries = _entries(record, family)
        if entries is None:
            continue
        counted = entries.explode("coverage", empty_as_null=False).unnest("coverage")
        for (partition,), coverage in counted.group_by("source_partition"):
            if partition in rebuilt:
                rebuilt[int(partition)].gates.remember(coverage)


def last_ledger_offsets(
    connection: Connection, family: Family, partitions: Collection[int], raw_topic_id: str
) -> dict[int, int]:
    """Return the last raw offset in the ledger for each of `partitions`; partitions without an entry are absent.

    Entries of a raw topic with another id than `raw_topic_id` do not count. Kafka forgets a consumer group's offsets
    after a time without commits (a week by default). The ledger is written in the same transactions and is kept.

    Raises:
        RefineError: the broker stops answering.
    """
    offsets: dict[int, int] = {}
    for record in _records(connection, family, LEDGER, partitions):
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


def _records(
    connection: Connection, family: Family, stage: str, partitions: Collection[int] | None = None
) -> Iterator[Any]:
    """Yield all committed records of a stage, or those of some of its partitions."""
    topic = topic_name(connection.settings, family.name, stage)
    silent = f"{topic} stopped answering while state was rebuilt: check the broker, then restart"
    ranges = {
        partition: extent
        for partition, extent in extents(connection, topic).items()
        if partitions is None or partition in partitions
    }
    return committed_records(connection, topic, ranges, lambda _: RefineError(silent))
