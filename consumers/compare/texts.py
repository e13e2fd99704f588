"""Measure a stream of texts in bounded memory: a sample for similarity, and a count of distinct n-grams.

Prose is split into words: runs of the family's `shingle_words` measure similarity, and runs of four measure repetition.
Families without prose use their canonical content in characters: runs of eight measure both.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from schema.buffers import strings
from schema.compiled import compiled
from schema.family import Family
from schema.shingles import Hashes, Offsets, shingles
from schema.splitmix import GOLDEN, mix_word
from schema.text_measures import SAMPLE_ROWS, nearest, ngrams, place_keys

NGRAM_WORDS = 4
RUN_BYTES = 8
# The most distinct n-grams in memory, 8 bytes each. Above that, the count is estimated with a standard error of about
# 0.2%.
_MOST_NGRAMS = 1 << 20


class DistinctCount:
    """Counts values and distinct values: exactly up to `capacity` distinct values, and estimated from a sample above.

    The sample is the values whose hash ends in `level` zero bits; `level` rises whenever the sample is too large: "On
    adaptive sampling" (Flajolet, 1990). The standard error is about 1.2 / sqrt(capacity). The order of the values does
    not change the count.
    """

    def __init__(self, capacity: int = _MOST_NGRAMS) -> None:
        self._capacity = capacity
        self._level = 0
        # At most half full, so that a free slot is found quickly.
        self._slots = np.zeros(1 << (2 * capacity).bit_length(), dtype=np.uint64)
        self._stored = 0
        self.values = 0

    def take(self, values: Hashes) -> None:
        """Count values (S,)."""
        self.values += len(values)
        done = 0
        while done < len(values):
            done, self._stored = _store(self._slots, values, done, self._level, self._stored, self._capacity)
            while self._stored > self._capacity:
                self._level += 1
                sampled = (self._slots & np.uint64((1 << self._level) - 1)) == 0
                kept = self._slots[sampled & (self._slots != 0)]
                self._slots[:] = 0
                self._stored = _place_all(self._slots, kept)

    @property
    def distinct(self) -> int:
        """The number of distinct values, exact or estimated."""
        return self._stored << self._level

    @property
    def ratio(self) -> float:
        """Distinct values as a share of all values; 0 without values."""
        return min(1.0, self.distinct / self.values) if self.values else 0.0


class RowSample:
    """A fixed sample of a stream of rows; only the rows' places decide it, not how the stream is cut into frames.

    Args:
        size: the most rows of the sample.
    """

    def __init__(self, size: int = SAMPLE_ROWS) -> None:
        self._size = size
        self._seen = 0
        self._keys = np.empty(0, dtype=np.uint64)
        self.frame = pl.DataFrame()

    def take(self, rows: pl.DataFrame) -> None:
        """Add rows of String columns to the stream; all frames have the same columns."""
        keys = np.concatenate([self._keys, place_keys(self._seen, rows.height)])
        self._seen += rows.height
        chosen = np.sort(np.argsort(keys, kind="stable")[: self._size])
        self._keys = keys[chosen]
        kept = (pl.concat([self.frame, rows]) if self.frame.width else rows)[chosen]
        # Through Arrow, which copies: a series of chosen texts would keep the buffers of all texts in memory.
        self.frame = kept.select(
            pl.Series(column.name, column.to_arrow(compat_level=pl.CompatLevel.oldest())) for column in kept
        )


class TextTally:
    """Measures of a family's texts, over all frames taken.

    Args:
        family: the texts' family; it declares whether its rows have prose.
        near: the Jaccard similarity from which two rows are near duplicates; 1 counts only copies.
        sample: rows compared with each other.
    """

    def __init__(self, family: Family, near: float, sample: int = SAMPLE_ROWS) -> None:
        self._prose = family.text is not None
        self._words = family.shingle_words
        self.expression = family.identity if family.text is None else family.text
        self._near = near
        self._sample = RowSample(sample)
        self.ngrams = DistinctCount()

    @property
    def ngram(self) -> str:
        """The unit of an n-gram, for reports."""
        return f"{NGRAM_WORDS} words" if self._prose else f"{RUN_BYTES} characters"

    def take(self, texts: pl.Series) -> None:
        """Measure texts (N,) String."""
        texts = texts.drop_nulls()
        self.ngrams.take(ngrams(*shingles(texts), NGRAM_WORDS) if self._prose else byte_runs(texts)[0])
        self._sample.take(texts.alias("text").to_frame())

    def likeness(self) -> tuple[int, int]:
        """Return (rows of the sample, rows of it that are near duplicates of another one)."""
        if not self._sample.frame.height:
            return 0, 0
        texts = self._sample.frame["text"]
        similarities = nearest(*(shingles(texts, self._words) if self._prose else byte_runs(texts)))
        return len(similarities), int((similarities >= self._near).sum())


def byte_runs(texts: pl.Series) -> tuple[Hashes, Offsets]:
    """Return all runs of eight bytes of each text as integers, text after text, repeats included.

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
def _store(slots, values, begin, level, stored, capacity):  # type: ignore[no-untyped-def] # pragma: no cover
    """Store the sampled values of values[begin:] until there are too many; return (where it stopped, stored values)."""
    mask = np.uint64((1 << level) - 1)
    for place in range(begin, values.size):
        # Mixed because characters are not evenly distributed. Without the 1, a 0 would stay 0.
        value = mix_word((values[place] + np.uint64(1)) * GOLDEN)
        if value & mask == 0:
            stored += _place(slots, value)
            if stored > capacity:
                return place + 1, stored
    return values.size, stored


@compiled
def _place_all(slots, values):  # type: ignore[no-untyped-def] # pragma: no cover
    stored = 0
    for value in values:
        stored += _place(slots, value)
    return stored


@compiled
def _place(slots, value):  # type: ignore[no-untyped-def] # pragma: no cover
    """Put a hash in the first free slot from the one that its upper bits name; return 1 if the hash is new."""
    # 0 marks a free slot; no text has this hash.
    slot = np.int64((value >> np.uint64(20)) & np.uint64(slots.size - 1))
    while slots[slot] != 0:
        if slots[slot] == value:
            return 0
        slot = (slot + 1) & (slots.size - 1)
    slots[slot] = value
    return 1
