"""The examples that a run may have been trained on: the ids of every row in the offsets that its feed read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from broker.clients import Connection
from broker.held_offsets import require_unchanged
from broker.topics import Extent
from consumers.reading import OffsetBlock, TopicReader
from consumers.sequence.spec import PinnedSource, read_state
from schema.decoding import decode_record
from schema.errors import FeedError
from schema.record import CLEAN

_COLUMNS = {"example_id": pl.UInt64()}


class TrainingSet:
    """The rows in the offsets that a feed read, including rows that it left out (other split, filter, length).

    For a feed in `follow` mode these are all rows from its first offset on, because its ranks read at different paces.

    Args:
        connection: the broker that holds the topics.
        state: the feed's `state_dict()`, or its manifest.

    Attributes:
        offsets: number of offsets to read.

    Raises:
        FeedError: `state` is not a feed state, or a topic no longer holds all of its offsets.
        BrokerError: a topic is gone, or the broker cannot be reached.
    """

    def __init__(self, connection: Connection, state: Mapping[str, Any]) -> None:
        self._connection = connection
        spec = read_state(state).spec
        self._kind = (spec.family, CLEAN, spec.schema_version)
        self._blocks = [(source.topic, _blocks(connection, source, spec.mode)) for source in spec.sources]
        self.offsets = sum(block.end - block.begin for _, blocks in self._blocks for block in blocks)

    def ids(self, on_offset: Callable[[int], None] = lambda done: None) -> npt.NDArray[np.uint64]:
        """Return the `example_id`s of all rows, (N,), ascending and without duplicates; takes 16 bytes a row.

        `on_offset` is called with the number of offsets read so far.

        Raises:
            FeedError: a record cannot be decoded.
            BrokerError: the broker cannot be read.
        """
        parts: list[npt.NDArray[np.uint64]] = [np.empty(0, dtype=np.uint64)]
        read_offsets = 0
        for topic, blocks in self._blocks:
            with TopicReader(self._connection, topic, FeedError) as reader:
                for number, record in reader.records(blocks):
                    rows = decode_record(record, topic, self._kind, _COLUMNS, FeedError)
                    parts.append(rows["example_id"].to_numpy())
                    within = record.offset + 1 - blocks[number].begin
                    on_offset(read_offsets + sum(block.end - block.begin for block in blocks[:number]) + within)
            read_offsets += sum(block.end - block.begin for block in blocks)
            on_offset(read_offsets)
        return np.unique(np.concatenate(parts))


def _blocks(connection: Connection, source: PinnedSource, mode: str) -> list[OffsetBlock]:
    """Return the offset ranges of a source to read, in order; raises the errors of `TrainingSet`."""
    held = require_unchanged(connection, source.topic, source.topic_id, source.bounds, FeedError)
    if mode == "snapshot":
        ranges = source.bounds
    else:
        ranges = {
            partition: Extent(source.bounds.get(partition, extent).begin, extent.end)
            for partition, extent in held.items()
        }
    return [OffsetBlock(partition, extent.begin, extent.end) for partition, extent in sorted(ranges.items())]
