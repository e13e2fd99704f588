"""What stands on the raw topic of a run, as tests read it back."""

from __future__ import annotations

import polars as pl
from kafka import TopicPartition

from broker.clients import Connection
from broker.topics import extents, topic_name
from schema.record import RAW, decode
from schema.scenario import FAMILY


def raw_rows(connection: Connection, run: str) -> pl.DataFrame:
    """All rows that the records of `run` hold."""
    topic = topic_name(connection.settings, FAMILY.name, RAW)
    ends = {TopicPartition(topic, p): extent.end for p, extent in extents(connection, topic).items() if extent.end}
    consumer = connection.consumer()
    consumer.assign(list(ends))
    consumer.seek_to_beginning(*ends)
    frames = [pl.DataFrame(schema=FAMILY.wire)]
    while any(consumer.position(partition) < end for partition, end in ends.items()):
        for batch in consumer.poll(timeout_ms=500).values():
            for record in batch:
                headers = dict(record.headers)
                if headers["feedmill-run"] == run.encode() and headers["feedmill-rows"] != b"0":
                    frames.append(decode(record.value, FAMILY.wire, 1000))
    consumer.close()
    return pl.concat(frames)
