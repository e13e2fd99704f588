"""Compare rows found in a topic with rows that ledger entries claim, by raw offset: pure functions over flat arrays.

A refined record names the raw offsets of its rows as a span first-last, because it may hold the rows of several raw
records. Spans that share an offset are joined to one offset range, and rows are compared range by range.
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
class OffsetRanges:
    """Raw offset ranges of one partition, in order, and sums over each.

    Attributes:
        first, last: (N,) the first and last offset of each range, both inclusive.
        claimed, found: for each amount (N,), the sum that the entries claim and the sum in the records.
    """

    first: Offsets
    last: Offsets
    claimed: tuple[Amounts, ...]
    found: tuple[Amounts, ...]


def offset_ranges(
    entries: Offsets, claims: Sequence[Amounts], first: Offsets, last: Offsets, finds: Sequence[Amounts]
) -> OffsetRanges:
    """Join spans that share an offset into ranges, and sum the claimed and the found amounts over each range.

    Args:
        entries: (E,) offsets of the raw records that have a ledger entry, in any order.
        claims: for each amount, (E,) the claims of the entries; unsigned amounts may wrap around.
        first, last: (S,) the spans of the records found.
        finds: for each amount, (S,) the amounts in the records.
    """
    # Each entry is also a span, so that an entry without any rows gets a range, too.
    begins = np.concatenate([entries, first])
    ends = np.concatenate([entries, last])
    order = np.argsort(begins, kind="stable")
    begins, ends = begins[order], ends[order]
    if not begins.size:
        nothing = tuple(claim[:0] for claim in claims)
        return OffsetRanges(begins, ends, nothing, nothing)
    reach = np.maximum.accumulate(ends)
    starts = np.concatenate([[0], np.flatnonzero(begins[1:] > reach[:-1]) + 1])
    of_none = [np.zeros(entries.size, dtype=find.dtype) for find in finds]
    by_none = [np.zeros(first.size, dtype=claim.dtype) for claim in claims]
    claimed = [np.concatenate(pair)[order] for pair in zip(claims, by_none, strict=True)]
    found = [np.concatenate(pair)[order] for pair in zip(of_none, finds, strict=True)]
    return OffsetRanges(
        first=begins[starts],
        last=np.maximum.reduceat(ends, starts),
        claimed=tuple(np.add.reduceat(each, starts) for each in claimed),
        found=tuple(np.add.reduceat(each, starts) for each in found),
    )
