"""The documents of code's clean topic, in the topic's order: for training a tokenizer, and for evaluating them."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from broker.clients import Connection
from broker.retractions import retracted_ids, retraction_bound
from broker.topics import topic_name
from consumers.reading import OffsetBlock, TopicReader
from consumers.replay.bounds import resolve
from schema.decoding import decode_record, is_foreign
from schema.errors import ReplayError
from schema.record import CLEAN, RETRACTIONS
from schema.retractions import is_retracted
from schema.source_code import FAMILY

_READ = ("text", "split", "example_id", "augmented_from")


def train_texts(connection: Connection) -> Iterator[str]:
    """Yield the text of each document of split train that is not retracted; raises as `clean_documents` does."""
    for rows in clean_documents(connection):
        yield from rows.filter(pl.col("split") == "train")["text"]


def clean_documents(connection: Connection, *further: str) -> Iterator[pl.DataFrame]:
    """Yield the documents that are not retracted, a frame for each record.

    Args:
        further: columns beside text, split, example_id and augmented_from.

    Raises:
        BrokerError: there is no clean topic, or the broker cannot be read.
        ReplayError: a record cannot be read.
    """
    topic = topic_name(connection.settings, FAMILY.name, CLEAN)
    kind, columns = (FAMILY.name, CLEAN, FAMILY.version), {name: FAMILY.wire[name] for name in (*_READ, *further)}
    ranges = resolve(connection, topic, None, None)
    retractions = topic_name(connection.settings, FAMILY.name, RETRACTIONS)
    ids = retracted_ids(connection, retractions, retraction_bound(connection, retractions), ReplayError)
    blocks = [OffsetBlock(number, extent.begin, extent.end) for number, extent in sorted(ranges.items())]
    with TopicReader(connection, topic, ReplayError) as reader:
        for _, record in reader.records(blocks):
            if not is_foreign(record, topic, kind):
                rows = decode_record(record, topic, kind, columns, ReplayError)
                yield rows.filter(~is_retracted(rows, ids))
