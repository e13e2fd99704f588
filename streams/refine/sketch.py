"""Sketches of the texts of rows (`schema.minhash`, 128 slots), and how they are compared.

The library rensa makes sketches as fast, but returns them only as lists of Python integers, which takes some six times
as long (`RMinHashDigestMatrix.to_rows`: 18 us for the 3 us of a text of 80 shingles). Its index also knows neither the
order of two texts nor the family's `group`. Tests compare these sketches with rensa's estimates.
"""

from __future__ import annotations

from math import ceil
from typing import NamedTuple

import numpy as np
import polars as pl
import polars_hash as plh
from numpy.typing import NDArray

from schema.family import SPLITS, Family
from schema.minhash import expected_agreement, sketch_texts

SLOTS = 128
# Of pairs just as similar as the threshold, at least this share must meet in a band.
_LEAST_RECALL = 0.9
_WIDEST_BAND = 32


class Sketches(NamedTuple):
    """The sketches of N rows.

    Attributes:
        slots: (N, SLOTS) uint8.
        worded: (N,) whether the row has a text; a row without one is near no other.
        groups: (N,) uint64, the hash of the family's `group` of the row.
        copied: (N,) whether the row is an augmented copy; a copy has the same `group` as its original.
        splits: (N,) uint8, the place of the row's split in `SPLITS`.
    """

    slots: NDArray[np.uint8]
    worded: NDArray[np.bool_]
    groups: NDArray[np.uint64]
    copied: NDArray[np.bool_]
    splits: NDArray[np.uint8]

    def piece(self, part: slice) -> Sketches:
        """Return the sketches of the rows of `part`."""
        return Sketches(self.slots[part], self.worded[part], self.groups[part], self.copied[part], self.splits[part])


class Banding(NamedTuple):
    """The number and width of bands; near sketches agree in all slots of one band and in `least` slots overall."""

    width: int
    bands: int
    least: int


def banding(threshold: float) -> Banding:
    """Return the banding for a threshold: the widest bands that 9 of 10 pairs at the threshold still share.

    Two texts of similarity J share a band with probability 1 - (1 - J ** width) ** bands ("Mining of Massive
    Datasets", Leskovec, Rajaraman and Ullman, 3.4).
    """
    widths = range(2, _WIDEST_BAND + 1)
    meets = {width: 1 - (1 - threshold**width) ** (SLOTS // width) for width in widths}
    width = max((width for width in widths if meets[width] >= _LEAST_RECALL), default=2)
    # 1e-9 less, because rounding may put a whole product just above the whole number.
    least = ceil(expected_agreement(threshold, SLOTS) - 1e-9)
    return Banding(width, SLOTS // width, least)


def sketches(rows: pl.DataFrame, family: Family) -> Sketches:
    """Return the sketches of rows.

    The rows need `augmented_from`, `split` and the columns of the family's `text` and `group`.

    Raises:
        ValueError: the family has no text.
    """
    if family.text is None:
        raise ValueError(f"rows of {family.name} have no text to sketch")
    inputs = rows.select(_text=family.text, _group=family.group, _copied=pl.col("augmented_from").is_not_null())
    slots, worded = sketch_texts(inputs["_text"], family.shingle_words, SLOTS)
    groups = inputs.select(plh.col("_group").nchash.xxh3_64().fill_null(0)).to_series()
    return Sketches(
        slots,
        worded,
        groups.to_numpy(writable=True),
        inputs["_copied"].to_numpy(writable=True),
        rows["split"].replace_strict(SPLITS, range(len(SPLITS)), return_dtype=pl.UInt8).to_numpy(writable=True),
    )


def no_sketches(rows: int) -> Sketches:
    """Return the sketches of rows that are near no other."""
    none = np.zeros(rows, dtype=np.bool_)
    return Sketches(
        np.zeros((rows, SLOTS), dtype=np.uint8),
        none,
        np.zeros(rows, dtype=np.uint64),
        none,
        np.zeros(rows, dtype=np.uint8),
    )
