"""The reading order of a source's records: blocks of consecutive offsets, in turn or shuffled by a seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from broker.topics import Extent
from consumers.reading import OffsetBlock
from consumers.sequence.cursor import Cursor, Place
from consumers.sequence.planning import Seeds, interleaved, permutation
from consumers.sequence.spec import BlockSizes, FeedSpec

Offsets = npt.NDArray[np.int64]

# Offsets to a block if the records were not measured.
_UNMEASURED_OFFSETS = 8
# A window takes rows from at least this many sections of the topic.
_LEAST_SPREAD = 32


def order_of(
    bounds: Mapping[int, Extent],
    sizes: BlockSizes | int,
    seeds: Seeds | None = None,
    spread: int = 1,
) -> list[OffsetBlock]:
    """Return the blocks that cover `bounds`, in reading order.

    Without seeds partitions take turns. With seeds the blocks are dealt out in three steps:

    1. Put all blocks in the topic's order, partitions side by side, and cut them into `spread` equal sections.
    2. Permute each section.
    3. Take one block of each section, in a permuted order; repeat until no block is left.

    So every `spread` blocks in a row come from all over the topic. A plain permutation does that only on average.

    Args:
        bounds: [begin, end) per partition.
        sizes: offsets to a block, the same for all, or as `block_sizes` measured them.
        seeds: the seeds of the shuffle; None keeps the topic's order.
        spread: number of sections of the topic that blocks are taken from in turn.
    """
    partitions = sorted(partition for partition, extent in bounds.items() if extent.begin < extent.end)
    if not partitions:
        return []
    begins = [_begins(bounds[number], _sizes(sizes, number)) for number in partitions]
    counts = [len(each) for each in begins]
    partition = np.repeat(partitions, counts)
    begin = np.concatenate(begins)
    end = np.concatenate(
        [np.append(each[1:], bounds[number].end) for each, number in zip(begins, partitions, strict=True)]
    )
    if seeds is None:
        turn = np.concatenate([np.arange(count) for count in counts])
        order = np.lexsort((partition, turn))
    else:
        order = interleaved(counts)[_dealt(len(begin), spread, seeds)]
    return [
        OffsetBlock(number, first, last)
        for number, first, last in zip(
            partition[order].tolist(), begin[order].tolist(), end[order].tolist(), strict=True
        )
    ]


def _dealt(count: int, spread: int, seeds: Seeds) -> Offsets:
    """Return the order that steps 1 to 3 of `order_of` give `count` blocks, as indices in the topic's order."""
    drawn = np.empty(count, dtype=np.int64)
    drawn[permutation(count, *seeds)] = np.arange(count)
    section = np.arange(count) * min(spread, count) // count  # 1
    order = np.lexsort((drawn, section))  # 2
    first = np.searchsorted(section, section)  # of each section; `section` ascends, in `order` too
    row = np.arange(count) - first
    return order[np.lexsort((drawn[order], row))].astype(np.int64)  # 3


def _sizes(sizes: BlockSizes | int, partition: int) -> Sequence[tuple[int, int]]:
    if isinstance(sizes, int):
        return ((0, sizes),)
    return sizes.get(partition) or ((0, _UNMEASURED_OFFSETS),)


def _begins(extent: Extent, sizes: Sequence[tuple[int, int]]) -> Offsets:
    """Return the first offsets of a partition's blocks; the last measured size holds for all later offsets."""
    ends = [first for first, _ in sizes[1:]] + [extent.end]
    begins = []
    begin = extent.begin
    for (_, size), end in zip(sizes, ends, strict=True):
        begins.append(np.arange(begin, min(end, extent.end), size))
        begin = max(begin, min(end, extent.end))
    return np.concatenate(begins).astype(np.int64)


def reading_order(
    spec: FeedSpec, source: int, epoch: int, phase: int, place: Place, bounds: Mapping[int, Extent] | None = None
) -> list[OffsetBlock]:
    """Return the blocks of a source in one round of one phase of a pass; `bounds` replace the source's own."""
    pinned = spec.sources[source]
    seeds = None if spec.shuffle_seed is None else (spec.shuffle_seed, epoch, phase, source, place.round)
    spread = max(spec.window_rows // spec.block_rows, _LEAST_SPREAD)
    return order_of(pinned.bounds if bounds is None else bounds, pinned.blocks, seeds, spread)


def remaining(spec: FeedSpec, source: int, cursor: Cursor) -> dict[int, Extent]:
    """Return the offsets of a source that the pass at `cursor` has not read yet: one offset range per partition."""
    bounds = spec.sources[source].bounds if cursor.bounds is None else cursor.bounds[source]
    place = cursor.places[source] if cursor.places else Place()
    if spec.sources[source].repeat or cursor.phase + 1 < spec.phases:
        place = Place()
    ranges: dict[int, Extent] = {}
    for block in reading_order(spec, source, cursor.epoch, cursor.phase, place, bounds)[place.block :]:
        seen = ranges.get(block.partition, Extent(block.begin, block.end))
        ranges[block.partition] = Extent(min(seen.begin, block.begin), max(seen.end, block.end))
    return ranges
