from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.packed_rows import RowLayout, block_diagonal_mask
from consumers.sequence.packing import plan_packed
from consumers.sequence.planning import BatchShape, PlannedBatch

ROW = 64
lengths = st.lists(st.integers(1, ROW), max_size=150).map(lambda values: np.array(values, dtype=np.int64))
seeds = st.none() | st.tuples(st.integers(0, 2**63), st.integers(0, 5), st.integers(0, 5))


def rows_of(batch: PlannedBatch) -> list[list[int]]:
    """The sequences of each row of a batch."""
    assert batch.row is not None
    pairs = zip(batch.row.tolist(), batch.sequences.tolist(), strict=True)
    return [[number for _, number in group] for _, group in itertools.groupby(pairs, key=lambda pair: pair[0])]


def plain_best_fit(tokens: np.ndarray) -> list[list[int]]:
    """Best fit by a search through all rows; of equally full rows the one that was filled last."""
    rows: list[list[int]] = []
    filled: list[int] = []
    for number, length in enumerate(tokens.tolist()):
        room = [(ROW - int(tokens[row].sum()), -filled[place], place) for place, row in enumerate(rows)]
        fitting = [each for each in room if each[0] >= length]
        if fitting:
            place = min(fitting)[2]
            rows[place].append(number)
            filled[place] = number
        else:
            rows.append([number])
            filled.append(number)
    return rows


@given(lengths, st.integers(1, 9), st.none() | st.integers(1, 12), st.integers(1, 9), seeds)
def test_every_sequence_is_in_one_row_and_no_row_is_too_long(
    tokens: np.ndarray, batch_size: int, budget_rows: int | None, least: int, seed: tuple[int, ...] | None
) -> None:
    budget = None if budget_rows is None else ROW * budget_rows
    most = min(batch_size, budget_rows or batch_size)
    least = min(least, most)
    batches = plan_packed(tokens, ROW, BatchShape(batch_size, budget, False, least), seed, None)
    rows = [rows_of(batch) for batch in batches]
    given_sequences = [number for batch in rows for row in batch for number in row]
    assert len(given_sequences) == len(set(given_sequences))
    assert set(given_sequences) <= set(range(len(tokens)))
    assert all(tokens[row].sum() <= ROW for batch in rows for row in batch)
    assert all(least <= len(batch) <= most for batch in rows)
    assert [len(batch) for batch in rows] == [batch.rows for batch in batches]
    assert [batch.tokens for batch in batches] == [int(tokens[batch.sequences].sum()) for batch in batches]
    again = plan_packed(tokens, ROW, BatchShape(batch_size, budget, False, least), seed, None)
    assert [rows_of(batch) for batch in again] == rows
    if len(given_sequences) < len(tokens):
        # Every row holds one sequence, and the rows cannot fill their batches.
        assert len(tokens) < least * -(-len(tokens) // most)


@given(lengths)
def test_a_sequence_goes_to_the_fullest_row_that_can_hold_it(tokens: np.ndarray) -> None:
    batches = plan_packed(tokens, ROW, BatchShape(None, None, False), None, None)
    assert [row for batch in batches for row in rows_of(batch)] == plain_best_fit(tokens)


@given(lengths, st.integers(2, 4), seeds)
def test_ranks_share_whole_rows(tokens: np.ndarray, ranks: int, seed: tuple[int, ...] | None) -> None:
    for batch in plan_packed(tokens, ROW, BatchShape(8, None, False, ranks), seed, None):
        shares = [batch.of_rank(rank, ranks) for rank in range(ranks)]
        parts = [rows_of(PlannedBatch(sequences, 0, row)) for sequences, row in shares]
        dealt = [row for step in itertools.zip_longest(*parts) for row in step if row is not None]
        assert dealt == rows_of(batch)


def test_seed_epoch_and_window_each_change_the_rows() -> None:
    tokens = np.arange(1, 61)
    orders = [
        tuple(map(tuple, rows_of(plan_packed(tokens, ROW, BatchShape(None, None, False), numbers, None)[0])))
        for numbers in [(1, 0, 0), (2, 0, 0), (1, 1, 0), (1, 0, 1)]
    ]
    assert len(set(orders)) == len(orders)


def test_a_seed_means_the_same_rows_for_ever() -> None:
    # Fixed values: a change here breaks the order of every run that will be resumed.
    tokens = np.array([9, 20, 30, 11, 40, 25, 8, 33, 60])
    batches = plan_packed(tokens, ROW, BatchShape(2, None, False), (7, 0, 0), None)
    assert [rows_of(batch) for batch in batches] == [[[2, 3, 0, 6], [8]], [[4, 1], [5, 7]]]


def test_a_pass_of_few_sequences_still_has_a_row_for_every_rank() -> None:
    # Packed tightly, the ten sequences would fill one row, and two ranks could not share it.
    (batch,) = plan_packed(np.full(10, 6), ROW, BatchShape(8, None, False, 4), None, None)
    assert batch.rows == 4
    assert len(batch.sequences) == 10


def test_rows_of_a_shuffled_window_are_equally_full_from_begin_to_end() -> None:
    # Without a shuffle of the rows, those with much room left would all be in the last batches.
    tokens = np.random.default_rng(3).integers(200, 1024, 20_000)
    batches = plan_packed(tokens, 1024, BatchShape(64, None, False), (1, 0, 0), None)
    full = np.array([batch.tokens / (batch.rows * 1024) for batch in batches])
    third = len(full) // 3
    assert abs(full[:third].mean() - full[-third:].mean()) < 0.02


@pytest.mark.parametrize(("low", "high", "most"), [(16, 512, 0.005), (16, 2048, 0.02)])
def test_packed_rows_have_little_padding(low: int, high: int, most: float) -> None:
    tokens = np.random.default_rng(5).integers(low, high, 50_000)
    batches = plan_packed(tokens, 2048, BatchShape(32, None, False), (1, 0, 0), None)
    padding = 1 - tokens.sum() / (2048 * sum(batch.rows for batch in batches))
    assert padding < most


@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=5), max_size=5))
def test_segments_and_positions_are_those_of_plain_python(rows: list[list[int]]) -> None:
    row = np.array([number for number, held in enumerate(rows) for _ in held], dtype=np.int64)
    length = np.array([length for held in rows for length in held], dtype=np.int64)
    fields = RowLayout.of(row, length, 50).fields()
    for number, held in enumerate(rows):
        segments = [segment for segment, length in enumerate(held, 1) for _ in range(length)]
        positions = [place for length in held for place in range(length)]
        rest = [0] * (50 - len(segments))
        assert fields["segment_ids"][number].tolist() == segments + rest
        assert fields["position_ids"][number].tolist() == positions + rest
    assert fields["segment_ids"].shape == (len(rows), 50)
    assert fields["sequence_row"].tolist() == row.tolist()
    assert fields["sequence_start"].tolist() == [sum(held[:place]) for held in rows for place in range(len(held))]


def test_the_mask_lets_tokens_attend_to_their_own_sequence_only() -> None:
    segments = RowLayout.of(np.array([0, 0]), np.array([2, 1]), 4).fields()["segment_ids"]
    both, causal = (block_diagonal_mask(segments, causal=causal)[0, 0].int().tolist() for causal in (False, True))
    assert both == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    assert causal == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]


@given(lengths, seeds, st.data())
def test_sequences_that_are_left_out_of_planned_rows_leave_all_others_in_place(
    tokens: np.ndarray, seed: tuple[int, ...] | None, data: st.DataObject
) -> None:
    gone = np.array(data.draw(st.lists(st.booleans(), min_size=len(tokens), max_size=len(tokens))), dtype=np.bool_)
    for batch in plan_packed(tokens, ROW, BatchShape(8, None, False, 1), seed, None):
        left = batch.without(gone, tokens)
        kept = [[number for number in row if not gone[number]] for row in rows_of(batch)]
        assert rows_of(left) == [row for row in kept if row]
        assert left.rows == len(rows_of(left))
        assert left.tokens == int(tokens[left.sequences].sum())
