"""MinHash sketches of texts: a fixed number of bytes that estimate the Jaccard similarity of two sets of shingles.

A sketch has one slot for each of a number of hash functions: one byte of the smallest hash of the text's shingles
(`schema.shingles`). Two texts of Jaccard similarity J agree in a slot with probability J + (1 - J) / 256. So the share
of agreeing slots estimates J, with a standard deviation of 0.035 at J = 0.8 and 128 slots ("On the resemblance and
containment of documents", Broder, 1997; "b-bit minwise hashing", Li and Koenig, 2010). Sketches are never stored, so
the hash functions may change between versions.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from schema.compiled import compiled
from schema.shingles import shingles

# The probability that two slots of one byte agree by chance.
CHANCE = 1 / 256
MOST_SLOTS = 256
_SEED = 20_240
# The shingles of this many texts fit into the processor's cache.
_ROWS_AT_ONCE = 512


def sketch_texts(texts: pl.Series, words: int, slots: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return the sketches of texts (N, slots), and whether each text has a sketch (N,); a null has none.

    >>> sketches, _ = sketch_texts(pl.Series(["the cat sat on the mat", "The cat sat on the mat!"]), 3, 128)
    >>> bool((sketches[0] == sketches[1]).all())
    True

    Args:
        texts: (N,) String.
        words: consecutive words in a shingle.
        slots: hash functions, at most `MOST_SLOTS`.
    """
    kept, worded = np.empty((len(texts), slots), dtype=np.uint8), np.empty(len(texts), dtype=np.bool_)
    for start in range(0, len(texts), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        hashes, offsets = shingles(texts[part], words)
        worded[part] = np.diff(offsets) > 0
        _sketch(hashes, offsets, _FACTORS[:slots], kept[part])
    return kept, worded


def expected_agreement(similarity: float, slots: int) -> float:
    """Return the mean number of slots in which two texts of this similarity agree."""
    return slots * (similarity + (1 - similarity) * CHANCE)


def _factors() -> NDArray[np.uint32]:
    drawn = np.random.default_rng(_SEED).integers(0, 2**32, size=MOST_SLOTS, dtype=np.uint32)
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
