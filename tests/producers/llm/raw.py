"""Read back the records and rows of the scenario raw topic, for tests."""

from __future__ import annotations

import polars as pl

from broker.clients import Connection
from broker.topics import topic_name
from schema.record import RAW, decode
from schema.scenario import FAMILY
from streams.refine.decode import RawRecord
from tests.topic_records import all_records


def raw_records(connection: Connection) -> list[RawRecord]:
    """Return all records of the family's raw topic."""
    topic = topic_name(connection.settings, FAMILY.name, RAW)
    return [
        RawRecord(topic, read.partition, read.offset, read.timestamp, read.value, read.headers)
        for read in all_records(connection, FAMILY, RAW)
    ]


def raw_rows(connection: Connection, run: str) -> pl.DataFrame:
    """Return all rows of the records of `run`."""
    frames = [pl.DataFrame(schema=FAMILY.wire)]
    for record in raw_records(connection):
        headers = dict(record.headers)
        if headers["feedmill-run"] == run.encode() and headers["feedmill-rows"] != b"0":
            frames.append(decode(record.value or b"", FAMILY.wire, 1000))
    return pl.concat(frames)
