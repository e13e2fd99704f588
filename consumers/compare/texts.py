"""What a set's texts are measured by while they go by: a sample of them, and a count of distinct n-grams.

Prose is read in words, in runs of three for likeness and of four for repetition. A family without prose is read by its
canonical content in characters, in runs of eight for both. Memory is bounded, however many rows there are.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from consumers.compare.measures import SAMPLE_ROWS, mixed, nearest, ngrams, place_keys
from schema.buffers import strings
from schema.family import Family
from schema.shingles import Hashes, Offsets, shingles

NGRAM_WORDS = 4
RUN_BYTES = 8
# Distinct n-grams held at most, 8 bytes each; beyond, their number is estimated, with a standard error of about 0.2%.
_HELD_NGRAMS = 1 << 20


class DistinctCount:
    """Counts values and distinct values: exactly up to `capacity` distinct ones, and beyond from a sample of them.

    The sample is of the values whose hash ends in `level` zero bits, and a level more is asked for whenever there are
    too many: "On adaptive sampling" (Flajolet, 1990). Its standard error is about 1.2 / sqrt(capacity).
    """

    def __init__(self, capacity: int = _HELD_NGRAMS) -> None:
        self._capacity = capacity
        self._level = 0
        self._held = np.empty(0, dtype=np.uint64)
        self.values = 0

    def take(self, values: Hashes) -> None:
        """Count values (S,)."""
        self.values += len(values)
        # The values may be counts or characters themselves, whose last bits are anything but evenly drawn.
        held = np.unique(self._sampled(mixed(values)))
        self._held = np.union1d(self._held, held)
        while len(self._held) > self._capacity:
            self._level += 1
            self._held = self._sampled(self._held)

    @property
    def distinct(self) -> int:
        """How many distinct values were counted."""
        return len(self._held) << self._level

    @property
    def ratio(self) -> float:
        """Distinct values to all, 0 where there is none."""
        return min(1.0, self.distinct / self.values) if self.values else 0.0

    def _sampled(self, hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        return hashes[hashes & np.uint64((1 << self._level) - 1) == 0] if self._level else hashes


class TextTally:
    """Texts of a family, measured.

    Args:
        family: says whether its rows have prose.
        near: the Jaccard similarity from which two rows are near duplicates; 1 leaves copies alone.
        sample: rows compared with one another.
    """

    def __init__(self, family: Family, near: float, sample: int = SAMPLE_ROWS) -> None:
        self._prose = family.text is not None
        self.expression = family.identity if family.text is None else family.text
        self._near = near
        self._sample = sample
        self._seen = 0
        self._keys = np.empty(0, dtype=np.uint64)
        self._texts = pl.Series(dtype=pl.String)
        self.ngrams = DistinctCount()

    @property
    def ngram(self) -> str:
        """What an n-gram is, for who reads the ratio."""
        return f"{NGRAM_WORDS} words" if self._prose else f"{RUN_BYTES} characters"

    def take(self, texts: pl.Series) -> None:
        """Measure texts (N,) String."""
        texts = texts.drop_nulls()
        hashes, offsets = self._runs(texts)
        self.ngrams.take(ngrams(hashes, offsets, NGRAM_WORDS) if self._prose else hashes)
        keys = np.concatenate([self._keys, place_keys(self._seen, len(texts))])
        self._seen += len(texts)
        chosen = np.sort(np.argsort(keys, kind="stable")[: self._sample])
        self._keys = keys[chosen]
        kept = pl.concat([self._texts, texts.alias("")]).gather(chosen)
        # Through Arrow, which copies: a series of chosen texts would hold on to the buffers of all.
        self._texts = pl.Series(kept.to_arrow(compat_level=pl.CompatLevel.oldest()))

    def likeness(self) -> tuple[int, float, int]:
        """Return (rows of the sample, its diversity as `measures.diversity`, those that nearly repeat another)."""
        similarities = nearest(*self._runs(self._texts))
        rows = len(similarities)
        return rows, float(1 - similarities.mean()) if rows > 1 else 0.0, int((similarities >= self._near).sum())

    def _runs(self, texts: pl.Series) -> tuple[Hashes, Offsets]:
        return shingles(texts) if self._prose else byte_runs(texts)


def byte_runs(texts: pl.Series) -> tuple[Hashes, Offsets]:
    """Return all runs of eight bytes of each text, as integers, one text after another, repeats included.

    Args:
        texts: (N,) String without nulls; a shorter text is one run.

    Returns:
        (runs (S,), offsets (N + 1,)): text i has runs[offsets[i]:offsets[i + 1]].
    """
    data, bounds = strings(texts.rechunk())
    held = np.concatenate([data[: bounds[-1]], np.zeros(RUN_BYTES - 1, dtype=np.uint8)]).astype(np.uint64)
    windows = np.zeros(len(held) - RUN_BYTES + 1, dtype=np.uint64)
    for place in range(RUN_BYTES):
        windows |= held[place : place + len(windows)] << np.uint64(8 * place)
    lengths = np.diff(bounds)
    counts = np.maximum(lengths - RUN_BYTES + 1, 1)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    # Where each run begins: its text's first byte, and one further for each run before it.
    begins = np.repeat(bounds[:-1] - offsets[:-1], counts) + np.arange(offsets[-1])
    runs = windows[np.minimum(begins, max(len(windows) - 1, 0))] if len(windows) else np.zeros(len(begins), np.uint64)
    short = np.flatnonzero(lengths < RUN_BYTES)
    # What follows a short text is another's.
    runs[offsets[short]] &= (np.uint64(1) << (8 * lengths[short]).astype(np.uint64)) - np.uint64(1)
    return runs, offsets
