"""Shingles: hashes of every three consecutive words of a text, for comparing texts.

A word is a run of letters and digits. ASCII letters are read in lower case; other characters are not changed.
Punctuation and spaces separate words. A text of fewer than three words is one shingle. The hashes are the same on every
platform and in every version, because they decide a row's partition.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from schema.buffers import strings
from schema.compiled import compiled
from schema.splitmix import GOLDEN, mix_word

WORDS = 3

# FNV-1a.
_BASIS, _PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)
_SEPARATOR = np.uint8(0)


def _letters() -> npt.NDArray[np.uint8]:
    """Return the byte that each byte is read as; 0 for ASCII that is neither a letter nor a digit."""
    text = bytes(byte if byte >= 128 or chr(byte).isalnum() else 0 for byte in range(256))
    return np.frombuffer(text.lower(), dtype=np.uint8)


_LETTERS = _letters()

Hashes = npt.NDArray[np.uint64]
Offsets = npt.NDArray[np.int64]


def shingles(texts: pl.Series) -> tuple[Hashes, Offsets]:
    """Return the shingle hashes of all texts, one after another, in order of appearance, repeats included.

    Args:
        texts: (N,) String; a null has no shingles, an empty text has one.

    Returns:
        (hashes (S,), offsets (N + 1,)): text i has hashes[offsets[i]:offsets[i + 1]].
    """
    return _shingles(*strings(texts), texts.is_null().to_numpy())  # type: ignore[no-any-return]


def smallest(texts: pl.Series) -> pl.Series:
    """Return the smallest shingle hash of each text (UInt64; null for null)."""
    absent = texts.is_null()
    return pl.Series(texts.name, _smallest(*strings(texts), absent.to_numpy())).set(absent, None)


@compiled
def _shingles(data, bounds, absent):  # type: ignore[no-untyped-def] # pragma: no cover
    rows = bounds.size - 1
    offsets = np.zeros(rows + 1, dtype=np.int64)
    most = np.int64(0)
    for row in range(rows):
        most += _most_shingles(bounds, row)
    hashes = np.empty(most, dtype=np.uint64)
    for row in range(rows):
        begin = offsets[row]
        count = 0 if absent[row] else _shingles_of(data, bounds[row], bounds[row + 1], hashes[begin:])
        offsets[row + 1] = begin + count
    return hashes[: offsets[rows]].copy(), offsets


@compiled
def _smallest(data, bounds, absent):  # type: ignore[no-untyped-def] # pragma: no cover
    rows = bounds.size - 1
    least = np.zeros(rows, dtype=np.uint64)
    most = np.int64(1)
    for row in range(rows):
        most = max(most, _most_shingles(bounds, row))
    # One text's hashes at a time, so that they fit into the processor's cache.
    hashes = np.empty(most, dtype=np.uint64)
    for row in range(rows):
        if not absent[row]:
            count = _shingles_of(data, bounds[row], bounds[row + 1], hashes)
            least[row] = hashes[:count].min()
    return least


@compiled
def _most_shingles(bounds, row):  # type: ignore[no-untyped-def] # pragma: no cover
    """Return the most shingles a text can have: B bytes hold at most (B + 1) // 2 words; an empty text is a shingle."""
    return (bounds[row + 1] - bounds[row]) // 2 + 1


@compiled
def _shingles_of(data, begin, end, hashes):  # type: ignore[no-untyped-def] # pragma: no cover
    """Write the hashes of one text's shingles to `hashes` and return their number.

    A word is hashed by FNV-1a. Three word hashes, each times an odd factor, are summed and mixed as in SplitMix64. So
    every shingle of a text is the smallest with the same probability.
    """
    first = second = third = np.uint64(0)
    word = _BASIS
    count, words = 0, 0
    inside = False
    for place in range(begin, end + 1):
        letter = _LETTERS[data[place]] if place < end else _SEPARATOR
        if letter != _SEPARATOR:
            word = (word ^ np.uint64(letter)) * _PRIME
            inside = True
        elif inside:
            first, second, third = second, third, word
            word, inside = _BASIS, False
            words += 1
            if words >= 3:
                hashes[count] = _mixed(first, second, third)
                count += 1
    if words < 3:
        hashes[count] = _mixed(first, second, third)
        count += 1
    return count


@compiled
def _mixed(first, second, third):  # type: ignore[no-untyped-def] # pragma: no cover
    value = first * np.uint64(0xD6E8FEB86659FD93) + second * np.uint64(0xA0761D6478BD642F)
    return mix_word(value + third * np.uint64(0xE7037ED1A0B428DB) + GOLDEN)
