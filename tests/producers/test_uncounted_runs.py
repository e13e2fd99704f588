"""A run without a count sends all rows of a plan that ends, and its report adds up what the units counted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import polars as pl
import pytest

from producers.run import ProducerRun, UnitRows, encoded, generate, write_jsonl
from producers.sink import RecordLayout
from schema.errors import UsageError
from schema.family import Family
from tests.family_template.declaration import FAMILY
from tests.family_template.producer import AdditionRun, additions

UNITS = (3, 0, 5, 0)
LAYOUT = RecordLayout(partitions=2, rows_per_record=2, record_max_bytes=1_000_000)


@dataclass(frozen=True)
class PlannedRun(ProducerRun[int]):
    """A unit is the number of its rows; it counts ten times as many as left out."""

    family: ClassVar[Family] = FAMILY
    finite: ClassVar[bool] = True

    def plan(self) -> Iterator[int]:
        """Yield the units."""
        yield from UNITS

    def rows(self, unit: int) -> pl.DataFrame:
        """Return as many different rows as the unit says."""
        return additions(np.stack([np.arange(unit), np.full(unit, unit)]))

    def make(self, unit: int) -> UnitRows:
        """Return the rows and a count by reason."""
        return UnitRows(self.rows(unit), {"left": 10 * unit} if unit else {})


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_run_without_a_count_gives_all_rows_of_its_plan_and_adds_up_their_counts(
    workers: int, tmp_path: Path
) -> None:
    done: list[int] = []
    units: list[int] = []
    out = tmp_path / "rows.jsonl"
    report = write_jsonl(PlannedRun(None, 1, workers=workers), out, done.append, units.append)
    assert len(out.read_text().splitlines()) == report.rows == sum(UNITS)
    assert done == np.cumsum(UNITS).tolist()
    assert tuple(units) == UNITS
    assert report.counts == {"left": 80}


def test_the_same_run_with_a_count_ends_there() -> None:
    assert sum(frame.height for frame in generate(PlannedRun(4, 1))) == 4


def test_units_without_rows_give_no_frame() -> None:
    assert [frame.height for frame in generate(PlannedRun(None, 1))] == [3, 5]


def test_records_of_a_family_without_chunks_have_names_of_their_own() -> None:
    records = [record for result in encoded(PlannedRun(None, 1), LAYOUT) for record in result.payload]
    assert sum(record.rows for record in records) == sum(UNITS)
    assert len({(record.chunk, record.part) for record in records}) == len(records)


def test_a_family_with_endless_plans_needs_a_count() -> None:
    with pytest.raises(UsageError, match="count is missing"):
        AdditionRun(None, 1)  # type: ignore[arg-type]  # the wrong type is the point
