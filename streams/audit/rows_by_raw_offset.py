"""Rows found in a topic, by the raw offsets that they came from."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

RecordSource = tuple[int, int, int]
# (first offsets, last offsets, amounts): arrays of one length.
Spans = tuple[NDArray[np.int64], NDArray[np.int64], list[NDArray[Any]]]


class RowsByRawOffset:
    """Collects records by their source (raw partition, first offset, last offset), each with `amounts` numbers."""

    def __init__(self, amounts: int = 1) -> None:
        self._amounts = amounts
        self._spans: dict[int, list[tuple[Any, ...]]] = defaultdict(list)

    def add(self, source: RecordSource, *amounts: Any) -> None:
        """Add one record."""
        partition, first, last = source
        self._spans[partition].append((first, last, *amounts))

    def of_partition(self, partition: int, below: int, unsigned: tuple[int, ...] = ()) -> Spans:
        """Return (first, last, amounts) of the records from raw offsets below `below` of a partition.

        Amounts whose indices are in `unsigned` are uint64, the others int64.
        """
        spans = [span for span in self._spans.get(partition, ()) if span[1] < below]
        columns = list(zip(*spans, strict=True)) if spans else [()] * (2 + self._amounts)
        kinds = [np.uint64 if number in unsigned else np.int64 for number in range(self._amounts)]
        return (
            np.array(columns[0], dtype=np.int64),
            np.array(columns[1], dtype=np.int64),
            [np.array(column, dtype=kind) for column, kind in zip(columns[2:], kinds, strict=True)],
        )
