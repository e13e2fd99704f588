"""SplitMix64: pseudo-random numbers that are computed from a seed and a counter, without a state.

Number n of a seed is mix(seed + n * GOLDEN) ("Fast splittable pseudorandom number generators", Steele, Lea and Flood,
OOPSLA 2014). So any process can compute any number, and every platform computes the same.

The results of this module never change, because they decide which rows a seed makes and how a feed orders them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from schema.compiled import compiled

Array = npt.NDArray[Any]

# 2^64 divided by the golden ratio, made odd. It is also the factor of Fibonacci hashing.
GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def mix(words: Array) -> Array:
    """Return the finalizer of SplitMix64 of each word, modulo 2^64.

    Args:
        words: (N,) uint64; every bit of a word changes about half of the bits of its result.
    """
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))  # type: ignore[no-any-return]


# The same for one word (uint64) in compiled code.
mix_word = compiled(mix)


def nth(seeds: Array, numbers: int | Array) -> Array:
    """Return numbers of the streams of `seeds`, uint64: the streams' item 0 is mix(seed), item 1 the first number.

    >>> [hex(number) for number in nth(np.zeros(1, dtype=np.uint64), np.array([1, 2]))]
    ['0xe220a8397b1dcdaf', '0x6e789e6aa1b965f4']

    Args:
        seeds: (N,) uint64.
        numbers: which number of each stream, at least 0: one for all, or an array that broadcasts with `seeds`.
    """
    return mix(seeds + np.asarray(numbers).astype(np.uint64) * GOLDEN)
