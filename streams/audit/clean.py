"""The content of clean: rows and coverage by raw offset, example ids, and rows in the wrong partition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from schema.family import CELL_AXIS, Family, axis_codes, cell_codes, cell_label
from schema.record import CLEAN
from schema.retractions import Ids, is_retracted
from streams.audit.ids import IdLog
from streams.audit.ledger import fingerprints
from streams.audit.rows_by_raw_offset import RowsByRawOffset
from streams.audit.scan import decode_batch, source_of

# The clocks of two workers may differ by this much.
_CLOCK_SLACK_MS = 2000


@dataclass(frozen=True)
class Misplaced:
    """Rows of one record of clean that belong in other partitions."""

    partition: int
    offset: int
    rows: int


class CleanLog:
    """Collects the records of clean.

    Args:
        family: the family of the topic; `raw_topic` is the name of its raw topic.
        partitions: how many partitions raw has now.
        first_entry_ms: {partition: time of its first ledger record}. A row may be in the partition of an older
            partition count if it was written before the later partitions were used.
        window: rows among which no id may occur twice; None for all.
        retracted: the ids that are retracted, ascending.
    """

    def __init__(
        self,
        family: Family,
        raw_topic: str,
        partitions: int,
        first_entry_ms: Mapping[int, int],
        window: int | None,
        retracted: Ids,
    ) -> None:
        self._family = family
        self._raw_topic = raw_topic
        self._partitions = partitions
        self._first_entry_ms = first_entry_ms
        self._codes = _codes(family)
        self.ids = IdLog(window)
        self.by_source = RowsByRawOffset(amounts=2)
        self.misplaced: list[Misplaced] = []
        self.foreign = 0
        self.rows_retracted = 0
        self._retracted = retracted

    def add(self, records: Sequence[Any]) -> None:
        """Add records of clean."""
        family = self._family
        batch = decode_batch(records, (family.name, CLEAN, family.version), family.wire)
        self.foreign += batch.foreign
        self.rows_retracted += int(is_retracted(batch.frame, self._retracted).sum())
        if not batch.records:
            return
        rows = batch.per_record(np.ones(batch.frame.height, dtype=np.int64))
        coverage = batch.per_record(self._fingerprints(batch.frame))
        routes = batch.frame.select(family.route.fill_null(0))[:, 0].to_numpy()
        ids = batch.frame["example_id"].fill_null(0).to_numpy()
        starts = np.cumsum(rows) - rows
        for index, record in enumerate(batch.records):
            mine = slice(int(starts[index]), int(starts[index] + rows[index]))
            self.ids.add(ids[mine].copy(), record.partition, record.offset)
            self._check_place(record, routes[mine])
            source = source_of(record, self._raw_topic)
            if source is None:
                # Records that a worker wrote name their source.
                self.foreign += 1
            else:
                self.by_source.add(source, rows[index], coverage[index])

    def _fingerprints(self, frame: pl.DataFrame) -> NDArray[np.uint64]:
        """Return, per row, the sum of the numbers of its bins and its cell."""
        family = self._family
        codes = axis_codes(family.derive(frame.select([*family.wire, "record"])), family.axes)
        total = np.zeros(frame.height, dtype=np.uint64)
        for name in (axis.name for axis in family.axes):
            total += self._codes[name][codes[name].to_numpy()]
        total += self._codes[CELL_AXIS][cell_codes(codes, family)]
        return total

    def _check_place(self, record: Any, routes: NDArray[np.uint64]) -> None:
        wrong = _out_of_place(routes, self._partitions, record.partition)
        if not wrong:
            return
        for count in range(record.partition + 1, self._partitions):
            later = (self._first_entry_ms.get(number) for number in range(count, self._partitions))
            in_use_ms = min((ms for ms in later if ms is not None), default=record.timestamp)
            if record.timestamp <= in_use_ms + _CLOCK_SLACK_MS and not _out_of_place(routes, count, record.partition):
                return
        self.misplaced.append(Misplaced(record.partition, record.offset, wrong))


def _out_of_place(routes: NDArray[np.uint64], partitions: int, partition: int) -> int:
    return int(np.count_nonzero(routes % np.uint64(partitions) != np.uint64(partition)))


def _codes(family: Family) -> dict[str, NDArray[np.uint64]]:
    """Return {axis: the number of each bin, then a 0 at index -1 for rows without a bin}."""
    bins = {axis.name: list(axis.bins) for axis in family.axes}
    bins[CELL_AXIS] = [cell_label(cell) for cell in family.cells()]
    codes = {}
    for axis, names in bins.items():
        frame = pl.DataFrame({"axis": [axis] * len(names), "bin": names})
        numbers = frame.select(fingerprints(pl.col("axis"), pl.col("bin")))[:, 0].to_numpy()
        codes[axis] = np.concatenate([numbers, np.zeros(1, np.uint64)])
    return codes
