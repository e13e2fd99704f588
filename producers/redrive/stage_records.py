"""Read the committed records of one stage of a family, partition by partition.

Takes a connection, a family, a stage and perhaps offset ranges. Yields Kafka's records, and reports the number of
offsets read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from kafka import TopicPartition
from kafka.errors import KafkaError, OffsetOutOfRangeError

from broker.clients import Connection
from broker.committed import SILENCE_S, CommittedReader
from broker.held_offsets import gone
from broker.topics import Extent, extents, topic_name
from schema.errors import BrokerUnavailableError, ProducerError
from schema.family import Family

# Called with the number of offsets read so far, and the number of offsets to read.
OnProgress = Callable[[int, int], None]


def stage_records(
    connection: Connection,
    family: Family,
    stage: str,
    on_progress: OnProgress | None = None,
    ranges: Sequence[tuple[int, Extent]] | None = None,
) -> Iterator[Any]:
    """Yield the committed records of `ranges`; without `ranges`, all records of the stage that are committed now.

    Args:
        connection: the broker to read from.
        family, stage: they name the topic.
        on_progress: called after each record.
        ranges: (partition, its offsets to read), in the order in which they are read.

    Raises:
        BrokerError: the topic cannot be read.
        ProducerError: retention removed an offset during the read.
    """
    topic = topic_name(connection.settings, family.name, stage)
    if ranges is None:
        ranges = sorted(extents(connection, topic).items())
    ranges = [(partition, extent) for partition, extent in ranges if extent.end > extent.begin]
    if not ranges:
        return
    total, before = sum(extent.end - extent.begin for _, extent in ranges), 0
    with CommittedReader(connection, silent=_silent) as reader:
        for partition, extent in ranges:
            place = TopicPartition(topic, partition)
            reader.start(topic, {partition: extent})
            while reader.unread:
                for record in _poll(connection, reader, place):
                    yield record
                    if on_progress:
                        on_progress(before + record.offset + 1 - extent.begin, total)
            before += extent.end - extent.begin


def _poll(connection: Connection, reader: CommittedReader, place: TopicPartition) -> list[Any]:
    try:
        return reader.poll().get(place, [])
    except OffsetOutOfRangeError as error:
        held = extents(connection, place.topic)[place.partition]
        raise ProducerError(gone(place.topic, place.partition, error.args[0][place], held)) from None
    except KafkaError as error:
        raise BrokerUnavailableError(f"{place.topic} cannot be read ({error}): run `feedmill doctor`") from error


def _silent(unread: str) -> BrokerUnavailableError:
    return BrokerUnavailableError(
        f"{unread}: no answer in {SILENCE_S:.0f} s: check that the broker is up (`feedmill doctor`)"
    )
