"""The state of one partition: its clean rows' ids, text sketches and share counts, and which new rows are admitted.

The state is rebuilt from the topics on assignment (`streams.refine.rebuild`). It remembers only rows that go to clean.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from schema.family import Family
from schema.settings import Settings
from streams.refine import admission
from streams.refine.dedup import DedupIndex
from streams.refine.gates import ShareGates
from streams.refine.near_duplicates import NearIndex

DUPLICATE = "duplicate"
NEAR_DUPLICATE = "near_duplicate"
NEAR_DUPLICATE_OTHER_SPLIT = "near_duplicate_other_split"


@dataclass(frozen=True)
class State:
    """The state of one partition: ids, text sketches and share counts of its clean rows."""

    ids: DedupIndex
    near: NearIndex
    gates: ShareGates
    window: int | None = None

    @classmethod
    def empty(cls, family: Family, settings: Settings) -> State:
        """Return the state of a partition without clean rows."""
        window = settings.dedup_window_rows
        return cls(
            DedupIndex(window),
            NearIndex(family, family.near_threshold(settings.near_duplicate_threshold), window),
            ShareGates(family, settings.gate_from_rows),
            window,
        )

    @property
    def reasons(self) -> tuple[str, ...]:
        """The reason code of each verdict from 1 on."""
        return (DUPLICATE, NEAR_DUPLICATE, NEAR_DUPLICATE_OTHER_SPLIT, *(quota.name for quota in self.gates.quotas))

    def admit(self, rows: pl.DataFrame) -> NDArray[np.int8]:
        """Return the verdict on each valid row, in order: 0 for a clean row, else 1 plus its index in `reasons`."""
        ids = rows["example_id"]
        if not self.near.is_on and not self.gates.quotas:
            return np.where(self.ids.admit(ids.to_numpy()), admission.ADMITTED, admission.DUPLICATE).astype(np.int8)
        verdicts = np.empty(rows.height, dtype=np.int8)
        sketches, codes = self.near.sketches(rows), self.gates.codes(rows)
        # Generations change between pieces, so a piece is no larger than the window.
        step = max(rows.height if self.window is None else self.window, 1)
        for start in range(0, rows.height, step):
            part = slice(start, start + step)
            different, numbers = np.unique(ids[part].to_numpy(), return_inverse=True)
            self.near.make_room(numbers.size)
            verdicts[part], self.near.held = admission.judge_in_order(
                numbers,
                self.ids.holds(different),
                sketches.piece(part),
                self.near.young,
                self.near.held,
                self.near.old,
                self.near.banding,
                codes[part],
                self.gates.shares,
                self.gates.from_rows,
            )
            self.ids.admit(ids[part].filter(verdicts[part] == admission.ADMITTED).to_numpy())
        return verdicts
