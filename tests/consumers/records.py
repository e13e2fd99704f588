"""Write records as the refine stage does: in transactions, whose markers also take offsets."""

from __future__ import annotations

import dataclasses
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

import polars as pl

from broker.clients import Connection
from broker.topics import delete_topics, ensure_topics, extents, list_topics, topic_name, undecided
from schema.family import Family, partition_of
from schema.record import CLEAN, Envelope, encode
from schema.reduction import FAMILY
from tests import reductions

Headers = list[tuple[str, bytes]]


def topic(connection: Connection, stage: str = CLEAN, family: Family = FAMILY) -> str:
    return topic_name(connection.settings, family.name, stage)


def envelope(frame: pl.DataFrame, stage: str = CLEAN, version: int = 1, family: Family = FAMILY) -> Headers:
    return Envelope(family.name, stage, version, "run", 0, uuid.uuid4().hex, frame.height, "raw/0/0").headers()


@contextmanager
def transaction(connection: Connection, *, abort: bool = False) -> Iterator[Any]:
    """A producer in a transaction of its own, committed or aborted at the end."""
    producer = connection.producer(transactional_id=f"test-{uuid.uuid4().hex}")
    producer.init_transactions()
    producer.begin_transaction()
    yield producer
    producer.abort_transaction() if abort else producer.commit_transaction()
    producer.close()


def write(
    connection: Connection,
    frame: pl.DataFrame,
    *,
    stage: str = CLEAN,
    rows_per_record: int = 16,
    timestamp_ms: int | None = None,
    abort: bool = False,
    family: Family = FAMILY,
) -> None:
    """Write `frame` to a stage, every row in its own partition, in one transaction.

    With a given time there is no transaction, because Kafka stamps a marker with the time of writing.
    """
    ensure_topics(connection, [family.name])
    name = topic(connection, stage, family)
    partitions = len(extents(connection, name))
    with transaction(connection, abort=abort) if timestamp_ms is None else closing(connection.producer()) as producer:
        sent = []
        for partition in range(partitions):
            mine = frame.filter(partition_of(family, partitions) == partition)
            for piece in mine.iter_slices(rows_per_record):
                headers = envelope(piece, stage, family=family)
                sent.append(
                    producer.send(name, encode(piece), partition=partition, headers=headers, timestamp_ms=timestamp_ms)
                )
        for future in sent:
            future.get(30)
    # Kafka answers a commit before every partition has its marker, and until then readers do not see the records.
    while undecided(connection, name):
        time.sleep(0.02)


def write_around_abort(connection: Connection, count: int, first: int) -> pl.DataFrame:
    """Write `count` valid rows to clean, `first` of them in a first transaction, and return them.

    Between the two transactions is an aborted one, with 50 other rows.
    """
    written = reductions.valid(count)
    write(connection, written[:first])
    write(connection, reductions.valid(50, first=count), abort=True)
    write(connection, written[first:])
    return written


@contextmanager
def other_clean(connection: Connection, namespace: str, first: int) -> Iterator[pl.DataFrame]:
    """Give 90 valid rows, numbered from `first`, that are in the clean topic of another namespace."""
    written = reductions.valid(90, first=first)
    settings = connection.settings.model_copy(update={"namespace": namespace})
    elsewhere = dataclasses.replace(connection, settings=settings)
    write(elsewhere, written, rows_per_record=8)
    yield written
    delete_topics(elsewhere, list_topics(elsewhere))


def send(
    connection: Connection,
    value: bytes,
    headers: Headers,
    stage: str = CLEAN,
    partition: int = 0,
    family: Family = FAMILY,
) -> None:
    """Write one record as it is."""
    ensure_topics(connection, [family.name])
    producer = connection.producer()
    producer.send(topic(connection, stage, family), value, partition=partition, headers=headers).get(30)
    producer.close()


def forget_before(connection: Connection, offset: int, partitions: Sequence[int] = (0,), stage: str = CLEAN) -> None:
    """Delete the records below `offset`, as retention does."""
    from kafka import TopicPartition

    admin = connection.admin()
    admin.delete_records({TopicPartition(topic(connection, stage), partition): offset for partition in partitions})
    admin.close()
