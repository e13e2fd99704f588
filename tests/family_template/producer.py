"""The template family's producer run, its filling and its sample rows. Parts `producer`, `filling`, `samples`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import polars as pl

from producers.run import ProducerRun
from schema.family import Family, identify
from tests.family_template.declaration import BANDS, FAMILY, LARGEST, written

_UNIT_ROWS = 50


@dataclass(frozen=True)
class AdditionRun(ProducerRun[int]):
    """The parameters of a run; a work unit is the number of its first row."""

    count: int
    family: ClassVar[Family] = FAMILY

    def plan(self) -> Iterator[int]:
        """Yield the first row of each unit."""
        yield from range(0, self.count, _UNIT_ROWS)

    def rows(self, unit: int) -> pl.DataFrame:
        """Return random additions; the run cuts the last unit at its count."""
        return additions(np.random.default_rng([self.seed, unit]).integers(LARGEST, size=(2, _UNIT_ROWS)))


def fill(cells: Sequence[Mapping[str, str]], seed: int, first: int) -> pl.DataFrame:
    """Return one random addition for each cell, in order."""
    low = np.array([[100 * BANDS.index(band) for band in cell.values()] for cell in cells])
    return additions((low + np.random.default_rng([seed, first, 1]).integers(100, size=low.shape)).T)


def samples(count: int) -> pl.DataFrame:
    """Return `count` different valid rows, at most 300."""
    return additions(np.stack([np.arange(count), np.arange(count) * 7 % LARGEST]))


def additions(numbers: npt.NDArray[Any]) -> pl.DataFrame:
    """Return additions of (2, N) numbers as an identified frame of the family's wire columns."""
    frame = pl.DataFrame({"left": numbers[0], "right": numbers[1]}).with_columns(
        text=written(pl.col("left"), pl.col("right")), total=pl.col("left") + pl.col("right")
    )
    return identify(frame.select(pl.col(name).cast(kind) for name, kind in FAMILY.columns.items()), FAMILY).select(
        *FAMILY.wire
    )
