"""Counter-based random numbers: a draw depends only on the seed, the series, the row's number and the field.

So any process can make any row, and adding a field does not change the others.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

# SplitMix64 (Steele, Lea, Flood 2014): the increment and the two multipliers of its finaliser.
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_SHIFT_30, _SHIFT_27, _SHIFT_31, _SHIFT_32 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(32)


def _mixed(words: Array) -> Array:
    words = (words ^ (words >> _SHIFT_30)) * _MIX_1
    words = (words ^ (words >> _SHIFT_27)) * _MIX_2
    mixed: Array = words ^ (words >> _SHIFT_31)
    return mixed


def _salt(name: str) -> Array:
    return np.array([zlib.crc32(name.encode()) + 1], dtype=np.uint64) * _GOLDEN


class Draws:
    """The draws of rows first..first + rows - 1 of a seed and a series; each named field has its own draws."""

    def __init__(self, seed: int, first: int, rows: int, series: str = "") -> None:
        self.rows = rows
        key = _mixed(np.array([seed], dtype=np.uint64) + _salt(series))
        self._states = _mixed(key + np.arange(first, first + rows, dtype=np.uint64) * _GOLDEN)

    def below(self, field: str, bound: int | Array) -> Array:
        """Return whole numbers in [0, bound), (rows,) int64; `bound` is 1 to 2^32 - 1, a scalar or one per row."""
        high = _mixed(self._states + _salt(field)) >> _SHIFT_32
        drawn: Array = ((high * np.asarray(bound, dtype=np.uint64)) >> _SHIFT_32).astype(np.int64)
        return drawn

    def between(self, field: str, low: int | Array, high: int | Array) -> Array:
        """Return whole numbers in [low, high], (rows,) int64."""
        drawn: Array = low + self.below(field, np.asarray(high) - low + 1)
        return drawn
