"""Which rows of a window make which batch: pure functions of the rows' lengths and a seed.

A window is the rows that are in memory at once; shuffling and bucketing happen inside it. The permutation is
made with SplitMix64, not with a library's generator, so that a seed gives the same batches with every version of numpy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from consumers.tensor_form import Indices
from schema.compiled import compiled
from schema.splitmix import GOLDEN, mix_word, nth

Keys = npt.NDArray[np.uint64]
Seeds = tuple[int, ...]


def permutation(count: int, *seeds: int) -> Indices:
    """Return a permutation of range(count), below 2^32, the same for the same seeds on every platform.

    Fisher and Yates's shuffle (Knuth, The Art of Computer Programming, 3.4.2, algorithm P). A draw is the upper half of
    a SplitMix64 number, scaled to its range (Lemire, arXiv:1805.10941, without the rejection).
    """
    state = np.zeros(1, dtype=np.uint64)
    for seed in seeds:
        state = nth(state ^ np.uint64(seed % 2**64), 1)
    order = np.arange(count, dtype=np.int64)
    _shuffle(order, state)
    return order


@compiled
def _shuffle(order: Indices, state: Keys) -> None:
    """Shuffle `order` in place with the random numbers that follow from `state` (1,)."""
    # Unsigned integers throughout: signed and unsigned together would become floats.
    half = np.uint64(32)
    counter = state[0]
    for last in range(len(order) - 1, 0, -1):
        counter += GOLDEN
        picked = np.int64(((mix_word(counter) >> half) * np.uint64(last + 1)) >> half)
        order[last], order[picked] = order[picked], order[last]


def interleaved(counts: list[int]) -> Indices:
    """Return the order that spreads the rows of several parts evenly among each other.

    Args:
        counts: rows per part; the rows come part after part.
    """
    # Row k of a part of n rows goes to (k + 1/2) / n of the way.
    places = np.concatenate([(np.arange(count) + 0.5) / max(count, 1) for count in counts])
    return np.argsort(places, kind="stable").astype(np.int64)


@dataclass(frozen=True)
class BatchShape:
    """How a window is cut into batches.

    Attributes:
        rows: the most rows of a batch; None for no limit on rows.
        tokens: the most tokens of a batch, padding included: rows times the longest row; None for no limit.
        bucket: put rows of similar length together, so that a batch has little padding.
        least_rows: the least rows of a batch. `rows`, and `tokens` over the longest row, must not be less.
    """

    rows: int | None
    tokens: int | None
    bucket: bool
    least_rows: int = 1


@dataclass(frozen=True, eq=False)
class PlannedBatch:
    """The sequences of a batch, row after row; known before any tensor is made.

    Attributes:
        sequences: (S,) indices in the window.
        tokens: tokens of all sequences, without padding.
        row: (S,) the batch's row that holds each sequence, ascending from 0; None if each has a row of its own.
    """

    sequences: Indices
    tokens: int
    row: Indices | None = None

    @property
    def rows(self) -> int:
        """Number of rows."""
        if self.row is None:
            return len(self.sequences)
        return int(self.row[-1]) + 1 if len(self.row) else 0

    def of_rank(self, rank: int, ranks: int) -> tuple[Indices, Indices | None]:
        """Return the sequences of every `ranks`-th row, from row `rank` on, and their rows, numbered from 0 again."""
        if self.row is None:
            return self.sequences[rank::ranks], None
        own = self.row % ranks == rank
        return self.sequences[own], self.row[own] // ranks

    def without(self, gone: npt.NDArray[np.bool_], tokens: npt.NDArray[np.int64]) -> PlannedBatch:
        """Return the batch without the sequences that are `gone`; a row without any is left out.

        Args:
            gone: (N,) whether to leave out each sequence of the window.
            tokens: (N,) their lengths.
        """
        left = ~gone[self.sequences]
        if left.all():
            return self
        sequences = self.sequences[left]
        row = None if self.row is None else np.unique(self.row[left], return_inverse=True)[1].astype(np.int64)
        return PlannedBatch(sequences, int(tokens[sequences].sum()), row)


def first_order(count: int, seeds: Seeds | None, order: Indices | None) -> Indices:
    """Return the order in which rows are planned: permuted by `seeds`, or else `order`, or else as stored."""
    if seeds is not None:
        return permutation(count, *seeds)
    return np.arange(count, dtype=np.int64) if order is None else order


def plan(tokens: npt.NDArray[np.int64], shape: BatchShape, seeds: Seeds | None, order: Indices | None) -> list[Indices]:
    """Return the row indices of each batch of a window.

    Every row is in exactly one batch, unless the rows cannot fill their batches with `shape.least_rows` each. Then the
    rows of the last batch are dropped.

    Args:
        tokens: (N,) length of each row in tokens.
        shape: the limits of a batch.
        seeds: the seeds that shuffle the rows and the order of the batches; None keeps `order`.
        order: (N,) the order without seeds; None keeps the order of the rows.
    """
    count = len(tokens)
    order = first_order(count, seeds, order)
    if shape.bucket:
        order = order[_by_length(tokens[order])]
    ends = np.empty(count, dtype=np.int64)
    cuts = ends[: _cut(tokens[order], count if shape.rows is None else shape.rows, shape.tokens or 0, ends)]
    cuts = _filled_up(cuts, shape.least_rows)
    batches = np.split(order[: cuts[-1]], cuts[:-1]) if len(cuts) else []
    if shape.bucket and seeds is not None:
        batches = [batches[index] for index in permutation(len(batches), *seeds, len(batches))]
    return batches


def _by_length(tokens: npt.NDArray[np.int64]) -> Indices:
    """Return the stable order by length; numpy's radix sort of 16-bit numbers is many times as fast."""
    narrow = tokens.astype(np.uint16) if tokens.max(initial=0) < 1 << 16 else tokens
    return np.argsort(narrow, kind="stable")


def _filled_up(ends: Indices, least_rows: int) -> Indices:
    """Return the ends of the batches, moved so that each batch has at least `least_rows` rows.

    Only the last batch can have fewer, because `_cut` ends the others when they are full. It takes the rows that it
    lacks from the batch before it, which may take rows from the one before that. If all batches together have too few
    rows, the last batch is left out: `_cut` makes as few batches as possible, so its rows fit nowhere else.

    Args:
        ends: (K,) where each batch ends, increasing.
        least_rows: at least 1.
    """
    moved = ends.copy()
    for batch in range(len(ends) - 1, 0, -1):
        if moved[batch] - moved[batch - 1] >= least_rows:
            return moved
        moved[batch - 1] = moved[batch] - least_rows
    return moved if len(ends) and moved[0] >= least_rows else ends[:-1]


@compiled
def _cut(tokens: npt.NDArray[np.int64], most_rows: int, most_tokens: int, ends: npt.NDArray[np.int64]) -> int:
    """Write the end of each batch into `ends` and return the number of batches; `most_tokens` 0 is no limit."""
    batches, begin, longest = 0, 0, 0
    for row in range(len(tokens)):
        length = max(longest, tokens[row])
        full = row - begin == most_rows or (most_tokens > 0 and (row - begin + 1) * length > most_tokens)
        if full and row > begin:
            ends[batches] = row
            batches += 1
            begin, length = row, tokens[row]
        longest = length
    if len(tokens) > 0:
        ends[batches] = len(tokens)
        batches += 1
    return batches
