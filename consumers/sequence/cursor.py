"""Where a feed stands: a handful of numbers, from which the very next batch follows.

No row is held: a window in progress is read again from where it began, and planned again to the same batches.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from broker.topics import Extent

Bounds = dict[int, Extent]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a window begins in one source.

    Attributes:
        round: how often a repeating source has begun anew in this pass.
        block: index in the round's order of blocks.
        row: rows of that block, of those that belong to the feed, that earlier windows took.
        too_long: rows that were left out for their length in the blocks before it, in all rounds of the pass.
    """

    round: int = 0
    block: int = 0
    row: int = 0
    too_long: int = 0


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a feed stands within its passes.

    Attributes:
        epoch: number of the pass.
        batches: batches of this pass that were given, counted over all ranks together as global batches.
        phase: of the curriculum; 0 without one.
        window: number of the window in the pass.
        batch: batches of that window that were given.
        places: where the window begins, per source.
        dropped: rows of earlier windows of this pass that were dropped, because they could not fill a batch.
        bounds: in `follow` mode the offsets of this pass, per source; a snapshot's are the same in every pass.
    """

    epoch: int = 0
    batches: int = 0
    phase: int = 0
    window: int = 0
    batch: int = 0
    dropped: int = 0
    places: tuple[Place, ...] = field(default=())
    bounds: tuple[Bounds, ...] | None = None
