"""Shingles: hashes of every few consecutive words of a text, three by default, for comparing texts.

A word is a run of letters and digits. ASCII letters are read in lower case; other characters are not changed.
Punctuation and spaces separate words. A text with fewer words than a shingle is one shingle. The hashes are the same on
every platform and in every version, because they decide a row's partition.
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
# The factor of each word of a shingle: odd numbers. Appending one changes no shingle of fewer words.
FACTORS = np.array(
    [
        *(0xD6E8FEB86659FD93, 0xA0761D6478BD642F, 0xE7037ED1A0B428DB, 0x8EBC6AF09C88C6E3, 0x589965CC75374CC3),
        *(0x1D8E4E27C47D124F, 0xEB44ACCAB455D165, 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9),
        *(0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5, 0xFF51AFD7ED558CCD),
    ],
    dtype=np.uint64,
)
MOST_WORDS = len(FACTORS)


def _letters() -> npt.NDArray[np.uint8]:
    """Return the byte that each byte is read as; 0 for ASCII that is neither a letter nor a digit."""
    text = bytes(byte if byte >= 128 or chr(byte).isalnum() else 0 for byte in range(256))
    return np.frombuffer(text.lower(), dtype=np.uint8)


_LETTERS = _letters()

Hashes = npt.NDArray[np.uint64]
Offsets = npt.NDArray[np.int64]


def shingles(texts: pl.Series, words: int = WORDS) -> tuple[Hashes, Offsets]:
    """Return the shingle hashes of all texts, one after another, in order of appearance, repeats included.

    Args:
        texts: (N,) String; a null has no shingles, an empty text has one.
        words: consecutive words in a shingle, 1 to `MOST_WORDS`.

    Returns:
        (hashes (S,), offsets (N + 1,)): text i has hashes[offsets[i]:offsets[i + 1]].

    Raises:
        ValueError: `words` is out of range.
    """
    return _shingles(*strings(texts), texts.is_null().to_numpy(), _checked(words))  # type: ignore[no-any-return]


def smallest(texts: pl.Series, words: int = WORDS) -> pl.Series:
    """Return the smallest shingle hash of each text (UInt64; null for null).

    Args:
        texts: (N,) String.
        words: consecutive words in a shingle, 1 to `MOST_WORDS`.

    Raises:
        ValueError: `words` is out of range.
    """
    absent = texts.is_null()
    least = _smallest(*strings(texts), absent.to_numpy(), _checked(words))
    return pl.Series(texts.name, least).set(absent, None)


def _checked(words: int) -> int:
    if not 1 <= words <= MOST_WORDS:
        raise ValueError(f"a shingle has 1 to {MOST_WORDS} words, not {words}")
    return words


@compiled
def _shingles(data, bounds, absent, words):  # type: ignore[no-untyped-def] # pragma: no cover
    rows = bounds.size - 1
    offsets = np.zeros(rows + 1, dtype=np.int64)
    most = np.int64(0)
    for row in range(rows):
        most += _most_shingles(bounds, row)
    hashes = np.empty(most, dtype=np.uint64)
    for row in range(rows):
        begin = offsets[row]
        count = 0 if absent[row] else _shingles_of(data, bounds[row], bounds[row + 1], words, hashes[begin:])
        offsets[row + 1] = begin + count
    return hashes[: offsets[rows]].copy(), offsets


@compiled
def _smallest(data, bounds, absent, words):  # type: ignore[no-untyped-def] # pragma: no cover
    rows = bounds.size - 1
    least = np.zeros(rows, dtype=np.uint64)
    most = np.int64(1)
    for row in range(rows):
        most = max(most, _most_shingles(bounds, row))
    # One text's hashes at a time, so that they fit into the processor's cache.
    hashes = np.empty(most, dtype=np.uint64)
    for row in range(rows):
        if not absent[row]:
            count = _shingles_of(data, bounds[row], bounds[row + 1], words, hashes)
            least[row] = hashes[:count].min()
    return least


@compiled
def _most_shingles(bounds, row):  # type: ignore[no-untyped-def] # pragma: no cover
    """Return the most shingles a text can have: B bytes hold at most (B + 1) // 2 words; an empty text is a shingle."""
    return (bounds[row + 1] - bounds[row]) // 2 + 1


@compiled
def _shingles_of(data, begin, end, words, hashes):  # type: ignore[no-untyped-def] # pragma: no cover
    """Write the hashes of one text's shingles to `hashes` and return their number.

    A word is hashed by FNV-1a. A shingle's word hashes, each times an odd factor, are summed and mixed as in
    SplitMix64. So every shingle of a text is the smallest with the same probability.
    """
    word = _BASIS
    count = 0
    inside = False
    for place in range(begin, end + 1):
        letter = _LETTERS[data[place]] if place < end else _SEPARATOR
        if letter != _SEPARATOR:
            word = (word ^ np.uint64(letter)) * _PRIME
            inside = True
        elif inside:
            hashes[count] = word
            count += 1
            word, inside = _BASIS, False
    if count < words:
        # The factors of the last words, as if empty words came first.
        hashes[0] = _mixed(hashes, 0, count, words - count)
        return 1
    # A shingle's place is the place of its first word, which no later shingle reads.
    for first in range(count - words + 1):
        hashes[first] = _mixed(hashes, first, words, 0)
    return count - words + 1


@compiled
def _mixed(hashes, first, words, skipped):  # type: ignore[no-untyped-def] # pragma: no cover
    value = GOLDEN
    for word in range(words):
        value += hashes[first + word] * FACTORS[skipped + word]
    return mix_word(value)
