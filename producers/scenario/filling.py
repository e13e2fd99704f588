"""Compose scenarios for given cells. Loads compiled code: import this module inside the function that uses it."""

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

    Row i has the number `first` + i and depends only on its cell, the seed and that number. It differs from every row
    of a run with the same seed. Its scenario id is `fill-<seed>-<number>`, and its chunk is `first`.

    Args:
        cells: {axis: bin} over the family's `cell_axes`; repeats are allowed.
        seed: 0 <= seed < 2^63.
        first: number of the first row, 0 or more.

    Raises:
        UsageError: an item of `cells` is not a cell of the family.
    """
    indices = {cell_label(cell): index for index, cell in enumerate(FAMILY.cells())}
    wanted = [indices.get(CELL_SEPARATOR.join(cell.get(axis, "") for axis in FAMILY.cell_axes), -1) for cell in cells]
    if -1 in wanted:
        raise UsageError(f"{dict(cells[wanted.index(-1)])} is not a cell: give one bin of each of {FAMILY.cell_axes}")
    return compose(np.array(wanted, dtype=np.int64), Origin(seed, first, first, f"{SERIES}{seed:x}/{first}", SERIES))
