"""The order in which a source's records are read: blocks of consecutive offsets, in turn or shuffled by a seed."""

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

# Offsets to a block where nobody measured the records.
_UNMEASURED_OFFSETS = 8
# A window takes rows from at least so many places of the topic.
_LEAST_SPREAD = 32


def order_of(
    bounds: Mapping[int, Extent],
    sizes: BlockSizes | int,
    seeds: Seeds | None = None,
    spread: int = 1,
) -> list[OffsetBlock]:
    """Return the blocks that cover `bounds`, in reading order.

    Without seeds partitions take turns. With seeds the blocks are dealt out like this:

    1. All blocks stand in the topic's order, the partitions side by side, and are cut into `spread` equal stretches.
    2. Each stretch is permuted.
    3. Every `spread` blocks in a row are one block of each stretch, in a permuted order.

    So any `spread` blocks in a row come from all over the topic, which a permutation alone does only on average.

    Args:
        bounds: [begin, end) per partition.
        sizes: offsets to a block, the same for all, or as `block_sizes` measured them.
        seeds: what shuffles; None keeps the topic's order.
        spread: stretches of the topic that blocks are taken from in turn.
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
    """Return steps 1 to 3 of `order_of` for `count` blocks, as indices of blocks in the topic's order."""
    drawn = np.empty(count, dtype=np.int64)
    drawn[permutation(count, *seeds)] = np.arange(count)
    stretch = np.arange(count) * min(spread, count) // count  # 1
    order = np.lexsort((drawn, stretch))  # 2
    first = np.searchsorted(stretch, stretch)  # of each stretch; `stretch` ascends, in `order` too
    row = np.arange(count) - first
    return order[np.lexsort((drawn[order], row))].astype(np.int64)  # 3


def _sizes(sizes: BlockSizes | int, partition: int) -> Sequence[tuple[int, int]]:
    if isinstance(sizes, int):
        return ((0, sizes),)
    return sizes.get(partition) or ((0, _UNMEASURED_OFFSETS),)


def _begins(extent: Extent, sizes: Sequence[tuple[int, int]]) -> Offsets:
    """Return where the blocks of a partition begin; the last measure holds for all that came after it."""
    ends = [first for first, _ in sizes[1:]] + [extent.end]
    stretches = []
    begin = extent.begin
    for (_, size), end in zip(sizes, ends, strict=True):
        stretches.append(np.arange(begin, min(end, extent.end), size))
        begin = max(begin, min(end, extent.end))
    return np.concatenate(stretches).astype(np.int64)


def reading_order(
    spec: FeedSpec, source: int, epoch: int, phase: int, place: Place, bounds: Mapping[int, Extent] | None = None
) -> list[OffsetBlock]:
    """Return the blocks of a source in one round of one phase of a pass; `bounds` replace the source's own."""
    pinned = spec.sources[source]
    seeds = None if spec.shuffle_seed is None else (spec.shuffle_seed, epoch, phase, source, place.round)
    spread = max(spec.window_rows // spec.block_rows, _LEAST_SPREAD)
    return order_of(pinned.bounds if bounds is None else bounds, pinned.blocks, seeds, spread)


def remaining(spec: FeedSpec, source: int, cursor: Cursor) -> dict[int, Extent]:
    """Return the offsets of a source that the pass at `cursor` has yet to read, as one stretch per partition."""
    bounds = spec.sources[source].bounds if cursor.bounds is None else cursor.bounds[source]
    place = cursor.places[source] if cursor.places else Place()
    if spec.sources[source].repeat or cursor.phase + 1 < spec.phases:
        place = Place()
    found: dict[int, Extent] = {}
    for block in reading_order(spec, source, cursor.epoch, cursor.phase, place, bounds)[place.block :]:
        seen = found.get(block.partition, Extent(block.begin, block.end))
        found[block.partition] = Extent(min(seen.begin, block.begin), max(seen.end, block.end))
    return found
