"""Read back all committed records of a topic, for tests."""

from __future__ import annotations

import time

from kafka.consumer.fetcher import ConsumerRecord

from broker.clients import Connection
from broker.committed import committed_records
from broker.topics import topic_name, undecided
from schema.family import Family

# A transaction that nobody ends is ended by the broker only after minutes; the records before it can be read.
_MARKERS_WITHIN_S = 10.0


def all_records(connection: Connection, family: Family, stage: str) -> list[ConsumerRecord]:
    """Return every committed record of a stage, by partition and offset.

    The broker answers that a transaction is committed before it writes the markers that let its records be read, so
    this waits for the markers.
    """
    topic = topic_name(connection.settings, family.name, stage)
    deadline = time.monotonic() + _MARKERS_WITHIN_S
    while undecided(connection, topic) and time.monotonic() < deadline:
        time.sleep(0.02)
    read = committed_records(connection, topic)
    return sorted(read, key=lambda record: (record.partition, record.offset))
