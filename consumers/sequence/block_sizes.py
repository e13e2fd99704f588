"""How many offsets make a block: measured once, where a topic's records have more or fewer rows.

A record holds 2,048 rows or 10, and blocks should hold about as many rows everywhere: too few cost a jump each, and too
many mix badly. Takes a topic and its bounds; gives sizes that a feed keeps in its spec, so that a measure that would
come out differently later never changes the order.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from kafka import TopicPartition
from kafka.errors import KafkaError

from broker.clients import Connection
from broker.topics import Extent
from consumers.sequence.spec import BlockSizes
from schema.dead_letter import ROWS_HEADER

# A block of long rows ends here: with more, the blocks of a window would take too much memory on their way in.
_BLOCK_BYTES = 256 * 1024
# Places of a partition that are measured, at most, and how many offsets one stands for, at least.
_MOST_PLACES = 8
_PLACE_OFFSETS = 256
# What one place may bring.
_SAMPLE_BYTES = 64 * 1024
_POLL_MS = 200
_PATIENCE_S = 5.0
# For a record whose header says nothing: what a reduction takes on the wire, and more.
_ROW_BYTES = 64


def block_sizes(connection: Connection, topic: str, bounds: Mapping[int, Extent], block_rows: int) -> BlockSizes:
    """Return {partition: ((first offset, offsets to a block), ...)}, ascending; a partition without records is absent.

    Reads up to 64 KiB at up to 8 places of each partition. Sizes are powers of two.

    Args:
        connection: the broker to ask.
        topic: its full name.
        bounds: [begin, end) per partition.
        block_rows: rows that a block should have.
    """
    places = {
        TopicPartition(topic, partition): _places(extent)
        for partition, extent in sorted(bounds.items())
        if extent.begin < extent.end
    }
    ends = {partition: bounds[partition.partition].end for partition in places}
    found: dict[int, list[tuple[int, int]]] = {}
    if not places:
        return {}
    with connection.lend_consumer(max_partition_fetch_bytes=_SAMPLE_BYTES, retry_backoff_ms=10) as consumer:
        for number in range(max(len(each) for each in places.values())):
            starts = {partition: each[number] for partition, each in places.items() if number < len(each)}
            sampled = _sample(consumer, starts, ends)
            for partition, records in sampled.items():
                size = _size(starts[partition], records, block_rows)
                known = found.setdefault(partition.partition, [])
                if not known or known[-1][1] != size:
                    known.append((starts[partition], size))
    return {partition: tuple(sizes) for partition, sizes in found.items()}


def _places(extent: Extent) -> list[int]:
    offsets = extent.end - extent.begin
    count = min(_MOST_PLACES, -(-offsets // _PLACE_OFFSETS))
    return [extent.begin + number * offsets // count for number in range(count)]


def _sample(
    consumer: Any, starts: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]
) -> dict[TopicPartition, list[Any]]:
    """Return the first records at the given offsets; a partition that gives none in time is absent."""
    found: dict[TopicPartition, list[Any]] = {}
    consumer.assign(list(starts))
    for partition, offset in starts.items():
        consumer.resume(partition)
        consumer.seek(partition, offset)
    deadline = time.monotonic() + _PATIENCE_S
    waiting = set(starts)
    try:
        while waiting and time.monotonic() < deadline:
            for partition, records in consumer.poll(timeout_ms=_POLL_MS).items():
                found.setdefault(partition, records)
                consumer.pause(partition)
            # Transaction markers and aborted records take offsets and are never returned.
            waiting = {each for each in waiting - found.keys() if consumer.position(each) < ends[each]}
    except KafkaError:
        # Whoever reads next meets the same error and tells it; here a usual size will do.
        return found
    return found


def _size(start: int, records: list[Any], block_rows: int) -> int:
    offsets = records[-1].offset + 1 - start
    rows = sum(_rows(record) for record in records)
    size_bytes = sum(len(record.value or b"") for record in records)
    wanted = min(block_rows * offsets / max(rows, 1), _BLOCK_BYTES * offsets / max(size_bytes, 1))
    return 1 << max(round(wanted) - 1, 0).bit_length() if wanted > 1 else 1


def _rows(record: Any) -> int:
    """Return how many rows a record says it has, or what its length lets expect; only sizes follow from it."""
    value = len(record.value or b"")
    said = dict(record.headers).get(ROWS_HEADER) or b""
    # No row takes less than a bit.
    return min(int(said), 8 * value) if said.isdigit() and len(said) < 10 else value // _ROW_BYTES
