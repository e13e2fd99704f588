"""Find example ids that are in clean twice, by sorting, in 16 bytes a row."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray


class IdLog:
    """The example ids of clean in reading order, and the record of each.

    Args:
        window: clean rows of a partition among which an id may not occur twice; None for all rows of all partitions.
    """

    def __init__(self, window: int | None = None) -> None:
        self._window = window
        self._ids: list[NDArray[np.uint64]] = []
        self._places: list[tuple[int, int]] = []

    def add(self, ids: NDArray[np.uint64], partition: int, offset: int) -> None:
        """Add the ids (N,) of one record of clean; add the records of a partition in order."""
        self._ids.append(ids)
        self._places.append((partition, offset))

    def twice(self) -> Iterator[tuple[int, int, int]]:
        """Yield (partition, offset, id) of each row whose id occurred before, ordered by id."""
        if not self._ids:
            return
        ids = np.concatenate(self._ids)
        order = np.argsort(ids, kind="stable")
        again = np.flatnonzero(ids[order[1:]] == ids[order[:-1]]) + 1
        heights = np.array([len(each) for each in self._ids])
        starts = np.concatenate([[0], np.cumsum(heights)[:-1]])
        record = np.searchsorted(starts, order[again], side="right") - 1
        before = np.searchsorted(starts, order[again - 1], side="right") - 1
        if self._window is not None:
            partitions = np.array([partition for partition, _ in self._places])
            number = _rows_before(partitions, heights)
            at = number[record] + order[again] - starts[record]
            earlier = number[before] + order[again - 1] - starts[before]
            near = (partitions[record] == partitions[before]) & (at - earlier <= self._window)
            again, record = again[near], record[near]
        for row, which in zip(again.tolist(), record.tolist(), strict=True):
            partition, offset = self._places[which]
            yield partition, offset, int(ids[order[row]])


def _rows_before(partitions: NDArray[np.int64], heights: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return, for each record, how many rows of its partition came before it."""
    before = np.zeros(partitions.size, dtype=np.int64)
    for partition in np.unique(partitions):
        mine = partitions == partition
        before[mine] = np.cumsum(heights[mine]) - heights[mine]
    return before
