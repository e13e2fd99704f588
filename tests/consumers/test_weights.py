"""Weights of sequences: exact in expectation, the same every time, and within the stated deviation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.sequence.weights import MOST_WEIGHT, copies, draws
from schema.errors import FeedError

COUNT = 4000
IDS = np.arange(COUNT, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
FIRST = np.zeros(COUNT, dtype=np.int64)

seeds = st.integers(0, 2**64 - 1)


@given(st.floats(0, 5), seeds, st.integers(0, 1000))
def test_a_sequence_comes_its_whole_weight_or_once_more(weight: float, seed: int, epoch: int) -> None:
    counts = copies(np.full(COUNT, weight), draws(IDS, FIRST, seed, epoch))
    assert set(counts.tolist()) <= {int(weight), int(weight) + 1}
    fraction = weight % 1
    deviation = (COUNT * fraction * (1 - fraction)) ** 0.5
    # Six standard deviations: a chance of 2 in 10^9 for one example.
    assert abs(counts.sum() - COUNT * weight) <= 6 * deviation + 1e-6


@given(seeds, st.integers(0, 1000), st.permutations(range(50)))
def test_the_count_of_a_sequence_does_not_depend_on_the_others(seed: int, epoch: int, order: list[int]) -> None:
    parts = np.arange(50, dtype=np.int64) % 7
    drawn = draws(IDS[:50], parts, seed, epoch)
    assert draws(IDS[order], parts[order], seed, epoch).tolist() == drawn[order].tolist()


@pytest.mark.parametrize("changed", ["part", "seed", "epoch"])
def test_parts_seeds_and_epochs_are_drawn_independently(changed: str) -> None:
    values = [
        draws(IDS, FIRST + number * (changed == "part"), number * (changed == "seed"), number * (changed == "epoch"))
        for number in range(2)
    ]
    chosen = [copies(np.full(COUNT, 0.5), each) for each in values]
    # Independent halves agree on half of the sequences, with a standard deviation of 32.
    assert abs(int((chosen[0] == chosen[1]).sum()) - COUNT // 2) < 6 * 32


def test_the_parts_of_a_document_over_many_epochs_come_as_often_as_its_weight() -> None:
    parts = np.arange(COUNT, dtype=np.int64)
    same = np.full(COUNT, 7, dtype=np.uint64)
    counts = sum(copies(np.full(COUNT, 0.3), draws(same, parts, 1, epoch)) for epoch in range(20))
    assert abs(counts.mean() - 6) < 0.1  # type: ignore[union-attr]
    assert abs(counts.var() - 20 * 0.3 * 0.7) < 0.5  # type: ignore[union-attr]


def test_draws_never_change() -> None:
    drawn = draws(np.array([0, 2**64 - 1], dtype=np.uint64), np.array([0, 5]), 7, 2)
    assert drawn.tolist() == [7853601728871359162, 6026084157416907115]


@pytest.mark.parametrize("weight", [-0.1, float("nan"), float("inf"), MOST_WEIGHT + 1])
def test_a_weight_outside_its_range_is_refused(weight: float) -> None:
    with pytest.raises(FeedError, match=f"has the weight {weight:g}"):
        copies(np.array([1.0, weight]), draws(IDS[:2], FIRST[:2], 0, 0))
