"""Coverage axes and quotas, as declarations.

An axis sorts the rows of a frame into bins. Its expression `code` gives each row the index of a bin in `bins`, or null
if the axis does not count the row. The bins of an axis cover its whole range, and the cells of a family are the full
cross product of its cell axes. So all bins and cells are known before the first example.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal

import polars as pl


@dataclass(frozen=True)
class Axis:
    """A named binning: `code` maps a row to an index into `bins`, or to null if the row is not counted."""

    name: str
    bins: tuple[str, ...]
    code: pl.Expr


def banded(name: str, value: pl.Expr, edges: Sequence[float], bins: Sequence[str]) -> Axis:
    """Return an axis whose bin i holds edges[i-1] <= value < edges[i]; len(bins) == len(edges) + 1."""
    if len(bins) != len(edges) + 1:
        raise ValueError(f"axis {name}: {len(edges)} edges make {len(edges) + 1} bins, not {len(bins)}")
    above = [(value >= edge).cast(pl.UInt16) for edge in edges]
    return Axis(name, tuple(bins), reduce(lambda left, right: left + right, above))


def labelled(name: str, value: pl.Expr, bins: Sequence[str]) -> Axis:
    """Return an axis whose bins are the values themselves; a value outside `bins` is not counted."""
    code = value.replace_strict(list(bins), list(range(len(bins))), default=None, return_dtype=pl.UInt16)
    return Axis(name, tuple(bins), code)


@dataclass(frozen=True)
class Quota:
    """A family's requirement on the counts of one axis.

    Kinds:
        min_count: every bin in `bins` has at least `target` rows; missing rows are requested.
        max_share: `bins` together have at most the share `target` of the axis' rows; rows above it are rejected.
        share: `bins` together have the share `target` of the axis' rows, within `tolerance`; reported, never gated.
        distinct: at least `target` of `bins` have rows.
        spread: the largest and the smallest value are at least `target` apart. The spread is measured from the top of
            the lowest bin with rows to the bottom of the highest, so it is never too large. Bin i is
            [edges[i], edges[i + 1]).

    The name of a `max_share` quota is the reason code of the rows that it rejects.
    """

    name: str
    kind: Literal["min_count", "max_share", "share", "distinct", "spread"]
    axis: str
    bins: tuple[str, ...]
    target: float
    tolerance: float = 0.0
    edges: tuple[float, ...] = ()

    def verdict(self, counts: Mapping[str, int]) -> tuple[float, bool]:
        """Return (actual, ok) for the counts of this quota's axis ({bin: rows})."""
        inside = [counts.get(name, 0) for name in self.bins]
        if self.kind == "min_count":
            return float(min(inside)), min(inside) >= self.target
        if self.kind == "distinct":
            hit = sum(count > 0 for count in inside)
            return float(hit), hit >= self.target
        if self.kind == "spread":
            actual = self._spread(inside)
            return actual, actual >= self.target
        total = sum(counts.values())
        actual = sum(inside) / total if total else 0.0
        if self.kind == "max_share":
            return actual, actual <= self.target
        return actual, total > 0 and abs(actual - self.target) <= self.tolerance

    def _spread(self, counts: Sequence[int]) -> float:
        hit = [index for index, count in enumerate(counts) if count]
        # Rounded, because floating point makes the difference of two edges inexact.
        return max(0.0, round(self.edges[hit[-1]] - self.edges[hit[0] + 1], 9)) if hit else 0.0


def verdicts(quotas: Sequence[Quota], bins: Mapping[str, Mapping[str, int]]) -> list[dict[str, Any]]:
    """Return [{name, kind, axis, bins, target, actual, ok}] of these quotas, for counts {axis: {bin: rows}}."""
    reported = []
    for quota in quotas:
        actual, ok = quota.verdict(bins.get(quota.axis, {}))
        declared = {"name": quota.name, "kind": quota.kind, "axis": quota.axis, "bins": list(quota.bins)}
        reported.append({**declared, "target": quota.target, "actual": actual, "ok": ok})
    return reported
