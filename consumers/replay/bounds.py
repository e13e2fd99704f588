"""The begin and end of a replay: offsets or times from a user, resolved to offsets per partition."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime

from kafka import TopicPartition

from broker.clients import Connection
from broker.held_offsets import gone
from broker.topics import Extent, extents
from schema.errors import ReplayError, UsageError

Bound = int | datetime


def parse_bound(text: str | None) -> Bound | None:
    """Parse an offset (digits only) or a time (ISO 8601; UTC unless it names a zone).

    Raises:
        UsageError: the text is neither an offset nor a time.
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
    """Return the offsets to read from each partition, without the end; the topic holds all of them.

    An offset applies to every partition. A time means the first record of each partition at or after it. An end beyond
    the last committed record is moved back to it.

    Raises:
        BrokerError: the topic does not exist.
        UsageError: the end lies before the start.
        ReplayError: retention removed records at the start.
    """
    if isinstance(start, int) and isinstance(end, int) and end < start:
        raise UsageError(f"the replay would end at offset {end}, before its start {start}: exchange them")
    if isinstance(start, datetime) and isinstance(end, datetime) and end < start:
        raise UsageError(f"the replay would end at {end}, before its start {start}: exchange them")
    extents_now = extents(connection, topic)
    starts = _offsets(connection, topic, extents_now, start)
    ends = _offsets(connection, topic, extents_now, end)
    ranges = {}
    for partition, extent in extents_now.items():
        first = starts.get(partition, extent.begin)
        if first < extent.begin:
            raise ReplayError(gone(topic, partition, first, extent))
        last = min(ends.get(partition, extent.end), extent.end)
        first = min(first, extent.end)
        ranges[partition] = Extent(first, max(first, last))
    return ranges


def _offsets(connection: Connection, topic: str, kept: Mapping[int, Extent], bound: Bound | None) -> dict[int, int]:
    if bound is None:
        return {}
    if isinstance(bound, int):
        return dict.fromkeys(kept, bound)
    # Kafka's times begin in 1970, and Kafka refuses numbers below zero. An earlier time selects the same records as 0.
    moment_ms = max(int(bound.timestamp() * 1000), 0)
    asked = dict.fromkeys((TopicPartition(topic, partition) for partition in kept), moment_ms)
    with closing(connection.consumer()) as consumer:
        answers = consumer.offsets_for_times(asked)
    # A partition without such a late record starts at its end.
    return {
        where.partition: kept[where.partition].end if answer is None else answer.offset
        for where, answer in answers.items()
    }
