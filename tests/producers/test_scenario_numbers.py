"""The numbers of scenarios are exact and within their bands, and the calculation steps lead to them."""

from __future__ import annotations

import re
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producers.scenario.draws import Draws
from producers.scenario.numbers import MAX_FACTORS_COMPOSED, Numbers, calculation, numbers_of, points
from schema.scenario import FAMILY
from schema.scenario.bands import AUTHENTICITY_TARGETS, CAPACITY_LEVELS, support_bounds

SEEDS = st.integers(0, 2**63 - 1)
CELLS = np.tile(np.arange(128), 8)


def all_cells(seed: int, first: int = 0) -> Numbers:
    """Return the numbers of eight rows of every cell."""
    return numbers_of(CELLS, Draws(seed, first, CELLS.size))


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.integers(0, 2**40))
def test_numbers_lie_in_the_bands_of_their_cell_and_add_up_exactly(seed: int, first: int) -> None:
    numbers = all_cells(seed, first)
    assert (numbers.base + numbers.effects.sum(1) == numbers.effective).all()
    assert (numbers.possible == numbers.effective + 20).all()
    cells = list(FAMILY.cells())
    for row, cell in enumerate(CELLS):
        level, target = CAPACITY_LEVELS[numbers.level[row]], AUTHENTICITY_TARGETS[numbers.target[row]]
        assert (level.name, target.name) == (cells[cell]["capacity_level"], cells[cell]["authenticity_target"])
        assert level.low * 10 <= numbers.effective[row] <= level.high * 10
        low, high = support_bounds(target.name, numbers.effective[row] / 10)
        assert round(low * 10) <= numbers.needed[row] <= round(high * 10)
        # The upper bound belongs to the next target, except for 1.0.
        assert round(target.low * 100) <= numbers.score[row]
        assert numbers.score[row] < target.high * 100 or numbers.score[row] == 100


@settings(max_examples=30, deadline=None)
@given(SEEDS)
def test_negative_factors_precede_positive_ones_and_the_running_sum_stays_in_range(seed: int) -> None:
    numbers = all_cells(seed)
    counts = numbers.drains + numbers.gifts
    assert counts.min() >= 1 and counts.max() <= MAX_FACTORS_COMPOSED
    for effects, drains, count in zip(numbers.effects, numbers.drains, counts, strict=True):
        assert (effects[:drains] < 0).all() and (effects[drains:count] > 0).all() and (effects[count:] == 0).all()
    running = numbers.base[:, None] + np.cumsum(np.column_stack([np.zeros_like(numbers.base), numbers.effects]), axis=1)
    assert running.min() >= 5 and running.max() <= 100


def test_whole_bands_and_every_number_of_factors_are_used() -> None:
    numbers = numbers_of(np.repeat(np.arange(128), 200), Draws(4, 0, 25_600))
    for level, band in enumerate(CAPACITY_LEVELS):
        reached = set(numbers.effective[numbers.level == level].tolist())
        assert reached == set(range(round(band.low * 10), round(band.high * 10) + 1))
    assert set(numbers.score.tolist()) == set(range(20, 101))
    assert set((numbers.drains + numbers.gifts).tolist()) == {1, 2, 3, 4}
    assert numbers.gifts[numbers.level == 0].mean() < numbers.gifts[numbers.level == 3].mean()


@settings(max_examples=10, deadline=None)
@given(SEEDS)
def test_a_calculation_leads_from_the_base_over_every_factor_to_the_possible_support(seed: int) -> None:
    numbers = all_cells(seed)
    line = re.compile(r"(\d+\.\d) ([+-]) (\d+\.\d) = (\d+\.\d)")
    for row, lines in enumerate(calculation(numbers).to_list()):
        now = Fraction(int(numbers.base[row]), 10)
        effects = [int(effect) for effect in numbers.effects[row] if effect]
        for text, effect in zip(lines, [*effects, 20], strict=True):
            left, sign, size, result = line.fullmatch(text).groups()  # type: ignore[union-attr]
            assert Fraction(left) == now
            assert Fraction(size) * (-1 if sign == "-" else 1) == Fraction(effect, 10)
            now += Fraction(effect, 10)
            assert Fraction(result) == now
        assert now == Fraction(int(numbers.possible[row]), 10)


def test_points_equal_the_doubles_that_their_decimals_parse_to() -> None:
    assert points(np.arange(200)).to_list() == [float(f"{tenths // 10}.{tenths % 10}") for tenths in range(200)]


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.integers(0, 2**40), st.integers(1, 300), st.integers(0, 300))
def test_a_draw_depends_only_on_seed_number_and_field(seed: int, first: int, rows: int, skipped: int) -> None:
    whole = Draws(seed, first, rows + skipped)
    rest = Draws(seed, first + skipped, rows)
    assert whole.below("a", 1000)[skipped:].tolist() == rest.below("a", 1000).tolist()


def test_draws_are_uniform_and_differ_between_seeds_series_and_fields() -> None:
    drawn = [
        Draws(seed, 0, 60_000, series).below(field, 6)
        for seed, series, field in [(1, "", "a"), (2, "", "a"), (1, "fill-", "a"), (1, "", "b")]
    ]
    for one in drawn:
        assert np.bincount(one, minlength=6) == pytest.approx(10_000, rel=0.05)
    for place, one in enumerate(drawn):
        for other in drawn[place + 1 :]:
            assert (one == other).mean() == pytest.approx(1 / 6, rel=0.05)


def test_each_row_can_have_its_own_bound() -> None:
    draws = Draws(3, 0, 10_000)
    bounds = np.arange(10_000) % 7 + 1
    drawn = draws.below("a", bounds)
    assert (drawn >= 0).all() and (drawn < bounds).all()
    between = draws.between("a", -bounds, bounds)
    assert (np.abs(between) <= bounds).all() and between.min() == -7 and between.max() == 7
