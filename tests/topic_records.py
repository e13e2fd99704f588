"""Read back all committed records of a topic, for tests."""

from __future__ import annotations

from kafka.consumer.fetcher import ConsumerRecord

from broker.clients import Connection
from broker.committed import committed_records
from broker.topics import topic_name
from schema.family import Family


def all_records(connection: Connection, family: Family, stage: str) -> list[ConsumerRecord]:
    """Return every committed record of a stage, by partition and offset."""
    read = committed_records(connection, topic_name(connection.settings, family.name, stage))
    return sorted(read, key=lambda record: (record.partition, record.offset))
