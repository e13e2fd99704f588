"""Where a replay begins and ends: offsets or times as a user gives them, made into offsets per partition."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime

from kafka import TopicPartition

from broker.clients import Connection
from broker.topics import Extent, extents
from consumers.reading import gone
from schema.errors import ReplayError, UsageError

Bound = int | datetime


def parse_bound(text: str | None) -> Bound | None:
    """Return an offset (digits only) or a time (ISO 8601; UTC where it names no zone).

    Raises:
        UsageError: it is neither.
    """
    if text is None:
        return None
    if text.isascii() and text.isdecimal():
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"{text!r} is neither an offset nor a time: give digits, or ISO 8601 such as 2031-05-01T12:00:00Z"
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def resolve(connection: Connection, topic: str, start: Bound | None, end: Bound | None) -> dict[int, Extent]:
    """Return the offsets to read of each partition, half-open, all of them there.

    An offset holds for every partition; a time means the first record of each partition at or after it. An end
    beyond what is committed is brought back to it.

    Raises:
        BrokerError: the topic does not exist.
        UsageError: the end lies before the start.
        ReplayError: retention removed records from the start on.
    """
    if isinstance(start, int) and isinstance(end, int) and end < start:
        raise UsageError(f"the replay would end at offset {end}, before its start {start}: exchange them")
    if isinstance(start, datetime) and isinstance(end, datetime) and end < start:
        raise UsageError(f"the replay would end at {end}, before its start {start}: exchange them")
    held = extents(connection, topic)
    starts = _offsets(connection, topic, held, start)
    ends = _offsets(connection, topic, held, end)
    ranges = {}
    for partition, extent in held.items():
        first = starts.get(partition, extent.begin)
        if first < extent.begin:
            raise ReplayError(gone(topic, partition, first, extent))
        last = min(ends.get(partition, extent.end), extent.end)
        first = min(first, extent.end)
        ranges[partition] = Extent(first, max(first, last))
    return ranges


def _offsets(connection: Connection, topic: str, held: Mapping[int, Extent], bound: Bound | None) -> dict[int, int]:
    if bound is None:
        return {}
    if isinstance(bound, int):
        return dict.fromkeys(held, bound)
    # Kafka's clock begins in 1970, and a time before means no other record than that moment; to Kafka, numbers below
    # zero are no times at all.
    moment_ms = max(int(bound.timestamp() * 1000), 0)
    asked = dict.fromkeys((TopicPartition(topic, partition) for partition in held), moment_ms)
    with closing(connection.consumer()) as consumer:
        found = consumer.offsets_for_times(asked)
    # No record that late yet: the partition's end.
    return {
        where.partition: held[where.partition].end if answer is None else answer.offset
        for where, answer in found.items()
    }
