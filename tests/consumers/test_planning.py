from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from consumers.planning import permutation, plan

lengths = st.lists(st.integers(2, 300), max_size=200).map(lambda found: np.array(found, dtype=np.int64))
seeds = st.none() | st.tuples(st.integers(0, 2**63), st.integers(0, 5), st.integers(0, 5))


@given(lengths, st.integers(1, 40), seeds, st.booleans())
def test_every_row_is_in_exactly_one_batch(
    tokens: np.ndarray, batch_size: int, seed: tuple[int, ...] | None, bucket: bool
) -> None:
    batches = plan(tokens, batch_size, seed, bucket)
    assert sorted(row for batch in batches for row in batch.tolist()) == list(range(len(tokens)))
    assert sum(len(batch) != batch_size for batch in batches) <= 1


@given(st.integers(0, 500), st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=3))
def test_a_permutation_holds_every_index_once(count: int, numbers: list[int]) -> None:
    assert sorted(permutation(count, *numbers).tolist()) == list(range(count))


def test_a_seed_means_the_same_permutation_for_ever() -> None:
    # Written down once: a change here breaks the order of every run that is to be resumed.
    assert permutation(10, 7, 0, 0).tolist() == [0, 2, 8, 4, 7, 5, 3, 6, 9, 1]


def test_seed_epoch_and_window_each_change_the_order() -> None:
    orders = [tuple(permutation(50, *numbers)) for numbers in [(1, 0, 0), (2, 0, 0), (1, 1, 0), (1, 0, 1), (0, 1, 1)]]
    assert len(set(orders)) == len(orders)


def test_places_are_evenly_spread_over_seeds() -> None:
    # Where row 0 goes among 8, over 4,000 seeds: chi-square with 7 degrees of freedom exceeds 24.3 once in 1,000.
    places = np.array([permutation(8, seed, 0, 0).tolist().index(0) for seed in range(4000)])
    counts = np.bincount(places, minlength=8)
    assert ((counts - 500) ** 2 / 500).sum() < 24.3


def test_without_a_seed_rows_keep_their_order() -> None:
    batches = plan(np.array([5, 3, 9, 4, 7]), 2, None, False)
    assert [batch.tolist() for batch in batches] == [[0, 1], [2, 3], [4]]


def test_bucketing_puts_rows_of_similar_length_together() -> None:
    tokens = np.random.default_rng(1).integers(10, 200, 640)
    mixed, bucketed = (plan(tokens, 32, (1, 0, 0), bucket) for bucket in (False, True))
    padded = [sum(tokens[batch].max() * len(batch) for batch in batches) for batches in (mixed, bucketed)]
    assert padded[1] < padded[0] * 0.7
    assert [batch[0] for batch in bucketed] != sorted([batch[0] for batch in bucketed], key=lambda row: tokens[row])
