from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from consumers.sequence.planning import BatchShape, PlannedBatch, interleaved, permutation, plan

lengths = st.lists(st.integers(2, 300), max_size=200).map(lambda values: np.array(values, dtype=np.int64))
seeds = st.none() | st.tuples(st.integers(0, 2**63), st.integers(0, 5), st.integers(0, 5))


@given(lengths, st.integers(1, 40), seeds, st.booleans())
def test_every_row_is_in_exactly_one_batch(
    tokens: np.ndarray, batch_size: int, seed: tuple[int, ...] | None, bucket: bool
) -> None:
    batches = plan(tokens, BatchShape(batch_size, None, bucket), seed, None)
    assert sorted(row for batch in batches for row in batch.tolist()) == list(range(len(tokens)))
    assert sum(len(batch) != batch_size for batch in batches) <= 1


@given(st.integers(0, 500), st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=3))
def test_a_permutation_holds_every_index_once(count: int, numbers: list[int]) -> None:
    assert sorted(permutation(count, *numbers).tolist()) == list(range(count))


def test_a_seed_means_the_same_permutation_for_ever() -> None:
    # Fixed values: a change here breaks the order of every run that will be resumed.
    assert permutation(10, 7, 0, 0).tolist() == [4, 3, 5, 2, 6, 0, 8, 7, 9, 1]


def test_seed_epoch_and_window_each_change_the_order() -> None:
    orders = [tuple(permutation(50, *numbers)) for numbers in [(1, 0, 0), (2, 0, 0), (1, 1, 0), (1, 0, 1), (0, 1, 1)]]
    assert len(set(orders)) == len(orders)


def test_places_are_evenly_spread_over_seeds() -> None:
    # The place of row 0 among 8, over 4,000 seeds: chi-square with 7 degrees of freedom exceeds 24.3 once in 1,000.
    places = np.array([permutation(8, seed, 0, 0).tolist().index(0) for seed in range(4000)])
    counts = np.bincount(places, minlength=8)
    assert ((counts - 500) ** 2 / 500).sum() < 24.3


def test_without_a_seed_rows_keep_their_order() -> None:
    batches = plan(np.array([5, 3, 9, 4, 7]), BatchShape(2, None, False), None, None)
    assert [batch.tolist() for batch in batches] == [[0, 1], [2, 3], [4]]


def test_bucketing_puts_rows_of_similar_length_together() -> None:
    tokens = np.random.default_rng(1).integers(10, 200, 640)
    mixed, bucketed = (plan(tokens, BatchShape(32, None, bucket), (1, 0, 0), None) for bucket in (False, True))
    padded = [sum(tokens[batch].max() * len(batch) for batch in batches) for batches in (mixed, bucketed)]
    assert padded[1] < padded[0] * 0.7
    assert [batch[0] for batch in bucketed] != sorted([batch[0] for batch in bucketed], key=lambda row: tokens[row])


@given(lengths, st.integers(300, 3000), st.none() | st.integers(1, 40), seeds, st.booleans())
def test_a_token_budget_holds_with_padding_and_is_used(
    tokens: np.ndarray, budget: int, most_rows: int | None, seed: tuple[int, ...] | None, bucket: bool
) -> None:
    batches = plan(tokens, BatchShape(most_rows, budget, bucket), seed, None)
    assert sorted(row for batch in batches for row in batch.tolist()) == list(range(len(tokens)))
    padded = [len(batch) * tokens[batch].max() for batch in batches]
    assert all(each <= budget for each in padded)
    assert all(len(batch) <= (most_rows or len(tokens)) for batch in batches)
    if seed is None:
        # In order, no batch has room for the first row of the next batch.
        for batch, following in itertools.pairwise(batches):
            wider = max(tokens[batch].max(), tokens[following[0]])
            assert (len(batch) + 1) * wider > budget or len(batch) == most_rows


@given(
    lengths,
    st.integers(1, 12),
    st.none() | st.integers(0, 30),
    st.none() | st.integers(0, 2000),
    seeds,
    st.booleans(),
)
def test_every_batch_has_the_least_rows_and_only_what_fits_no_batch_is_dropped(
    tokens: np.ndarray,
    least: int,
    more_rows: int | None,
    more_tokens: int | None,
    seed: tuple[int, ...] | None,
    bucket: bool,
) -> None:
    most_rows = None if more_rows is None else least + more_rows
    budget = None if more_tokens is None else least * 300 + more_tokens
    batches = plan(tokens, BatchShape(most_rows, budget, bucket, least), seed, None)
    assert all(least <= len(batch) <= (most_rows or len(tokens)) for batch in batches)
    assert all(len(batch) * tokens[batch].max() <= (budget or np.inf) for batch in batches)
    given_rows = [row for batch in batches for row in batch.tolist()]
    assert len(given_rows) == len(set(given_rows))
    assert set(given_rows) <= set(range(len(tokens)))
    usual = plan(tokens, BatchShape(most_rows, budget, bucket), seed, None)
    dropped = len(tokens) - len(given_rows)
    # A greedy cut makes the fewest batches possible, so rows are dropped only if these cannot all be filled.
    assert dropped == (min(map(len, usual)) if usual and len(tokens) < least * len(usual) else 0)
    assert len(batches) == len(usual) - (dropped > 0)
    if all(len(batch) >= least for batch in usual):
        assert [batch.tolist() for batch in batches] == [batch.tolist() for batch in usual]
    if seed is None and not bucket:
        # The given rows keep their order, and the dropped rows are the last ones.
        assert given_rows == list(range(len(given_rows)))


def test_a_short_last_batch_takes_rows_from_those_before_it() -> None:
    def sizes(rows: int, most: int, least: int) -> list[int]:
        return [len(batch) for batch in plan(np.full(rows, 9), BatchShape(most, None, False, least), None, None)]

    assert sizes(35, 16, 8) == [16, 11, 8]
    # Two batches must give rows.
    assert sizes(27, 12, 8) == [11, 8, 8]
    # 15 rows are too many for one batch, and too few for two.
    assert sizes(15, 12, 8) == [12]
    assert sizes(7, 12, 8) == []
    assert sizes(0, 12, 8) == []


@given(st.lists(st.integers(0, 60), min_size=1, max_size=4))
def test_interleaving_spreads_every_part_evenly(counts: list[int]) -> None:
    order = interleaved(counts)
    assert sorted(order.tolist()) == list(range(sum(counts)))
    parts = np.repeat(np.arange(len(counts)), counts)[order]
    for part, count in enumerate(counts):
        # In any prefix of the order, a part has its share, to within one row of its own and one of each other part.
        seen = np.cumsum(parts == part)
        share = np.arange(1, len(parts) + 1) * count / max(len(parts), 1)
        assert (np.abs(seen - share) <= len(counts)).all()


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_rows_that_are_left_out_of_a_planned_batch_leave_the_others_in_order(gone: list[bool]) -> None:
    tokens = np.arange(1, 1 + len(gone))
    order = permutation(len(gone), 1, 2)
    left = PlannedBatch(order, int(tokens.sum())).without(np.array(gone), tokens)
    assert left.sequences.tolist() == [number for number in order.tolist() if not gone[number]]
    assert left.tokens == sum(number + 1 for number, is_gone in enumerate(gone) if not is_gone)
