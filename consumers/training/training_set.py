"""Which examples a run was trained on: the ids of every row in the offsets that its feed read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from broker.clients import Connection
from broker.topics import Extent, extents, topic_id
from consumers.decoding import decode_record
from consumers.reading import OffsetBlock, TopicReader, gone
from consumers.sequence.spec import PinnedSource, read_state
from schema.errors import FeedError
from schema.record import CLEAN

_COLUMNS = {"example_id": pl.UInt64()}


class TrainingSet:
    """The rows of a feed's topics, those that it left out (another split, a filter, a length) among them.

    Of a feed that follows, they are all from its first offset on, for its ranks read on at paces of their own.

    Args:
        connection: the broker that holds the topics.
        state: the feed's `state_dict()`, or its manifest.

    Attributes:
        offsets: how many there are to read.

    Raises:
        FeedError: `state` is none, or a topic does not hold all of its offsets any more.
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

        `on_offset` is told how many of `offsets` are behind.

        Raises:
            FeedError: a record cannot be decoded.
            BrokerError: the broker cannot be read.
        """
        found: list[npt.NDArray[np.uint64]] = [np.empty(0, dtype=np.uint64)]
        behind = 0
        for topic, blocks in self._blocks:
            with TopicReader(self._connection, topic, FeedError) as reader:
                for number, record in reader.records(blocks):
                    rows = decode_record(record, topic, self._kind, _COLUMNS, FeedError)
                    found.append(rows["example_id"].to_numpy())
                    within = record.offset + 1 - blocks[number].begin
                    on_offset(behind + sum(block.end - block.begin for block in blocks[:number]) + within)
            behind += sum(block.end - block.begin for block in blocks)
            on_offset(behind)
        return np.unique(np.concatenate(found))


def _blocks(connection: Connection, source: PinnedSource, mode: str) -> list[OffsetBlock]:
    """Return what to read of a source, in order; raises as `TrainingSet` does."""
    held = extents(connection, source.topic)
    if topic_id(connection, source.topic) != source.topic_id or set(source.bounds) - set(held):
        raise FeedError(f"{source.topic} was made anew since the run read it: its rows are gone")
    for partition, extent in sorted(source.bounds.items()):
        for offset in (extent.begin, extent.end):
            if not held[partition].begin <= offset <= held[partition].end:
                raise FeedError(gone(source.topic, partition, offset, held[partition]))
    if mode == "snapshot":
        ranges = source.bounds
    else:
        ranges = {
            partition: Extent(source.bounds.get(partition, extent).begin, extent.end)
            for partition, extent in held.items()
        }
    return [OffsetBlock(partition, extent.begin, extent.end) for partition, extent in sorted(ranges.items())]
