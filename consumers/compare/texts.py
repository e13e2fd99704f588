"""What a set's texts are measured by while they go by: a sample of them, and a count of distinct n-grams.

Prose is read in words, in runs of three for likeness and of four for repetition. A family without prose is read by its
canonical content in characters, in runs of eight for both. Memory is bounded, however many rows there are.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from consumers.compare.measures import SAMPLE_ROWS, nearest, ngrams, place_keys
from schema.buffers import strings
from schema.compiled import compiled
from schema.family import Family
from schema.shingles import Hashes, Offsets, shingles

NGRAM_WORDS = 4
RUN_BYTES = 8
# Distinct n-grams held at most, 8 bytes each; beyond, their number is estimated, with a standard error of about 0.2%.
_HELD_NGRAMS = 1 << 20


class DistinctCount:
    """Counts values and distinct values: exactly up to `capacity` distinct ones, and beyond from a sample of them.

    The sample is of the values whose hash ends in `level` zero bits, and a level more is asked for whenever there are
    too many: "On adaptive sampling" (Flajolet, 1990). Its standard error is about 1.2 / sqrt(capacity). What is
    counted does not depend on the order in which the values come.
    """

    def __init__(self, capacity: int = _HELD_NGRAMS) -> None:
        self._capacity = capacity
        self._level = 0
        # At most half full, so that a place is soon found.
        self._slots = np.zeros(1 << (2 * capacity).bit_length(), dtype=np.uint64)
        self._held = 0
        self.values = 0

    def take(self, values: Hashes) -> None:
        """Count values (S,)."""
        self.values += len(values)
        done = 0
        while done < len(values):
            done, self._held = _hold(self._slots, values, done, self._level, self._held, self._capacity)
            while self._held > self._capacity:
                self._level += 1
                sampled = (self._slots & np.uint64((1 << self._level) - 1)) == 0
                kept = self._slots[sampled & (self._slots != 0)]
                self._slots[:] = 0
                self._held = _place_all(self._slots, kept)

    @property
    def distinct(self) -> int:
        """How many distinct values were counted."""
        return self._held << self._level

    @property
    def ratio(self) -> float:
        """Distinct values to all, 0 where there is none."""
        return min(1.0, self.distinct / self.values) if self.values else 0.0


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
    return _byte_runs(*strings(texts))  # type: ignore[no-any-return]


@compiled
def _byte_runs(data, bounds):  # type: ignore[no-untyped-def] # pragma: no cover
    """Shift one byte after another through a run."""
    rows = bounds.size - 1
    offsets = np.zeros(rows + 1, dtype=np.int64)
    for row in range(rows):
        offsets[row + 1] = offsets[row] + max(bounds[row + 1] - bounds[row] - RUN_BYTES + 1, 1)
    runs = np.empty(offsets[rows], dtype=np.uint64)
    top = np.uint64(8 * (RUN_BYTES - 1))
    for row in range(rows):
        begin, length = bounds[row], bounds[row + 1] - bounds[row]
        run = np.uint64(0)
        for place in range(min(length, RUN_BYTES)):
            run |= np.uint64(data[begin + place]) << np.uint64(8 * place)
        at = offsets[row]
        runs[at] = run
        for place in range(begin + RUN_BYTES, begin + length):
            run = (run >> np.uint64(8)) | (np.uint64(data[place]) << top)
            at += 1
            runs[at] = run
    return runs, offsets


@compiled
def _hold(slots, values, begin, level, held, capacity):  # type: ignore[no-untyped-def] # pragma: no cover
    """Hold the sampled among values[begin:] until there are too many; return (where it stopped, values held)."""
    mask = np.uint64((1 << level) - 1)
    for place in range(begin, values.size):
        # Characters are anything but evenly drawn: mixed, as `measures.mixed` does, after a step away from 0.
        value = (values[place] + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        value = value ^ (value >> np.uint64(31))
        if value & mask == 0:
            held += _place(slots, value)
            if held > capacity:
                return place + 1, held
    return values.size, held


@compiled
def _place_all(slots, values):  # type: ignore[no-untyped-def] # pragma: no cover
    held = 0
    for value in values:
        held += _place(slots, value)
    return held


@compiled
def _place(slots, value):  # type: ignore[no-untyped-def] # pragma: no cover
    """Put a hash in its slot, the first free one from where its upper bits say; return 1 where it was not there."""
    # 0 is a free slot, and the hash of no text.
    slot = np.int64((value >> np.uint64(20)) & np.uint64(slots.size - 1))
    while slots[slot] != 0:
        if slots[slot] == value:
            return 0
        slot = (slot + 1) & (slots.size - 1)
    slots[slot] = value
    return 1
