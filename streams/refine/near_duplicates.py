"""The near-duplicate index of one partition: sketches of the clean rows' texts, looked up by bands.

A pair of texts of Jaccard similarity J, neither made from the other, is refused as follows. The two meet in one of P
partitions with probability J + (1 - J) / P, because the route is the smallest shingle (`schema.routing`). There they
share a band with probability 1 - (1 - J ** width) ** bands. The second text is refused if they also agree in enough
slots. With 4 partitions and the threshold 0.8, there are 16 bands of 8 slots, and 103 of 128 slots must agree:

    J       meet    share a band    and agree enough    refused in all
    0.70    0.775      0.613             0.006              0.004
    0.75    0.812      0.815             0.093              0.075
    0.80    0.850      0.947             0.504              0.428
    0.85    0.888      0.994             0.936              0.830
    0.90    0.925      1.000             1.000              0.925
    0.95    0.962      1.000             1.000              0.962
    1.00    1.000      1.000             1.000              1.000

A lookup reads only the latest 256 rows of a bucket. So an old near duplicate may be missed among very many similar
texts below the threshold. A text that is near to one of another split, among others, is refused as that.

At this threshold the index takes 265 bytes for each row that it has room for, one of them for the row's split; at the
threshold 0.7, 349 bytes. Its room doubles when it is full. A row of 740 bytes of text takes some 12 us, mostly for its
shingles and its sketch.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from schema.family import Family
from streams.refine.admission import Table, link_rows
from streams.refine.sketch import SLOTS, Sketches, banding, no_sketches, sketches

_START_ROWS = 1024


class NearIndex:
    """Remembers sketches in order of arrival.

    A window is kept as two generations: when the younger one holds `window` sketches, the older one is dropped.

    Args:
        family: the family whose texts to sketch; a family without `text` has no near duplicates.
        threshold: the Jaccard similarity from which two texts are near duplicates; 1 turns the index off.
        window: the least number of sketches to remember; None remembers all.
    """

    def __init__(self, family: Family, threshold: float, window: int | None = None) -> None:
        self.is_on = family.text is not None and threshold < 1
        self.banding = banding(threshold)
        self._family = family
        self._window = window
        self.young, self.held = self._table(_START_ROWS if self.is_on else 1), 0
        self.old, self._old_held = self._table(1), 0

    def __len__(self) -> int:
        return self.held + self._old_held

    def sketches(self, rows: pl.DataFrame) -> Sketches:
        """Return the sketches of rows; if the index is off, sketches that are near no other."""
        return sketches(rows, self._family) if self.is_on else no_sketches(rows.height)

    def make_room(self, coming: int) -> None:
        """Make room in `young` for `coming` more sketches. If `young` holds a whole window, it becomes `old` first."""
        if not self.is_on:
            return
        if self._window is not None and self.held >= self._window:
            self.old, self._old_held = self.young, self.held
            self.young, self.held = self._table(_START_ROWS), 0
        if self.held + coming > self.young.groups.size:
            grown = self._table(1 << (self.held + coming - 1).bit_length())
            grown.slots[: self.held] = self.young.slots[: self.held]
            grown.groups[: self.held] = self.young.groups[: self.held]
            grown.splits[: self.held] = self.young.splits[: self.held]
            link_rows(grown, 0, self.held, self.banding)
            self.young = grown

    def remember(self, rows: pl.DataFrame) -> None:
        """Remember rows that are already in clean, even if they are near duplicates."""
        if not self.is_on:
            return
        step = max(rows.height if self._window is None else self._window, 1)
        all_sketches = self.sketches(rows)
        for start in range(0, rows.height, step):
            piece = all_sketches.piece(slice(start, start + step))
            kept = np.flatnonzero(piece.worded)
            self.make_room(kept.size)
            end = self.held + kept.size
            self.young.slots[self.held : end] = piece.slots[kept]
            self.young.groups[self.held : end] = piece.groups[kept]
            self.young.splits[self.held : end] = piece.splits[kept]
            link_rows(self.young, self.held, end, self.banding)
            self.held = end

    def _table(self, rows: int) -> Table:
        nodes = rows * self.banding.bands
        return Table(
            np.empty((rows, SLOTS), dtype=np.uint8),
            np.empty(rows, dtype=np.uint64),
            np.empty(rows, dtype=np.uint8),
            np.empty(nodes, dtype=np.uint32),
            np.zeros(1 << (nodes - 1).bit_length(), dtype=np.uint32),
        )
