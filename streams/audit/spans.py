"""Rows found in a topic compared with rows that ledger entries claim, by raw offset: pure functions over flat arrays.

A refined record says from which raw offsets its rows came, as a span first-last, because small raw records are packed
together. Spans that touch are joined to one stretch, and claims and finds are compared stretch by stretch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Offsets = NDArray[np.int64]
Amounts = NDArray[Any]


@dataclass(frozen=True)
class Stretches:
    """Stretches of raw offsets of one partition, in order, and sums over each.

    Attributes:
        first, last: (N,) the offsets of a stretch, both inclusive.
        claimed, found: for each amount (N,) what the entries claim and what the records hold.
    """

    first: Offsets
    last: Offsets
    claimed: tuple[Amounts, ...]
    found: tuple[Amounts, ...]


def stretches(
    entries: Offsets, claims: Sequence[Amounts], first: Offsets, last: Offsets, finds: Sequence[Amounts]
) -> Stretches:
    """Join spans that share an offset into stretches, and sum claims and finds over each.

    Args:
        entries: (E,) offsets of the raw records that have a ledger entry, in any order.
        claims: for each amount (E,) what an entry claims; unsigned amounts may wrap around.
        first, last: (S,) the spans of the records found.
        finds: for each amount (S,) what a record holds.
    """
    # An entry is a span of its own, so that one whose rows are nowhere is a stretch, too.
    begins = np.concatenate([entries, first])
    ends = np.concatenate([entries, last])
    order = np.argsort(begins, kind="stable")
    begins, ends = begins[order], ends[order]
    if not begins.size:
        nothing = tuple(claim[:0] for claim in claims)
        return Stretches(begins, ends, nothing, nothing)
    reach = np.maximum.accumulate(ends)
    starts = np.concatenate([[0], np.flatnonzero(begins[1:] > reach[:-1]) + 1])
    of_none = [np.zeros(entries.size, dtype=find.dtype) for find in finds]
    by_none = [np.zeros(first.size, dtype=claim.dtype) for claim in claims]
    claimed = [np.concatenate(pair)[order] for pair in zip(claims, by_none, strict=True)]
    found = [np.concatenate(pair)[order] for pair in zip(of_none, finds, strict=True)]
    return Stretches(
        first=begins[starts],
        last=np.maximum.reduceat(ends, starts),
        claimed=tuple(np.add.reduceat(each, starts) for each in claimed),
        found=tuple(np.add.reduceat(each, starts) for each in found),
    )
