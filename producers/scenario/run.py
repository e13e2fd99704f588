"""The scenario producer's run: blocks of planned cells as work units, and the rows of a block.

The cells are planned in one process, and a block carries its cells. So the rows do not depend on the number of workers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import polars as pl

from producers.run import ProducerRun
from schema.errors import UsageError
from schema.family import Family
from schema.scenario import FAMILY

# Backends without a language model: each makes one row for each cell of a block.
BACKENDS = ("composer", "narrow")
# About ten megabytes: a few full records for each of several partitions.
_BLOCK_ROWS = 8192


@dataclass(frozen=True, eq=False)
class WorkUnit:
    """Rows first..first + len(cells) - 1 of a run, with the cell of each; `number` counts blocks from 0."""

    number: int
    first: int
    cells: npt.NDArray[np.int16]


@dataclass(frozen=True)
class ScenarioRun(ProducerRun[WorkUnit]):
    """The parameters of a run; its rows depend on `seed`, `backend` and `existing`, and are cut at `count`.

    Attributes:
        backend: "composer", or "narrow" for a poor baseline to compare with, which does not follow the plan.
        existing: rows that each cell already has, as `counts_by_cell` returns them; None means 0 rows in each.

    Raises:
        UsageError: a value is out of range.
    """

    count: int
    family: ClassVar[Family] = FAMILY
    backend: str = "composer"
    existing: npt.NDArray[Any] | None = field(default=None, compare=False, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.backend not in BACKENDS:
            raise UsageError(f"backend is {self.backend!r}: give one of {', '.join(BACKENDS)}")

    @property
    def series(self) -> str:
        """The beginning of the name of a run that the user did not name."""
        return f"{self.family.name}-{self.backend}"

    def plan(self) -> Iterator[WorkUnit]:
        """Yield blocks with the cells of their rows, `count` rows in all."""
        from producers.scenario.narrow import narrow_cells
        from producers.scenario.planning import Planner

        planner = Planner(self.seed, self.existing)
        for number, first in enumerate(range(0, self.count, _BLOCK_ROWS)):
            rows = min(_BLOCK_ROWS, self.count - first)
            cells = narrow_cells(self.seed, first, rows) if self.backend == "narrow" else planner.take(rows)
            yield WorkUnit(number, first, cells.astype(np.int16))

    def rows(self, unit: WorkUnit) -> pl.DataFrame:
        """Return one row for each cell of a block."""
        # Imported here because it loads compiled code, which a process that only describes a run does not need.
        from producers.scenario.composer.composing import compose
        from producers.scenario.narrow import narrow_rows
        from producers.scenario.rows import Origin

        make = compose if self.backend == "composer" else narrow_rows
        return make(unit.cells, Origin(self.seed, unit.first, unit.number, f"{self.run}/{unit.number}"))


def rows_by_cell(run: ScenarioRun) -> npt.NDArray[np.int64]:
    """Return the number of the run's rows in each cell, (128,), row-major over `FAMILY.cells()`."""
    counts = np.zeros(sum(1 for _ in FAMILY.cells()), dtype=np.int64)
    for unit in run.plan():
        counts += np.bincount(unit.cells, minlength=counts.size)
    return counts
