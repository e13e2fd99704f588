"""The dedup index against a plain set."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streams.refine.dedup import DedupIndex

ids = st.lists(st.one_of(st.integers(0, 20), st.integers(0, 2**64 - 1)), max_size=60)


@given(st.lists(ids, max_size=6))
def test_admits_exactly_the_first_appearances(batches: list[list[int]]) -> None:
    index, seen = DedupIndex(), set()
    for batch in batches:
        expected = []
        for value in batch:
            expected.append(value not in seen)
            seen.add(value)
        assert index.admit(np.array(batch, dtype=np.uint64)).tolist() == expected
    assert len(index) == len(seen)


@given(st.lists(ids, max_size=8), st.integers(1, 15))
def test_a_window_remembers_at_least_its_latest_ids(batches: list[list[int]], window: int) -> None:
    index = DedupIndex(window)
    admitted: list[int] = []
    for batch in batches:
        for value, fresh in zip(batch, index.admit(np.array(batch, dtype=np.uint64)), strict=True):
            if fresh:
                assert value not in admitted[-window:] or value == 0
                admitted.append(value)


def test_grows_past_its_first_table_and_forgets_nothing() -> None:
    index = DedupIndex()
    values = np.random.default_rng(1).integers(0, 2**64 - 1, size=300_000, dtype=np.uint64)
    values = np.unique(values)
    assert index.admit(values).all()
    assert not index.admit(values).any()
    assert len(index) == len(values)


def test_a_window_bounds_the_index() -> None:
    index = DedupIndex(1000)
    for start in range(0, 20_000, 100):
        index.admit(np.arange(start + 1, start + 101, dtype=np.uint64))
        assert len(index) <= 2 * 1000
