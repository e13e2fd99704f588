"""Measures of a set of texts: the share of distinct n-grams, and how similar each text is to its nearest neighbour.

Both use the shingles of `schema.shingles`, which are made of words without case or punctuation.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from schema.compiled import compiled
from schema.shingles import WORDS, Hashes, Offsets, shingles
from schema.splitmix import GOLDEN, mix, nth

# Rows that are compared with each other. Every pair is compared, so the time grows with the square of this.
SAMPLE_ROWS = 2_000


def distinct_ngrams(texts: pl.Series, n: int = 4) -> float:
    """Return the share of distinct runs of `n` words among all runs: 1 without repeats, 0 without runs.

    "A Diversity-Promoting Objective Function for Neural Conversation Models" (Li et al., 2016). The share falls as
    texts are added, so compare it only between sets of similar size.

    Args:
        texts: (N,) String; a null, or a text of fewer than `n` words, has no runs.
        n: words in a run, at least 3.

    Raises:
        ValueError: `n` is less than 3.
    """
    grams = ngrams(*shingles(texts), n)
    return len(np.unique(grams)) / len(grams) if len(grams) else 0.0


def ngrams(hashes: Hashes, offsets: Offsets, n: int) -> Hashes:
    """Return the hashes of all runs of `n` words (G,), combined from the hashes of their shingles.

    Args:
        hashes: (S,) shingles of all rows, from `schema.shingles.shingles`.
        offsets: (N + 1,) begin of each row's hashes.
        n: words in a run, at least 3.

    Raises:
        ValueError: `n` is less than 3.
    """
    if n < WORDS:
        raise ValueError(f"runs of {n} words are shorter than a shingle of {WORDS}")
    further = n - WORDS
    count = max(len(hashes) - further, 0)
    grams = hashes[:count].copy()
    for step in range(1, further + 1):
        grams = mix(grams * GOLDEN) ^ hashes[step : step + count]
    # Leave out runs that begin in one row and end in the next.
    row = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    return np.compress(row[:count] == row[further : further + count], grams)


def nearest(hashes: Hashes, offsets: Offsets) -> npt.NDArray[np.float64]:
    """Return for each row the highest Jaccard similarity between its set of hashes and another row's (N,), 0 to 1.

    Args:
        hashes: (S,) hashes of all rows; repeats within a row count once.
        offsets: (N + 1,) begin of each row's hashes.
    """
    return np.asarray(_nearest(*_holders(hashes, offsets)))


def similar_pairs(
    hashes: Hashes, offsets: Offsets, least: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return all pairs of rows whose sets of hashes have a Jaccard similarity of at least `least`, by comparing all.

    Args:
        hashes: (S,) hashes of all rows; repeats within a row count once.
        offsets: (N + 1,) begin of each row's hashes.
        least: above 0; rows without a common hash are never paired.

    Returns:
        (pairs (P, 2), the first row below the second, in order; similarities (P,)).
    """
    return _similar(*_holders(hashes, offsets), float(least))  # type: ignore[no-any-return]


def pair_similarities(first: pl.Series, second: pl.Series) -> npt.NDArray[np.float64]:
    """Return the Jaccard similarity of the shingles of first[i] and second[i] (N,), 0 to 1.

    Args:
        first, second: (N,) String, without nulls.

    >>> pair_similarities(pl.Series(["one two three four"]), pl.Series(["Zero, one two three."])).tolist()
    [0.3333333333333333]
    """
    return np.asarray(_pair_similarities(*shingles(first), *shingles(second)))


def _holders(hashes: Hashes, offsets: Offsets) -> tuple[npt.NDArray[np.int64], ...]:
    """Return (numbers of the hashes of all rows, bounds of the rows, rows that hold each hash, starts of the hashes).

    Row i has the different hashes number[bounds[i]:bounds[i + 1]]; hash n is in holders[starts[n]:starts[n + 1]].
    """
    rows = len(offsets) - 1
    row = np.repeat(np.arange(rows, dtype=np.int64), np.diff(offsets))
    # Row after row, each row's hashes sorted and without repeats.
    order = np.lexsort((hashes, row))
    ordered, owner = hashes[order], row[order]
    once = np.ones(len(ordered), dtype=np.bool_)
    once[1:] = (ordered[1:] != ordered[:-1]) | (owner[1:] != owner[:-1])
    ordered, owner = ordered[once], owner[once]
    sizes = np.bincount(owner, minlength=rows)
    # The number of each hash, and for each number the rows that hold it.
    _, number = np.unique(ordered, return_inverse=True)
    holders = owner[np.argsort(number, kind="stable")]
    starts = np.concatenate([[0], np.cumsum(np.bincount(number))]).astype(np.int64)
    bounds = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return number.astype(np.int64), bounds, holders, starts


def place_keys(first: int, count: int) -> npt.NDArray[np.uint64]:
    """Return the sampling keys of `count` rows from place `first` on; a sample is the rows with the smallest keys.

    A key depends on the row's place alone, so that a set's sample can be taken from the samples of its parts.
    """
    return nth(np.zeros(1, dtype=np.uint64), np.arange(first + 1, first + count + 1))


@compiled
def _nearest(number, bounds, holders, starts):  # type: ignore[no-untyped-def] # pragma: no cover
    """Count the hashes that each row shares with every other row, through the lists of holders."""
    rows = bounds.size - 1
    best = np.zeros(rows, dtype=np.float64)
    shared = np.zeros(rows, dtype=np.int64)
    for row in range(rows):
        shared[:] = 0
        for place in range(bounds[row], bounds[row + 1]):
            for holder in range(starts[number[place]], starts[number[place] + 1]):
                shared[holders[holder]] += 1
        size = bounds[row + 1] - bounds[row]
        for other in range(rows):
            if other != row and shared[other] > 0:
                similarity = shared[other] / (size + bounds[other + 1] - bounds[other] - shared[other])
                best[row] = max(best[row], similarity)
    return best


@compiled
def _pair_similarities(first, first_offsets, second, second_offsets):  # type: ignore[no-untyped-def] # pragma: no cover
    """Sort the hashes of each pair, and walk through both without repeats."""
    rows = first_offsets.size - 1
    similarities = np.zeros(rows, dtype=np.float64)
    for row in range(rows):
        ours = np.unique(first[first_offsets[row] : first_offsets[row + 1]])
        theirs = np.unique(second[second_offsets[row] : second_offsets[row + 1]])
        i = j = shared = 0
        while i < ours.size and j < theirs.size:
            if ours[i] == theirs[j]:
                shared += 1
                i += 1
                j += 1
            elif ours[i] < theirs[j]:
                i += 1
            else:
                j += 1
        similarities[row] = shared / (ours.size + theirs.size - shared)
    return similarities


@compiled
def _similar(number, bounds, holders, starts, least):  # type: ignore[no-untyped-def] # pragma: no cover
    """Count the hashes that each row shares with every later row; keep the pairs that are similar enough."""
    rows = bounds.size - 1
    shared = np.zeros(rows, dtype=np.int64)
    pairs, similarities = np.empty((64, 2), dtype=np.int64), np.empty(64, dtype=np.float64)
    held = 0
    for row in range(rows):
        shared[:] = 0
        for place in range(bounds[row], bounds[row + 1]):
            for holder in range(starts[number[place]], starts[number[place] + 1]):
                shared[holders[holder]] += 1
        size = bounds[row + 1] - bounds[row]
        for other in range(row + 1, rows):
            if shared[other] == 0:
                continue
            similarity = shared[other] / (size + bounds[other + 1] - bounds[other] - shared[other])
            if similarity >= least:
                if held == similarities.size:
                    more_pairs, more = np.empty((2 * held, 2), dtype=np.int64), np.empty(2 * held, dtype=np.float64)
                    more_pairs[:held], more[:held] = pairs, similarities
                    pairs, similarities = more_pairs, more
                pairs[held, 0], pairs[held, 1], similarities[held] = row, other, similarity
                held += 1
    return pairs[:held].copy(), similarities[:held].copy()
