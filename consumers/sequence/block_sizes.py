"""How many offsets make a block, measured from samples of a topic's records.

A record may hold 2,048 rows or 10, but blocks should hold about equally many rows: too few rows cost a seek each, and
too many mix badly. A feed keeps the sizes in its spec, so that a later measurement never changes the order.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from kafka.errors import KafkaError

from broker.clients import Connection
from broker.committed import CommittedReader
from broker.topics import Extent
from consumers.sequence.spec import BlockSizes
from schema.dead_letter import ROWS_HEADER

# The most bytes of a block: larger blocks of long rows would take too much memory while a window is read.
_BLOCK_BYTES = 256 * 1024
# The most places of a partition that are measured, and the least offsets per place.
_MOST_PLACES = 8
_PLACE_OFFSETS = 256
# The most bytes read at one place.
_SAMPLE_BYTES = 64 * 1024
_POLL_S = 0.2
_PATIENCE_S = 5.0
# Assumed for a record without a row count; a reduction takes less on the wire.
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
    places = {partition: _places(extent) for partition, extent in sorted(bounds.items()) if extent.begin < extent.end}
    measured: dict[int, list[tuple[int, int]]] = {}
    if not places:
        return {}
    with CommittedReader(connection, max_partition_fetch_bytes=_SAMPLE_BYTES, retry_backoff_ms=10) as reader:
        for number in range(max(len(each) for each in places.values())):
            ranges = {
                partition: Extent(each[number], bounds[partition].end)
                for partition, each in places.items()
                if number < len(each)
            }
            for partition, records in _sample(reader, topic, ranges).items():
                start = ranges[partition].begin
                size = _size(start, records, block_rows)
                known = measured.setdefault(partition, [])
                if not known or known[-1][1] != size:
                    known.append((start, size))
    return {partition: tuple(sizes) for partition, sizes in measured.items()}


def _places(extent: Extent) -> list[int]:
    offsets = extent.end - extent.begin
    count = min(_MOST_PLACES, -(-offsets // _PLACE_OFFSETS))
    return [extent.begin + number * offsets // count for number in range(count)]


def _sample(reader: CommittedReader, topic: str, ranges: Mapping[int, Extent]) -> dict[int, list[Any]]:
    """Return the first records of each range; a partition that sends no records in time is absent."""
    sampled: dict[int, list[Any]] = {}
    reader.start(topic, ranges)
    deadline = time.monotonic() + _PATIENCE_S
    try:
        while reader.unread and time.monotonic() < deadline:
            for partition, records in reader.poll(_POLL_S).items():
                sampled[partition.partition] = records
                reader.finish(partition)
    except KafkaError:
        # The feed's own reading meets the same error and raises it; until then the default size is good enough.
        return sampled
    return sampled


def _size(start: int, records: list[Any], block_rows: int) -> int:
    offsets = records[-1].offset + 1 - start
    rows = sum(_rows(record) for record in records)
    size_bytes = sum(len(record.value or b"") for record in records)
    wanted = min(block_rows * offsets / max(rows, 1), _BLOCK_BYTES * offsets / max(size_bytes, 1))
    return 1 << max(round(wanted) - 1, 0).bit_length() if wanted > 1 else 1


def _rows(record: Any) -> int:
    """Return a record's row count from its header, or an estimate from its length; only block sizes depend on it."""
    length = len(record.value or b"")
    declared = dict(record.headers).get(ROWS_HEADER) or b""
    # A false header cannot claim more rows than the value has bits.
    return min(int(declared), 8 * length) if declared.isdigit() and len(declared) < 10 else length // _ROW_BYTES
