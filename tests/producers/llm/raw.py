"""Read back the records and rows of the scenario raw topic, for tests."""

from __future__ import annotations

import polars as pl
from kafka import TopicPartition

from broker.clients import Connection
from broker.topics import extents, topic_name
from schema.record import RAW, decode
from schema.scenario import FAMILY
from streams.refine.decode import RawRecord


def raw_records(connection: Connection) -> list[RawRecord]:
    """Return all records of the family's raw topic."""
    topic = topic_name(connection.settings, FAMILY.name, RAW)
    ends = {TopicPartition(topic, p): extent.end for p, extent in extents(connection, topic).items() if extent.end}
    consumer = connection.consumer()
    consumer.assign(list(ends))
    consumer.seek_to_beginning(*ends)
    records: list[RawRecord] = []
    while any(consumer.position(partition) < end for partition, end in ends.items()):
        for batch in consumer.poll(timeout_ms=500).values():
            records += [RawRecord(topic, r.partition, r.offset, r.timestamp, r.value, r.headers) for r in batch]
    consumer.close()
    return records


def raw_rows(connection: Connection, run: str) -> pl.DataFrame:
    """Return all rows of the records of `run`."""
    frames = [pl.DataFrame(schema=FAMILY.wire)]
    for record in raw_records(connection):
        headers = dict(record.headers)
        if headers["feedmill-run"] == run.encode() and headers["feedmill-rows"] != b"0":
            frames.append(decode(record.value or b"", FAMILY.wire, 1000))
    return pl.concat(frames)
