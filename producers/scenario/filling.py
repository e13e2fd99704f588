"""Scenarios for given cells, by the composer; this module loads compiled code: import it where it is used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from producers.scenario.composer.composing import compose
from producers.scenario.rows import Origin
from schema.errors import UsageError
from schema.family import CELL_SEPARATOR, cell_label
from schema.scenario import FAMILY

SERIES = "fill-"


def fill(cells: Sequence[Mapping[str, str]], seed: int, first: int) -> pl.DataFrame:
    """Return one example for each cell, in order, as an identified frame of the family's wire columns.

    Row i is numbered `first` + i and depends on its cell, the seed and that number alone; it is none of the rows that a
    run of that seed has. Its scenario is `fill-<seed>-<number>`, and `first` its chunk.

    Args:
        cells: {axis: bin} over the family's `cell_axes`; repeats are allowed.
        seed: 0 <= seed < 2^63.
        first: number of the first row, 0 or more.

    Raises:
        UsageError: one of `cells` is no cell.
    """
    indices = {cell_label(cell): index for index, cell in enumerate(FAMILY.cells())}
    wanted = [indices.get(CELL_SEPARATOR.join(cell.get(axis, "") for axis in FAMILY.cell_axes), -1) for cell in cells]
    if -1 in wanted:
        raise UsageError(f"{dict(cells[wanted.index(-1)])} is no cell: give one bin of each of {FAMILY.cell_axes}")
    return compose(np.array(wanted, dtype=np.int64), Origin(seed, first, first, f"{SERIES}{seed:x}/{first}", SERIES))
