"""The order of a run's cells: gaps first, then no cell a whole example from its share, at any time."""

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
# What is said of an empty start: here a cell of the largest share waits for the others' first rows to be made up for.
CATCHING_UP = slice(130, 135)


def deviations(cells: Array, existing: Array | None = None) -> Array:
    """(N, 4, 4, 8): after each example, how far every cell is from its share of all rows there are."""
    before = np.zeros(CELLS) if existing is None else existing
    counts = before + np.cumsum(cells[:, None] == np.arange(CELLS), axis=0)
    away: Array = (counts - counts.sum(1, keepdims=True) * SHARES).reshape(-1, 4, 4, 8)
    return away


def marginals(away: Array) -> list[Array]:
    """Per example the largest deviation of a level, of a target and of a type."""
    return [np.abs(away.sum(axis=axes)).max(1) for axes in ((2, 3), (1, 3), (1, 2))]


def test_shares_are_those_of_levels_targets_and_types() -> None:
    assert SHARES.shape == (len(list(FAMILY.cells())),)
    assert SHARES.sum() == pytest.approx(1)
    by_axis = SHARES.reshape(4, 4, 8)
    assert by_axis.sum((1, 2)) == pytest.approx([band.share for band in CAPACITY_LEVELS])
    assert by_axis.sum((0, 2)) == pytest.approx([band.share for band in AUTHENTICITY_TARGETS])
    assert by_axis.sum((0, 1)) == pytest.approx(np.full(8, 1 / 8))


@settings(max_examples=12, deadline=None)
@given(SEEDS, st.integers(1, 5000))
def test_no_cell_is_a_whole_example_from_its_share_after_any_example(seed: int, count: int) -> None:
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
def test_where_the_shares_held_before_they_hold_at_every_example(seed: int, hundreds: int, count: int) -> None:
    # 3,200 rows are the least in which every cell has a whole number of rows.
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


def test_rows_out_of_all_proportion_are_made_up_for() -> None:
    existing = np.random.default_rng(3).integers(0, 10, CELLS)
    assert np.abs(deviations(plan(6000, 1, existing), existing)[-1]).max() < 1


def test_the_seed_decides_and_a_shorter_run_is_the_beginning_of_a_longer() -> None:
    cells = plan(1000, 11)
    assert (cells == plan(1000, 11)).all()
    assert (cells[:300] == plan(300, 11)).all()
    assert (cells != plan(1000, 12)).mean() > 0.5
    assert plan(0, 11).shape == (0,)


@given(SEEDS, st.lists(st.integers(0, 300), max_size=8))
@settings(max_examples=20, deadline=None)
def test_cells_taken_in_parts_are_those_taken_at_once(seed: int, parts: list[int]) -> None:
    planner = Planner(seed)
    taken = [planner.take(part) for part in parts]
    assert np.concatenate([np.empty(0, np.int64), *taken]).tolist() == plan(sum(parts), seed).tolist()


def test_counts_come_from_the_cells_of_a_report_in_the_order_of_the_family() -> None:
    labels = [cell_label(cell) for cell in FAMILY.cells()]
    counts = counts_by_cell({labels[3]: 7, labels[127]: 1})
    assert np.flatnonzero(counts).tolist() == [3, 127]
    assert counts[[3, 127]].tolist() == [7, 1]
