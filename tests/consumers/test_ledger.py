"""Reading a family's ledger: entries in the order of the raw records, and an error for a record of another kind."""

from __future__ import annotations

import polars as pl
import pytest

from broker.clients import Connection
from broker.topics import ensure_topics, topic_name
from consumers.ledger import read_ledger
from schema import ledger
from schema.errors import ReplayError, UnknownFamilyError
from schema.record import LEDGER, Envelope, encode
from schema.reduction import FAMILY


def send(connection: Connection, partition: int, offsets: list[int]) -> None:
    """Send one ledger record with an entry for each of these raw offsets."""
    entries = pl.DataFrame(
        {name: [None] * len(offsets) for name in ledger.COLUMNS}, schema=ledger.COLUMNS
    ).with_columns(source_partition=pl.lit(partition, pl.Int32), source_offset=pl.Series(offsets, dtype=pl.Int64))
    envelope = Envelope(FAMILY.name, LEDGER, ledger.VERSION, "r", 0, 0, entries.height)
    producer = connection.producer()
    topic = topic_name(connection.settings, FAMILY.name, LEDGER)
    producer.send(topic, encode(entries), partition=partition, headers=envelope.headers()).get(30)
    producer.close()


def test_entries_are_ordered_by_partition_and_offset_of_the_raw_record(connection: Connection) -> None:
    ensure_topics(connection, [FAMILY.name])
    empty = read_ledger(connection, FAMILY.name)
    assert (empty.height, dict(empty.schema)) == (0, ledger.COLUMNS)
    send(connection, 1, [0, 1])
    send(connection, 0, [5, 6])
    send(connection, 1, [2])
    places = read_ledger(connection, FAMILY.name).select("source_partition", "source_offset").rows()
    assert places == [(0, 5), (0, 6), (1, 0), (1, 1), (1, 2)]


def test_a_record_that_is_no_entry_and_an_unknown_family_are_refused(connection: Connection) -> None:
    ensure_topics(connection, [FAMILY.name])
    producer = connection.producer()
    producer.send(topic_name(connection.settings, FAMILY.name, LEDGER), b"{}", partition=0).get(30)
    producer.close()
    with pytest.raises(ReplayError, match=r"ledger/0 offset 0 has type \(missing\)"):
        read_ledger(connection, FAMILY.name)
    with pytest.raises(UnknownFamilyError):
        read_ledger(connection, "poetry")
