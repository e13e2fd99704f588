"""A producer run: plan work units, make their rows in several processes, send or write them in order, count them.

1. The run plans work units, which any process can do (`ProducerRun.plan`).
2. Worker processes make the rows of each unit (`ProducerRun.rows`), then route and encode them or format them as JSON.
3. This process takes the results in the order of the units, and ends at exactly `count` rows.
4. It sends them to the raw topic or writes them to a file, and reports progress and totals.

A family supplies a subclass of `ProducerRun`, and nothing else. A unit never depends on the number of workers, so
neither do rows nor records.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import polars as pl

from broker.clients import Connection
from producers.pool import Pool
from producers.seeds import check_seed
from producers.sink import (
    EncodedRecord,
    OnProgress,
    ProduceReport,
    RecordLayout,
    RecordSender,
    encode_block,
    raw_layout,
    whole_file,
)
from schema.errors import ProducerError, UsageError
from schema.family import Family
from schema.json_form import json_lines

Unit = TypeVar("Unit")
Payload = TypeVar("Payload")


@dataclass(frozen=True)
class ProducerRun(ABC, Generic[Unit]):
    """The parameters of a run. A family's class may add some; it plans the work units and makes their rows.

    Attributes:
        count: examples, exactly.
        seed: 0 <= seed < 2^63.
        workers: processes; the rows and their order are the same for any number.
        run: the run's name in records and ledger; if empty, it is made from `series` and the seed.
        family: the family of the rows.

    Raises:
        UsageError: a value is out of range.
    """

    count: int
    seed: int
    workers: int = field(default=1, kw_only=True)
    run: str = field(default="", kw_only=True)
    family: ClassVar[Family]

    def __post_init__(self) -> None:
        self.require_at_least(count=0, workers=1)
        check_seed(self.seed)
        if not self.run:
            object.__setattr__(self, "run", f"{self.series}-{self.seed:x}")

    @property
    def series(self) -> str:
        """The beginning of the name of a run that the user did not name."""
        return self.family.name

    @abstractmethod
    def plan(self) -> Iterable[Unit]:
        """Yield the work units in order; together they have at least `count` rows, and may be endless."""

    @abstractmethod
    def rows(self, unit: Unit) -> pl.DataFrame:
        """Return the rows of a unit, identified, as a non-empty frame of the family's wire columns.

        Worker processes call it, so import here what takes long to load.
        """

    def require_at_least(self, **lows: int) -> None:
        """Raise UsageError if a parameter is less than the number given for its name."""
        for name, low in lows.items():
            if getattr(self, name) < low:
                raise UsageError(f"{name} is {getattr(self, name)}: give {low} or more")


@dataclass(frozen=True)
class UnitResult(Generic[Payload]):
    """The rows of a work unit as a frame, as records or as JSON lines."""

    unit: Any
    rows: int
    payload: Payload


@dataclass(frozen=True)
class _Task:
    """A work unit to do; with `limit`, only its first `limit` rows are wanted."""

    unit: Any
    limit: int | None = None


@dataclass(frozen=True)
class _Job(Generic[Payload]):
    """Makes the rows of a unit and gives them their form; pickled, and called by worker processes."""

    run: ProducerRun[Any]
    form: Callable[[pl.DataFrame, Family], Payload]

    def __call__(self, task: _Task) -> UnitResult[Payload]:
        frame = self.run.rows(task.unit)
        if task.limit is not None:
            frame = frame.head(task.limit)
        return UnitResult(task.unit, frame.height, self.form(frame, self.run.family))


def generate(run: ProducerRun[Any]) -> Iterator[pl.DataFrame]:
    """Make the run's examples in this process; yields non-empty identified frames of the family's wire columns."""
    for result in _results(replace(run, workers=1), _frame):
        yield result.payload


def encoded(run: ProducerRun[Any], layout: RecordLayout) -> Iterator[UnitResult[list[EncodedRecord]]]:
    """Yield the run's examples as records for a raw topic of the given layout, unit by unit.

    Raises:
        ProducerError: a worker process failed.
    """
    return _results(run, partial(encode_block, layout=layout))


def produce(connection: Connection, run: ProducerRun[Any], on_progress: OnProgress | None = None) -> ProduceReport:
    """Generate the run's examples and send them to the family's raw topic; all are acknowledged when this returns.

    Raises:
        BrokerError: the broker cannot be reached.
        DeliveryError: the broker did not accept a record.
        ProducerError: a worker process failed.
    """
    started = time.monotonic()
    layout = raw_layout(connection, run.family)
    with RecordSender(connection, run.family, run.run) as sender:
        for result in encoded(run, layout):
            for record in result.payload:
                sender.send_record(record)
            if on_progress:
                on_progress(sender.rows)
    return ProduceReport(sender.rows, sender.records, sender.bytes, time.monotonic() - started, run.seed, run.run)


def write_jsonl(run: ProducerRun[Any], path: Path, on_progress: OnProgress | None = None) -> ProduceReport:
    """Write the run's examples to `path` as JSON lines; after an error no partial file is left.

    Raises:
        UsageError: the file cannot be written.
        ProducerError: a worker process failed.
    """
    started = time.monotonic()
    rows = size = 0
    with whole_file(path) as stream:
        for result in _results(run, json_lines):
            size += stream.write(result.payload)
            rows += result.rows
            if on_progress:
                on_progress(rows)
    return ProduceReport(rows, 0, size, time.monotonic() - started, run.seed, run.run)


def _frame(frame: pl.DataFrame, family: Family) -> pl.DataFrame:
    return frame


def _results(run: ProducerRun[Any], form: Callable[[pl.DataFrame, Family], Payload]) -> Iterator[UnitResult[Payload]]:
    """Yield the results of units in order, `count` rows in all; the last unit is made again if it has more."""
    left = run.count
    if not left:
        return
    units = iter(run.plan())
    # No more processes than units, because starting a process takes time.
    first = list(islice(units, run.workers))
    with Pool(_Job(run, form), min(run.workers, len(first))) as pool:
        for result in pool.results(_Task(unit) for unit in chain(first, units)):
            if result.rows > left:
                yield from pool.results([_Task(result.unit, left)])
                return
            yield result
            left -= result.rows
            if not left:
                return
    raise ProducerError(f"the plan of run {run.run} ended {left} rows before its count: report it with the seed")
