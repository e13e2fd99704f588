"""Read the ledger of a family: one entry for each raw record, with what became of its rows."""

from __future__ import annotations

import polars as pl

from broker.clients import Connection
from broker.topics import extents, topic_name
from consumers.reading import OffsetBlock, TopicReader
from schema import ledger
from schema.decoding import decode_record
from schema.errors import ReplayError
from schema.record import LEDGER
from schema.registry import family_named


def read_ledger(connection: Connection, family: str) -> pl.DataFrame:
    """Return all ledger entries of a family that are committed now, ordered by the raw record's partition and offset.

    Returns:
        One row for each raw record, (records, columns of `schema.ledger.COLUMNS`): `source_partition` and
        `source_offset` name the record; `rows_in`, `rows_clean`, `rows_rejected`, `rows_rerouted`, `rows_augmented` and
        `rows_lost` count its rows; `reasons` and `coverage` are lists of structs.

    Raises:
        UnknownFamilyError: no such family.
        BrokerError: the topic does not exist, or it cannot be read.
        ReplayError: an entry cannot be decoded.

    Example::

        ledger = read_ledger(connection, "reduction")
        ledger["rows_in"].sum() == coverage["rows_in"]  # True
        reasons = ledger.explode("reasons").unnest("reasons").group_by("reason").agg(pl.sum("rows"))
    """
    topic = topic_name(connection.settings, family_named(family).name, LEDGER)
    kind = (family, LEDGER, ledger.VERSION)
    blocks = [OffsetBlock(number, held.begin, held.end) for number, held in sorted(extents(connection, topic).items())]
    with TopicReader(connection, topic, ReplayError) as reader:
        frames = [
            decode_record(record, topic, kind, ledger.COLUMNS, ReplayError) for _, record in reader.records(blocks)
        ]
    entries = pl.concat([pl.DataFrame(schema=ledger.COLUMNS), *frames])
    return entries.sort("source_partition", "source_offset", maintain_order=True)
