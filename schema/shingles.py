"""Shingles: the runs of three words that a text is compared by, as hashes.

A word is a run of letters and digits, read without case (ASCII; other characters stand as they are); punctuation and
space only separate. A text of fewer than three words is one shingle. Hashes are the same on every platform and in every
version: rows are routed by them.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from schema.compiled import compiled

WORDS = 3

Hashes = npt.NDArray[np.uint64]
Offsets = npt.NDArray[np.int64]


def shingles(texts: pl.Series) -> tuple[Hashes, Offsets]:
    """Return the shingle hashes of all texts, one after another, in order of appearance, repeats included.

    Args:
        texts: (N,) String; a null has no shingles, an empty text one.

    Returns:
        (hashes (S,), offsets (N + 1,)): text i has hashes[offsets[i]:offsets[i + 1]].
    """
    data, bounds = _buffers(texts)
    hashes, offsets = _shingles(data, bounds, texts.is_null().to_numpy())
    return hashes, offsets


def smallest(texts: pl.Series) -> pl.Series:
    """Return the smallest shingle hash of each text (UInt64; null for null)."""
    hashes, offsets = shingles(texts)
    found = np.zeros(len(texts), dtype=np.uint64)
    filled = np.diff(offsets) > 0
    if filled.any():
        found[filled] = np.minimum.reduceat(hashes, offsets[:-1][filled])
    return pl.Series(texts.name, found).set(pl.Series(~filled), None)


def _buffers(texts: pl.Series) -> tuple[npt.NDArray[np.uint8], Offsets]:
    """Return (bytes, bounds): text i is bytes[bounds[i]:bounds[i + 1]]."""
    array = texts.cast(pl.String).rechunk().to_arrow(compat_level=pl.CompatLevel.oldest()).cast(pa.large_string())
    if not len(array):
        return np.frombuffer(b"", dtype=np.uint8), np.zeros(1, dtype=np.int64)
    _, bounds, data = array.buffers()
    within = np.frombuffer(bounds, dtype=np.int64)[array.offset : array.offset + len(array) + 1]
    # All texts empty or null: Arrow need not give a buffer then.
    return np.frombuffer(b"" if data is None else data, dtype=np.uint8), within.copy()


@compiled
def _shingles(data, bounds, absent):  # type: ignore[no-untyped-def] # pragma: no cover
    """Two passes over one buffer: a text of B bytes has at most B // 2 + 1 words, and no more shingles than that."""
    rows = bounds.size - 1
    offsets = np.zeros(rows + 1, dtype=np.int64)
    total = 0
    for row in range(rows):
        total += (bounds[row + 1] - bounds[row]) // 2 + 1
    hashes = np.empty(total, dtype=np.uint64)
    prime, mixer = np.uint64(0x100000001B3), np.uint64(0x9E3779B97F4A7C15)
    at = 0
    for row in range(rows):
        offsets[row] = at
        if absent[row]:
            continue
        words = 0
        first = second = third = np.uint64(0)
        word = np.uint64(0xCBF29CE484222325)
        inside = False
        for place in range(bounds[row], bounds[row + 1] + 1):
            letter = np.uint8(32)
            if place < bounds[row + 1]:
                letter = data[place]
            if 65 <= letter <= 90:
                letter = np.uint8(letter + 32)
            if (97 <= letter <= 122) or (48 <= letter <= 57) or letter >= 128:
                word = (word ^ np.uint64(letter)) * prime
                inside = True
            elif inside:
                first, second, third = second, third, word
                words += 1
                word = np.uint64(0xCBF29CE484222325)
                inside = False
                if words >= 3:
                    hashes[at] = _mixed(first, second, third, mixer)
                    at += 1
        if words < 3:
            hashes[at] = _mixed(first, second, third, mixer)
            at += 1
    offsets[rows] = at
    return hashes[:at].copy(), offsets


@compiled
def _mixed(first, second, third, mixer):  # type: ignore[no-untyped-def] # pragma: no cover
    """Three word hashes as one (each step the finaliser of splitmix64, so that the smallest is drawn evenly)."""
    value = np.uint64(0)
    for part in (first, second, third):
        value = (value ^ part) + mixer
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        value = value ^ (value >> np.uint64(31))
    return value
