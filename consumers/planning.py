"""Which rows of a window make which batch: pure functions of the rows' lengths and a seed.

A window is a stretch of rows held in memory at once; shuffling and bucketing happen inside it. The permutation is
made of splitmix64, not of a library's generator, so that a seed gives the same batches with every version of numpy.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]


def splitmix64(values: Keys) -> Keys:
    """Return the splitmix64 finalizer of each value, modulo 2^64 (Steele, Lea and Flood, OOPSLA 2014)."""
    mixed = values + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def permutation(count: int, *seeds: int) -> Indices:
    """Return a permutation of range(count), the same for the same seeds on every platform."""
    state = np.zeros(1, dtype=np.uint64)
    for seed in seeds:
        state = splitmix64(state ^ np.array([seed % 2**64], dtype=np.uint64))
    keys = splitmix64(splitmix64(np.arange(count, dtype=np.uint64)) ^ state)
    return np.argsort(keys, kind="stable").astype(np.int64)


def plan(tokens: npt.NDArray[np.int64], batch_size: int, seeds: tuple[int, ...] | None, bucket: bool) -> list[Indices]:
    """Return the row indices of each batch of a window; every row is in exactly one.

    Args:
        tokens: (N,) length of each row in tokens.
        batch_size: rows per batch; the last one in row order holds the rest.
        seeds: what shuffles the rows, and the order of the batches; None keeps the order of the topic.
        bucket: put rows of similar length together, so that little of a batch is padding.
    """
    count = len(tokens)
    order = np.arange(count, dtype=np.int64) if seeds is None else permutation(count, *seeds)
    if bucket:
        order = order[np.argsort(tokens[order], kind="stable")]
    batches = [order[start : start + batch_size] for start in range(0, count, batch_size)]
    if bucket and seeds is not None:
        batches = [batches[index] for index in permutation(len(batches), *seeds, len(batches))]
    return batches
