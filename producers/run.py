"""A producer run: plan work units, make their rows in several processes, send or write them in order, count them.

1. The run plans work units, which any process can do (`ProducerRun.plan`).
2. Worker processes make the rows of each unit (`ProducerRun.rows`), then route and encode them or format them as JSON.
3. This process takes the results in the order of the units. It ends at exactly `count` rows, or with the plan if the
   run has no count.
4. It sends them to the raw topic or writes them to a file, and reports progress and totals.

A family supplies a subclass of `ProducerRun`, and nothing else. A unit never depends on the number of workers, so
neither do rows nor records. Units may count things by name, such as skipped files (`ProducerRun.make`).
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
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
    OnUnit,
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
# Gives the rows of a unit their form: (frame, family, number of the unit) -> payload.
Form = Callable[[pl.DataFrame, Family, int], Payload]


@dataclass(frozen=True)
class UnitRows:
    """The rows of a work unit, and what it counted, {name: number}, e.g. skipped input by reason."""

    frame: pl.DataFrame
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class ProducerRun(ABC, Generic[Unit]):
    """The parameters of a run. A family's class may add some; it plans the work units and makes their rows.

    Attributes:
        count: examples, exactly; None means all rows of the plan, which a family allows if its plans end (`finite`).
        seed: 0 <= seed < 2^63.
        workers: processes; the rows and their order are the same for any number.
        run: the run's name in records and ledger; if empty, it is made from `series` and the seed.
        family: the family of the rows.
        finite: whether every plan of the family ends by itself.

    Raises:
        UsageError: a value is out of range, or `count` is None and the plan may be endless.
    """

    count: int | None
    seed: int
    workers: int = field(default=1, kw_only=True)
    run: str = field(default="", kw_only=True)
    family: ClassVar[Family]
    finite: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.count is None and not self.finite:
            raise UsageError(f"count is missing: give the number of examples of a {self.family.name} run")
        if self.count is not None:
            self.require_at_least(count=0)
        self.require_at_least(workers=1)
        check_seed(self.seed)
        if not self.run:
            object.__setattr__(self, "run", f"{self.series}-{self.seed:x}")

    @property
    def series(self) -> str:
        """The beginning of the name of a run that the user did not name."""
        return self.family.name

    @abstractmethod
    def plan(self) -> Iterable[Unit]:
        """Yield the work units in order; together they have at least `count` rows. Only a `finite` plan must end."""

    @abstractmethod
    def rows(self, unit: Unit) -> pl.DataFrame:
        """Return the rows of a unit, identified, as a frame of the family's wire columns; empty only without a `count`.

        Worker processes call it, so import here what takes long to load.
        """

    def make(self, unit: Unit) -> UnitRows:
        """Return the rows of a unit and what it counted; a family that counts only rows does not define this."""
        return UnitRows(self.rows(unit))

    def require_at_least(self, **lows: int) -> None:
        """Raise UsageError if a parameter is less than the number given for its name."""
        for name, low in lows.items():
            if getattr(self, name) < low:
                raise UsageError(f"{name} is {getattr(self, name)}: give {low} or more")


@dataclass(frozen=True)
class UnitResult(Generic[Payload]):
    """The rows of a work unit as a frame, as records or as JSON lines; `number` counts the units of a run from 0."""

    unit: Any
    number: int
    rows: int
    counts: Mapping[str, int]
    payload: Payload


@dataclass(frozen=True)
class _Task:
    """A work unit to do and its number; with `limit`, only its first `limit` rows are wanted."""

    unit: Any
    number: int
    limit: int | None = None


@dataclass(frozen=True)
class _Job(Generic[Payload]):
    """Makes the rows of a unit and gives them their form; pickled, and called by worker processes."""

    run: ProducerRun[Any]
    form: Form[Payload]

    def __call__(self, task: _Task) -> UnitResult[Payload]:
        made = self.run.make(task.unit)
        frame = made.frame if task.limit is None else made.frame.head(task.limit)
        payload = self.form(frame, self.run.family, task.number)
        return UnitResult(task.unit, task.number, frame.height, made.counts, payload)


def generate(run: ProducerRun[Any]) -> Iterator[pl.DataFrame]:
    """Make the run's examples in this process; yields non-empty identified frames of the family's wire columns."""
    for result in _results(replace(run, workers=1), _frame):
        if result.rows:
            yield result.payload


def encoded(run: ProducerRun[Any], layout: RecordLayout) -> Iterator[UnitResult[list[EncodedRecord]]]:
    """Yield the run's examples as records for a raw topic of the given layout, unit by unit.

    Raises:
        ProducerError: a worker process failed.
    """
    return _results(run, partial(_records, layout=layout))


def produce(
    connection: Connection,
    run: ProducerRun[Any],
    on_progress: OnProgress | None = None,
    on_unit: OnUnit | None = None,
) -> ProduceReport:
    """Generate the run's examples and send them to the family's raw topic; all are acknowledged when this returns.

    Args:
        on_progress: called after each unit with the number of rows sent so far.
        on_unit: called with each unit whose rows are sent.

    Raises:
        BrokerError: the broker cannot be reached.
        DeliveryError: the broker did not accept a record.
        ProducerError: a worker process failed.
    """
    started = time.monotonic()
    layout = raw_layout(connection, run.family)
    counts: Counter[str] = Counter()
    with RecordSender(connection, run.family, run.run) as sender:
        for result in encoded(run, layout):
            for record in result.payload:
                sender.send_record(record)
            counts.update(result.counts)
            if on_progress:
                on_progress(sender.rows)
            if on_unit:
                on_unit(result.unit)
    elapsed_s = time.monotonic() - started
    return ProduceReport(sender.rows, sender.records, sender.bytes, elapsed_s, run.seed, run.run, counts)


def write_jsonl(
    run: ProducerRun[Any], path: Path, on_progress: OnProgress | None = None, on_unit: OnUnit | None = None
) -> ProduceReport:
    """Write the run's examples to `path` as JSON lines; after an error no partial file is left.

    Args:
        on_progress: called after each unit with the number of rows written so far.
        on_unit: called with each unit whose rows are written.

    Raises:
        UsageError: the file cannot be written.
        ProducerError: a worker process failed.
    """
    started = time.monotonic()
    rows = size = 0
    counts: Counter[str] = Counter()
    with whole_file(path) as stream:
        for result in _results(run, _lines):
            size += stream.write(result.payload)
            rows += result.rows
            counts.update(result.counts)
            if on_progress:
                on_progress(rows)
            if on_unit:
                on_unit(result.unit)
    return ProduceReport(rows, 0, size, time.monotonic() - started, run.seed, run.run, counts)


def _frame(frame: pl.DataFrame, family: Family, number: int) -> pl.DataFrame:
    return frame


def _lines(frame: pl.DataFrame, family: Family, number: int) -> bytes:
    return json_lines(frame, family)


def _records(frame: pl.DataFrame, family: Family, number: int, layout: RecordLayout) -> list[EncodedRecord]:
    return encode_block(frame, family, layout, number)


def _results(run: ProducerRun[Any], form: Form[Payload]) -> Iterator[UnitResult[Payload]]:
    """Yield the results of units in order; with a `count`, the last unit is made again if it has too many rows."""
    left = run.count
    if left == 0:
        return
    units = iter(run.plan())
    # No more processes than units, because starting a process takes time.
    first = list(islice(units, run.workers))
    with Pool(_Job(run, form), min(run.workers, len(first))) as pool:
        for result in pool.results(_Task(unit, number) for number, unit in enumerate(chain(first, units))):
            if left is None:
                yield result
                continue
            if result.rows > left:
                yield from pool.results([_Task(result.unit, result.number, left)])
                return
            yield result
            left -= result.rows
            if not left:
                return
    if left is None:
        return
    raise ProducerError(f"the plan of run {run.run} ended {left} rows before its count: report it with the seed")
