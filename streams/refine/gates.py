"""Share gates: refuse rows that would raise a bin's share of a partition's clean rows above its quota.

A row inside a gate's bins is admitted while inside + 1 <= target * max(total + 1, `from_rows`). Here `total` counts the
clean rows that the gate's axis counts, and `inside` counts those in the gate's bins. So from the partition's
`from_rows`-th clean row on, the share never exceeds its target, in any order of rows. A row outside the bins only
lowers the share. The arithmetic uses integers, so 0.4 of 50 is exactly 20.

The counters are a fold of the partition's ledger and are stored nowhere else.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import polars as pl
from numpy.typing import NDArray

from schema.family import Family
from streams.refine.admission import INSIDE, OUTSIDE, UNCOUNTED, GateCounts

# Targets become fractions with at most this denominator: a finer one would overflow the integer comparison.
_FINEST_SHARE = 1_000_000


class ShareGates:
    """The share gates of one partition of a family; a family without gates has no counters.

    Args:
        family: the family whose `gates` apply.
        from_rows: the share holds from this many clean rows on; fewer count as this many.
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
        """Return how each gate counts each row: (N, G), of `UNCOUNTED`, `OUTSIDE` and `INSIDE`."""
        codes = np.zeros((rows.height, len(self._codes)), dtype=np.int8)
        for gate, code in enumerate(self._codes):
            codes[:, gate] = rows.select(code).to_series().to_numpy()
        return codes

    def remember(self, coverage: pl.DataFrame) -> None:
        """Count earlier clean rows, from the ledger's coverage counts (axis, bin, rows)."""
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
