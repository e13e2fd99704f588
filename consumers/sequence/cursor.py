"""A place in a feed's sequence: a few numbers that decide the very next batch.

No row is stored: a resumed feed reads the window in progress again and plans the same batches.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from broker.retractions import RetractionBound
from broker.topics import Extent

Bounds = dict[int, Extent]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a window begins in one source.

    Attributes:
        round: how often a repeating source has started again in this pass.
        block: index in the round's order of blocks.
        row: how many of that block's rows earlier windows took; rows outside the feed do not count.
        too_long: rows left out because of their length in earlier blocks, over all rounds of the pass.
    """

    round: int = 0
    block: int = 0
    row: int = 0
    too_long: int = 0


@dataclass(frozen=True, slots=True)
class Cursor:
    """A feed's place within its passes.

    Attributes:
        epoch: number of the pass.
        batches: global batches of this pass that were given.
        phase: number of the curriculum's phase; 0 without a curriculum.
        window: number of the window in the pass.
        batch: batches of that window that were given.
        places: where the window begins in each source.
        dropped: rows of this pass's earlier windows that were dropped because they could not fill a batch.
        bounds: in `follow` mode the offsets of this pass, per source; a snapshot's are the same in every pass.
        retractions: in `follow` mode the retractions that are known in this pass, per source; None before the second.
    """

    epoch: int = 0
    batches: int = 0
    phase: int = 0
    window: int = 0
    batch: int = 0
    dropped: int = 0
    places: tuple[Place, ...] = field(default=())
    bounds: tuple[Bounds, ...] | None = None
    retractions: tuple[RetractionBound | None, ...] | None = None
