"""The planned order of a run's cells: gaps first, then every cell stays within one example of its share."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producers.scenario.planning import CELLS, SHARES, Planner, counts_by_cell, plan
from schema.family import cell_label
from schema.scenario import FAMILY
from schema.scenario.bands import AUTHENTICITY_TARGETS, CAPACITY_LEVELS

Array = npt.NDArray[Any]
SEEDS = st.integers(0, 2**63 - 1)
# From an empty start, a cell of the largest share is behind at these examples, because all other cells come first.
CATCHING_UP = slice(130, 135)


def deviations(cells: Array, existing: Array | None = None) -> Array:
    """Return (N, 4, 4, 8): after each example, every cell's rows minus its share of all rows so far."""
    before = np.zeros(CELLS) if existing is None else existing
    counts = before + np.cumsum(cells[:, None] == np.arange(CELLS), axis=0)
    away: Array = (counts - counts.sum(1, keepdims=True) * SHARES).reshape(-1, 4, 4, 8)
    return away


def marginals(away: Array) -> list[Array]:
    """Return, per example, the largest deviation of a level, of a target and of a type."""
    return [np.abs(away.sum(axis=axes)).max(1) for axes in ((2, 3), (1, 3), (1, 2))]


def test_cell_shares_add_up_to_those_of_levels_targets_and_types() -> None:
    assert SHARES.shape == (len(list(FAMILY.cells())),)
    assert SHARES.sum() == pytest.approx(1)
    by_axis = SHARES.reshape(4, 4, 8)
    assert by_axis.sum((1, 2)) == pytest.approx([band.share for band in CAPACITY_LEVELS])
    assert by_axis.sum((0, 2)) == pytest.approx([band.share for band in AUTHENTICITY_TARGETS])
    assert by_axis.sum((0, 1)) == pytest.approx(np.full(8, 1 / 8))


@settings(max_examples=12, deadline=None)
@given(SEEDS, st.integers(1, 5000))
def test_every_cell_stays_within_one_example_of_its_share(seed: int, count: int) -> None:
    away = deviations(plan(count, seed))
    furthest = np.abs(away).max((1, 2, 3))
    assert furthest[CATCHING_UP].max(initial=0) < 1.07
    furthest[CATCHING_UP] = 0
    assert furthest.max() < 1
    level, target, kind = marginals(away)
    assert max(level.max(), target.max()) < 13
    assert max(level[200:].max(initial=0), target[200:].max(initial=0)) < 8
    assert kind.max() < 4


@settings(max_examples=12, deadline=None)
@given(SEEDS, st.integers(1, 40), st.integers(1, 3000))
def test_exact_shares_of_existing_rows_are_kept_at_every_example(seed: int, hundreds: int, count: int) -> None:
    # 3,200 is the smallest number of rows at which every share is a whole number.
    existing = np.rint(SHARES * 3200 * hundreds).astype(np.int64)
    away = deviations(plan(count, seed, existing), existing)
    assert np.abs(away).max() < 1
    level, target, kind = marginals(away)
    assert max(level.max(), target.max()) < 4
    assert kind.max() < 14


def test_128_gaps_are_filled_by_128_examples_the_largest_share_first() -> None:
    cells = plan(128, 5)
    assert sorted(cells.tolist()) == list(range(CELLS))
    assert (np.diff(SHARES[cells]) <= 0).all()


@settings(max_examples=20, deadline=None)
@given(SEEDS, st.lists(st.integers(0, 12), min_size=CELLS, max_size=CELLS))
def test_gaps_among_existing_rows_are_filled_first_and_nothing_gets_worse(seed: int, rows: list[int]) -> None:
    existing = np.array(rows)
    gaps = np.flatnonzero(existing == 0)
    cells = plan(gaps.size + 2000, seed, existing)
    assert sorted(cells[: gaps.size].tolist()) == gaps.tolist()
    furthest = np.abs(deviations(cells, existing)).max((1, 2, 3))[gaps.size :]
    assert furthest.max() < furthest[0] + 1.2


def test_uneven_existing_rows_are_compensated() -> None:
    existing = np.random.default_rng(3).integers(0, 10, CELLS)
    assert np.abs(deviations(plan(6000, 1, existing), existing)[-1]).max() < 1


def test_the_seed_determines_the_plan_and_a_shorter_plan_begins_a_longer_one() -> None:
    cells = plan(1000, 11)
    assert (cells == plan(1000, 11)).all()
    assert (cells[:300] == plan(300, 11)).all()
    assert (cells != plan(1000, 12)).mean() > 0.5
    assert plan(0, 11).shape == (0,)


@given(SEEDS, st.lists(st.integers(0, 300), max_size=8))
@settings(max_examples=20, deadline=None)
def test_cells_taken_in_portions_equal_those_taken_at_once(seed: int, parts: list[int]) -> None:
    planner = Planner(seed)
    taken = [planner.take(part) for part in parts]
    assert np.concatenate([np.empty(0, np.int64), *taken]).tolist() == plan(sum(parts), seed).tolist()


def test_counts_by_cell_follow_the_order_of_the_family() -> None:
    labels = [cell_label(cell) for cell in FAMILY.cells()]
    counts = counts_by_cell({labels[3]: 7, labels[127]: 1})
    assert np.flatnonzero(counts).tolist() == [3, 127]
    assert counts[[3, 127]].tolist() == [7, 1]
