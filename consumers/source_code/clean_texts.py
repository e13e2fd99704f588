"""The documents of code's clean topic, in the topic's order: for training a tokenizer, and to count them."""

from __future__ import annotations

from collections.abc import Collection, Iterator

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

# Which rows are read depends on these columns.
_ALWAYS = ("split", "example_id", "augmented_from")


def train_texts(connection: Connection) -> Iterator[str]:
    """Yield the text of each document of split train that is not retracted; raises as `train_rows`."""
    for rows in train_rows(connection, {"text"}):
        yield from rows["text"]


def train_rows(connection: Connection, names: Collection[str]) -> Iterator[pl.DataFrame]:
    """Yield the documents of split train that are not retracted, with the columns `names`, record by record.

    Raises:
        BrokerError: there is no clean topic, or the broker cannot be read.
        ReplayError: a record cannot be read.
    """
    topic = topic_name(connection.settings, FAMILY.name, CLEAN)
    kind = (FAMILY.name, CLEAN, FAMILY.version)
    columns = {name: FAMILY.wire[name] for name in {*names, *_ALWAYS}}
    ranges = resolve(connection, topic, None, None)
    retractions = topic_name(connection.settings, FAMILY.name, RETRACTIONS)
    ids = retracted_ids(connection, retractions, retraction_bound(connection, retractions), ReplayError)
    blocks = [OffsetBlock(number, extent.begin, extent.end) for number, extent in sorted(ranges.items())]
    with TopicReader(connection, topic, ReplayError) as reader:
        for _, record in reader.records(blocks):
            if not is_foreign(record, topic, kind):
                rows = decode_record(record, topic, kind, columns, ReplayError).filter(pl.col("split") == "train")
                yield rows.filter(~is_retracted(rows, ids))
