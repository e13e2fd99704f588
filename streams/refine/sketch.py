"""MinHash sketches of texts, and how they are compared.

A text's sketch has one slot for each of 128 hash functions: one byte of the smallest hash of the text's shingles
(`schema.shingles`). Two texts of Jaccard similarity J agree in a slot with probability J + (1 - J) / 256. So the share
of agreeing slots estimates J, with a standard deviation of 0.035 at J = 0.8 ("On the resemblance and containment of
documents", Broder, 1997; "b-bit minwise hashing", Li and Koenig, 2010). Sketches are never stored, so the hash
functions may change between versions.

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

from schema.compiled import compiled
from schema.family import Family
from schema.shingles import shingles

SLOTS = 128
# Of pairs just as similar as the threshold, at least this share must meet in a band.
_LEAST_RECALL = 0.9
_WIDEST_BAND = 32
# The probability that two slots of one byte agree by chance.
_CHANCE = 1 / 256
_SEED = 20_240
# The shingles of this many texts fit into the processor's cache.
_ROWS_AT_ONCE = 512


class Sketches(NamedTuple):
    """The sketches of N rows.

    Attributes:
        slots: (N, SLOTS) uint8.
        worded: (N,) whether the row has a text; a row without one is near no other.
        groups: (N,) uint64, the hash of the family's `group` of the row.
        copied: (N,) whether the row is an augmented copy; a copy has the same `group` as its original.
    """

    slots: NDArray[np.uint8]
    worded: NDArray[np.bool_]
    groups: NDArray[np.uint64]
    copied: NDArray[np.bool_]

    def piece(self, part: slice) -> Sketches:
        """Return the sketches of the rows of `part`."""
        return Sketches(self.slots[part], self.worded[part], self.groups[part], self.copied[part])


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
    least = ceil(SLOTS * (threshold + (1 - threshold) * _CHANCE) - 1e-9)
    return Banding(width, SLOTS // width, least)


def sketches(rows: pl.DataFrame, family: Family) -> Sketches:
    """Return the sketches of rows.

    The rows need `augmented_from` and the columns of the family's `text` and `group`.

    Raises:
        ValueError: the family has no text.
    """
    if family.text is None:
        raise ValueError(f"rows of {family.name} have no text to sketch")
    inputs = rows.select(_text=family.text, _group=family.group, _copied=pl.col("augmented_from").is_not_null())
    slots, worded = np.empty((rows.height, SLOTS), dtype=np.uint8), np.empty(rows.height, dtype=np.bool_)
    for start in range(0, rows.height, _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        hashes, offsets = shingles(inputs["_text"][part])
        worded[part] = np.diff(offsets) > 0
        _sketch(hashes, offsets, _FACTORS, slots[part])
    groups = inputs.select(plh.col("_group").nchash.xxh3_64().fill_null(0)).to_series()
    return Sketches(
        slots,
        worded,
        groups.to_numpy(writable=True),
        inputs["_copied"].to_numpy(writable=True),
    )


def no_sketches(rows: int) -> Sketches:
    """Return the sketches of rows that are near no other."""
    none = np.zeros(rows, dtype=np.bool_)
    return Sketches(np.zeros((rows, SLOTS), dtype=np.uint8), none, np.zeros(rows, dtype=np.uint64), none)


def _factors() -> NDArray[np.uint32]:
    drawn = np.random.default_rng(_SEED).integers(0, 2**32, size=SLOTS, dtype=np.uint32)
    return drawn | np.uint32(1)


# One odd factor for each hash function.
_FACTORS = _factors()


@compiled
def _sketch(hashes, offsets, factors, kept):  # type: ignore[no-untyped-def] # pragma: no cover
    """Set kept[i, f] to the lowest byte of the smallest hash of text i by function f; 255 if it has no shingles.

    The arithmetic has 32 bits, so a vector unit computes eight functions at once.
    """
    rows, slots = offsets.size - 1, factors.size
    smallest = np.empty(slots, dtype=np.uint32)
    for row in range(rows):
        smallest[:] = np.uint32(0xFFFFFFFF)
        for place in range(offsets[row], offsets[row + 1]):
            high, low = np.uint32(hashes[place] >> np.uint64(32)), np.uint32(hashes[place])
            for slot in range(slots):
                factor = factors[slot]
                value = np.uint32(np.uint32(high ^ np.uint32(low * factor)) * factor)
                smallest[slot] = min(smallest[slot], value)
        for slot in range(slots):
            kept[row, slot] = np.uint8(smallest[slot])
