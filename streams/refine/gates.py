"""Share gates: the quotas whose excess is refused, held per partition and at any time.

A row inside a gate's bins is let in while inside + 1 <= target * max(total + 1, `from_rows`), where `total` counts the
clean rows that the gate's axis counts and `inside` those of them in its bins. So from the partition's `from_rows`-th
clean row on the share is never above its target, whatever comes in which order; a row outside the bins only lowers it.
The arithmetic is of integers: 0.4 of 50 is 20 and not a little more.

The counters are a fold of the partition's ledger, and nothing else is kept of them.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import polars as pl
from numpy.typing import NDArray

from schema.family import Family
from streams.refine.admission import INSIDE, OUTSIDE, UNCOUNTED, GateCounts

# GateCounts are written as decimals; a finer one would overflow the integers that it is compared by.
_FINEST_SHARE = 1_000_000


class ShareGates:
    """The share gates of one partition of a family; one without gates has no counters and costs nothing.

    Args:
        family: whose `gates` to hold.
        from_rows: the share holds from this many clean rows on; fewer are treated as this many.
    """

    def __init__(self, family: Family, from_rows: int) -> None:
        self.quotas = family.gates
        self.from_rows = from_rows
        targets = [Fraction(str(quota.target)).limit_denominator(_FINEST_SHARE) for quota in self.quotas]
        self.shares = GateCounts(
            np.zeros(len(targets), dtype=np.int64),
            np.zeros(len(targets), dtype=np.int64),
            np.array([target.numerator for target in targets], dtype=np.int64),
            np.array([target.denominator for target in targets], dtype=np.int64),
        )
        self._codes = [_code(family, quota.axis, quota.bins) for quota in self.quotas]

    def codes(self, rows: pl.DataFrame) -> NDArray[np.int8]:
        """Return what each gate has to do with each row: (N, G), of `UNCOUNTED`, `OUTSIDE` and `INSIDE`."""
        found = np.zeros((rows.height, len(self._codes)), dtype=np.int8)
        for gate, code in enumerate(self._codes):
            found[:, gate] = rows.select(code).to_series().to_numpy()
        return found

    def remember(self, coverage: pl.DataFrame) -> None:
        """Count clean rows of the past, as the ledger tells of them: (axis, bin, rows)."""
        for gate, quota in enumerate(self.quotas):
            on_axis = coverage.filter(pl.col("axis") == quota.axis)
            self.shares.total[gate] += on_axis["rows"].sum()
            self.shares.inside[gate] += on_axis.filter(pl.col("bin").is_in(quota.bins))["rows"].sum()


def _code(family: Family, axis: str, bins: tuple[str, ...]) -> pl.Expr:
    declared = family.axis(axis)
    inside = [declared.bins.index(name) for name in bins]
    code = declared.code
    counted = pl.when(code.is_in(inside)).then(INSIDE).otherwise(OUTSIDE)
    return pl.when(code.is_null()).then(UNCOUNTED).otherwise(counted).cast(pl.Int8)
