"""Run the scenario producer: plan the cells in one process, make blocks of rows for them in several.

A block is a fixed number of rows and carries its cells, so neither rows nor records depend on the number of workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import polars as pl

from broker.clients import Connection
from producers.blocks import BlockResult, Lines, Records, send_results, write_results
from producers.pool import Pool
from producers.seeds import check_seed
from producers.sink import EncodedRecord, OnProgress, ProduceReport, RecordLayout, raw_layout
from schema.errors import UsageError
from schema.scenario import FAMILY

# Backends without a language model: each makes one row for each cell of a block.
BACKENDS = ("composer", "narrow")
# About ten megabytes: a few full records for each of several partitions.
_BLOCK_ROWS = 8192

Payload = TypeVar("Payload")


@dataclass(frozen=True)
class ScenarioRun:
    """The parameters of a run; its rows depend on `seed`, `backend` and `existing`, and are cut at `count`.

    Attributes:
        count: examples, exactly.
        seed: 0 <= seed < 2^63.
        backend: "composer", or "narrow" for a poor baseline to compare with, which does not follow the plan.
        workers: processes; the rows and their order are the same for any number.
        run: the run's name in records and ledger; if empty, it is made from backend and seed.
        existing: rows that each cell already has, as `counts_by_cell` returns them; None means 0 rows in each.

    Raises:
        UsageError: a value is out of range.
    """

    count: int
    seed: int
    backend: str = "composer"
    workers: int = 1
    run: str = ""
    existing: npt.NDArray[Any] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        for name, low in (("count", 0), ("workers", 1)):
            if getattr(self, name) < low:
                raise UsageError(f"{name} is {getattr(self, name)}: give {low} or more")
        check_seed(self.seed)
        if self.backend not in BACKENDS:
            raise UsageError(f"backend is {self.backend!r}: give one of {', '.join(BACKENDS)}")
        if not self.run:
            object.__setattr__(self, "run", f"scenario-{self.backend}-{self.seed:x}")


@dataclass(frozen=True, eq=False)
class WorkUnit:
    """Rows first..first + len(cells) - 1 of a run, with the cell of each; `number` counts blocks from 0."""

    number: int
    first: int
    cells: npt.NDArray[np.int16]


@dataclass(frozen=True)
class ScenarioFrames:
    """A job that makes a block's frame; worker processes call it."""

    seed: int
    backend: str
    run: str

    def __call__(self, block: WorkUnit) -> BlockResult[WorkUnit, pl.DataFrame]:
        """Return the block's examples, identified, as a frame of the family's wire columns."""
        # Imported here because it loads compiled code, which a process that only describes a run does not need.
        from producers.scenario.composer.composing import compose
        from producers.scenario.narrow import narrow_rows
        from producers.scenario.rows import Origin

        make = compose if self.backend == "composer" else narrow_rows
        frame = make(block.cells, Origin(self.seed, block.first, block.number, f"{self.run}/{block.number}"))
        return BlockResult(block, frame.height, frame)


def generate(run: ScenarioRun) -> Iterator[pl.DataFrame]:
    """Make the run's examples in this process; yields non-empty identified frames of the family's wire columns."""
    for result in _results(replace(run, workers=1), _frames(run)):
        yield result.payload


def encoded(run: ScenarioRun, layout: RecordLayout) -> Iterator[BlockResult[WorkUnit, list[EncodedRecord]]]:
    """Yield the run's examples as records for a raw topic of the given layout, block by block.

    Raises:
        ProducerError: a worker process failed.
    """
    return _results(run, Records(_frames(run), FAMILY.name, layout))


def rows_by_cell(run: ScenarioRun) -> npt.NDArray[np.int64]:
    """Return the number of the run's rows in each cell, (128,), row-major over `FAMILY.cells()`."""
    counts = np.zeros(sum(1 for _ in FAMILY.cells()), dtype=np.int64)
    for block in _blocks(run):
        counts += np.bincount(block.cells, minlength=counts.size)
    return counts


def produce(connection: Connection, run: ScenarioRun, on_progress: OnProgress | None = None) -> ProduceReport:
    """Generate the run's examples and send them to `scenario.raw`; all are acknowledged when this returns.

    Raises:
        BrokerError: the broker cannot be reached.
        DeliveryError: the broker did not accept a record.
        ProducerError: a worker process failed.
    """
    results = encoded(run, raw_layout(connection, FAMILY))
    return send_results(connection, FAMILY, run.run, run.seed, results, on_progress)


def write_jsonl(run: ScenarioRun, path: Path, on_progress: OnProgress | None = None) -> ProduceReport:
    """Write the run's examples to `path` as JSON lines; after an error no partial file is left.

    Raises:
        UsageError: the file cannot be written.
        ProducerError: a worker process failed.
    """
    results = _results(run, Lines(_frames(run), FAMILY.name))
    return write_results(path, run.run, run.seed, results, on_progress)


def _frames(run: ScenarioRun) -> ScenarioFrames:
    return ScenarioFrames(run.seed, run.backend, run.run)


def _results(
    run: ScenarioRun, job: Callable[[WorkUnit], BlockResult[WorkUnit, Payload]]
) -> Iterator[BlockResult[WorkUnit, Payload]]:
    """Yield the run's results in order."""
    if run.count:
        # No more processes than blocks, because starting a process takes time.
        with Pool(job, min(run.workers, -(-run.count // _BLOCK_ROWS))) as pool:
            yield from pool.results(_blocks(run))


def _blocks(run: ScenarioRun) -> Iterator[WorkUnit]:
    from producers.scenario.narrow import narrow_cells
    from producers.scenario.planning import Planner

    planner = Planner(run.seed, run.existing)
    for number, first in enumerate(range(0, run.count, _BLOCK_ROWS)):
        rows = min(_BLOCK_ROWS, run.count - first)
        cells = narrow_cells(run.seed, first, rows) if run.backend == "narrow" else planner.take(rows)
        yield WorkUnit(number, first, cells.astype(np.int16))
