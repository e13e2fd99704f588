"""Counter-based random numbers: a draw depends only on the seed, the series, the row's number and the field.

So any process can make any row, and adding a field does not change the others.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from schema.splitmix import nth

Array = npt.NDArray[Any]

_HALF = np.uint64(32)


class Draws:
    """The draws of rows first..first + rows - 1 of a seed and a series; each named field has its own draws."""

    def __init__(self, seed: int, first: int, rows: int, series: str = "") -> None:
        self.rows = rows
        key = nth(np.array([seed], dtype=np.uint64), _number_of(series))
        self._states = nth(key, np.arange(first, first + rows, dtype=np.uint64))

    def below(self, field: str, bound: int | Array) -> Array:
        """Return whole numbers in [0, bound), (rows,) int64; `bound` is 1 to 2^32 - 1, a scalar or one per row."""
        high = nth(self._states, _number_of(field)) >> _HALF
        drawn: Array = ((high * np.asarray(bound, dtype=np.uint64)) >> _HALF).astype(np.int64)
        return drawn

    def between(self, field: str, low: int | Array, high: int | Array) -> Array:
        """Return whole numbers in [low, high], (rows,) int64."""
        drawn: Array = low + self.below(field, np.asarray(high) - low + 1)
        return drawn


def _number_of(name: str) -> int:
    return zlib.crc32(name.encode()) + 1
