"""Read back all committed records of a topic, for tests."""

from __future__ import annotations

from kafka import TopicPartition
from kafka.consumer.fetcher import ConsumerRecord

from broker.clients import Connection
from broker.topics import extents, topic_name
from schema.family import Family


def all_records(connection: Connection, family: Family, stage: str) -> list[ConsumerRecord]:
    """Return every committed record of a stage, by partition and offset."""
    topic = topic_name(connection.settings, family.name, stage)
    ends = {TopicPartition(topic, p): extent.end for p, extent in extents(connection, topic).items() if extent.end}
    if not ends:
        return []
    consumer = connection.consumer()
    consumer.assign(list(ends))
    consumer.seek_to_beginning(*ends)
    records: list[ConsumerRecord] = []
    while any(consumer.position(partition) < end for partition, end in ends.items()):
        for batch in consumer.poll(timeout_ms=500).values():
            records += batch
    consumer.close()
    return sorted(records, key=lambda record: (record.partition, record.offset))
