"""Metrics of predicted spans: exact span, IoU and the normal-form decision, by size band and depth band.

Spans are half-open and (0, 0) means "no redex", so a recognised normal form is exact, with an IoU of 1. All metrics are
kept in one array of counts, which can be summed over batches and ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Bands:
    """A binning of whole numbers: band i holds edges[i-1] <= value < edges[i]; one more band than edges."""

    edges: tuple[int, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the bands: `<20`, `20-49`, ..., `200+`; both numbers of a name lie inside its band."""
        low, high = self.edges[0], self.edges[-1]
        between = [f"{first}-{after - 1}" for first, after in zip(self.edges, self.edges[1:], strict=False)]
        return (f"<{low}", *between, f"{high}+")

    def code(self, values: torch.Tensor) -> torch.Tensor:
        """Return the band's index of each of `values` (B,) int -> (B,) int64."""
        return torch.bucketize(values.long(), torch.tensor(self.edges, device=values.device), right=True)


# In nodes. The targets are for 20-49 and 50-79.
SIZE_BANDS = Bands((20, 50, 80, 120, 200))
# In edges on the longest path. The target "deeper than 7" covers all bands except the first.
DEPTH_BANDS = Bands((8, 11, 14))

_ROWS, _KNOWN, _EXACT, _IOU, _TRUE_NORMAL, _CALLED_NORMAL, _SEEN_NORMAL = range(7)
_COLUMNS = 7


def iou(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return |A n B| / |A u B| of half-open spans, a and b (B, 2) int -> (B,) float64 in [0, 1].

    It is 1 only for equal spans; two normal forms are equal. A span that ends at or before its start is empty, so its
    IoU with any other span is 0.
    """
    shared = (torch.minimum(a[:, 1], b[:, 1]) - torch.maximum(a[:, 0], b[:, 0])).clamp(min=0)
    union = (a[:, 1] - a[:, 0]).clamp(min=0) + (b[:, 1] - b[:, 0]).clamp(min=0) - shared
    equal = (a == b).all(dim=1)
    return torch.where(equal, 1.0, shared.double() / union.clamp(min=1))


class SpanMetrics:
    """Counts of predictions by size band and depth band.

    Attributes:
        counts: (size bands, depth bands, 7) float64 on the CPU. Counts of two sets of rows add up to those of all rows,
            so ranks can sum them with one all-reduce.
    """

    def __init__(self) -> None:
        self.counts = torch.zeros(len(SIZE_BANDS.names), len(DEPTH_BANDS.names), _COLUMNS, dtype=torch.float64)

    def add(
        self,
        predicted: torch.Tensor,
        true: torch.Tensor,
        is_normal_form: torch.Tensor,
        size: torch.Tensor,
        depth: torch.Tensor,
    ) -> None:
        """Count B rows.

        Args:
            predicted: (B, 2) int64 spans; (0, 0) calls the term a normal form.
            true: (B, 2) int64 spans in the same unit. A reducible row with an unknown span (negative) counts only for
                the normal-form decision.
            is_normal_form: (B,) bool.
            size: (B,) int, nodes.
            depth: (B,) int, edges.
        """
        true = true.masked_fill(is_normal_form[:, None], 0)
        called_normal = (predicted == 0).all(dim=1)
        known = (true >= 0).all(dim=1)
        values = torch.stack(
            [
                torch.ones_like(known),
                known,
                known & (predicted == true).all(dim=1),
                iou(predicted, true) * known,
                is_normal_form,
                called_normal,
                is_normal_form & called_normal,
            ],
            dim=1,
        ).to("cpu", torch.float64)
        cell = (SIZE_BANDS.code(size) * len(DEPTH_BANDS.names) + DEPTH_BANDS.code(depth)).cpu()
        self.counts.view(-1, _COLUMNS).index_add_(0, cell, values)

    def merge(self, other: SpanMetrics) -> None:
        """Add the counts of `other`."""
        self.counts += other.counts

    def summary(self) -> dict[str, Any]:
        """Return all metrics as JSON-able values; a share of 0 rows is None.

        Keys: `rows`, `exact_span`, `iou` (a mean), `normal_form` {`precision`, `recall`, `support`}, and the lists
        `by_size` and `by_depth` with {`band`, `rows`, `exact_span`, `iou`, `nf_precision`, `nf_recall`} for every
        band; `deeper_than_7` is one such entry.
        """
        whole = self.counts.sum(dim=(0, 1))
        precision, recall = _precision_and_recall(whole)
        return {
            **_shares(whole),
            "normal_form": {"precision": precision, "recall": recall, "support": int(whole[_TRUE_NORMAL])},
            "by_size": _by_band(SIZE_BANDS.names, self.counts.sum(dim=1)),
            "by_depth": _by_band(DEPTH_BANDS.names, self.counts.sum(dim=0)),
            "deeper_than_7": _by_band(["8+"], self.counts[:, 1:].sum(dim=(0, 1))[None])[0],
        }


def _by_band(names: Sequence[str], counts: torch.Tensor) -> list[dict[str, Any]]:
    """Return an entry for each row of `counts` (bands, 7)."""
    entries = []
    for name, row in zip(names, counts, strict=True):
        precision, recall = _precision_and_recall(row)
        entries.append({"band": name, **_shares(row), "nf_precision": precision, "nf_recall": recall})
    return entries


def _shares(row: torch.Tensor) -> dict[str, Any]:
    return {
        "rows": int(row[_ROWS]),
        "exact_span": share(row[_EXACT], row[_KNOWN]),
        "iou": share(row[_IOU], row[_KNOWN]),
    }


def _precision_and_recall(row: torch.Tensor) -> tuple[float | None, float | None]:
    seen = row[_SEEN_NORMAL]
    return share(seen, row[_CALLED_NORMAL]), share(seen, row[_TRUE_NORMAL])


def share(part: float | torch.Tensor, whole: float | torch.Tensor) -> float | None:
    """Return part / whole, or None if `whole` is 0."""
    return float(part) / float(whole) if whole else None
