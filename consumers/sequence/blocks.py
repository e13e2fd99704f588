"""The order in which a source's records are read: blocks of consecutive offsets, in turn or shuffled by a seed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from broker.topics import Extent
from consumers.reading import Block
from consumers.sequence.cursor import Cursor, Place
from consumers.sequence.planning import Seeds, permutation
from consumers.sequence.spec import FeedSpec


def order_of(bounds: Mapping[int, Extent], size: int, seeds: Seeds | None) -> list[Block]:
    """Return the blocks that cover `bounds`, in reading order.

    A block is up to `size` offsets of a partition. Without seeds partitions take turns; with seeds all blocks of all
    partitions are permuted.
    """
    partitions = sorted(partition for partition, extent in bounds.items() if extent.begin < extent.end)
    if not partitions:
        return []
    begins = [np.arange(bounds[number].begin, bounds[number].end, size) for number in partitions]
    partition = np.repeat(partitions, [len(each) for each in begins])
    turn = np.concatenate([np.arange(len(each)) for each in begins])
    begin = np.concatenate(begins)
    order = np.lexsort((partition, turn)) if seeds is None else permutation(len(begin), *seeds)
    return [
        Block(number, first, min(first + size, bounds[number].end))
        for number, first in zip(partition[order].tolist(), begin[order].tolist(), strict=True)
    ]


def round_seeds(spec: FeedSpec, source: int, epoch: int, phase: int, place: Place) -> Seeds | None:
    """Return what shuffles the blocks of a source in one round of one phase of a pass."""
    return None if spec.shuffle_seed is None else (spec.shuffle_seed, epoch, phase, source, place.round)


def remaining(spec: FeedSpec, source: int, cursor: Cursor) -> dict[int, Extent]:
    """Return the offsets of a source that the pass at `cursor` has yet to read, as one stretch per partition."""
    bounds = spec.sources[source].bounds if cursor.bounds is None else cursor.bounds[source]
    place = cursor.places[source] if cursor.places else Place()
    seeds = round_seeds(spec, source, cursor.epoch, cursor.phase, place)
    blocks = order_of(bounds, spec.block_offsets, seeds)[place.block :]
    if spec.sources[source].repeat or cursor.phase + 1 < spec.phases:
        blocks = order_of(bounds, spec.block_offsets, None)
    found: dict[int, Extent] = {}
    for block in blocks:
        seen = found.get(block.partition, Extent(block.begin, block.end))
        found[block.partition] = Extent(min(seen.begin, block.begin), max(seen.end, block.end))
    return found
