"""Every possible cell is filled, impossible cells are refused, and all terms of a shape are equally likely."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producers.reduction.classes import (
    ANY,
    BY_REDEX,
    CLASSES,
    DEEPEST_REDEX,
    FUNCTION,
    NEUTRAL,
    NORMAL,
    reducible,
    spine,
)
from producers.reduction.counting import count_terms
from producers.reduction.filling import DEEPEST, LARGEST_SIZE, counts_in, fill
from producers.reduction.recipe import DEFAULT_FUEL, DEFAULT_SIZE_CAP
from schema.errors import UsageError
from schema.family import cell_label
from schema.reduction import FAMILY
from schema.reduction.coverage import FEW_TERMS
from tests import plain_reducer as plain

POSSIBLE = [cell for cell in FAMILY.cells() if FAMILY.cell_possible(cell)]
SMALL = {"size": "1-9", "depth_band": "0-3", "redex_depth": "1-2"}
LARGE = {"size": "200+", "depth_band": "16+", "redex_depth": "9+"}
SEEDS = st.integers(0, 2**63 - 1)


def classes_of(term: plain.Term) -> set[int]:
    depth = plain.redex_depth(term)
    classes = {ANY, NORMAL if depth is None else reducible(depth)}
    if term[0] == "abs":
        classes.add(FUNCTION)
    elif depth is None:
        classes.add(NEUTRAL)
    else:
        classes.add(spine(depth))
    return classes


def is_closed(term: plain.Term, bound: int = 0) -> bool:
    if term[0] == "var":
        return bool(term[1] < bound)
    return all(is_closed(child, bound + (term[0] == "abs")) for child in term[1:])


def cells_of(frame: pl.DataFrame) -> list[str]:
    """Return the cell of each row by the family's axes; fails if a row breaks a rule."""
    numbered = frame.with_columns(record=pl.lit(0, dtype=pl.UInt32))
    valid, failures = FAMILY.rules.filter(FAMILY.derive(numbered))
    assert failures.counts() == {}
    bins = [
        axis.code.cast(pl.Int64).replace_strict(dict(enumerate(axis.bins)), return_dtype=pl.String).alias(axis.name)
        for axis in map(FAMILY.axis, FAMILY.cell_axes)
    ]
    return [cell_label(row) for row in valid.select(bins).iter_rows(named=True)]


def labels(cells: Sequence[Mapping[str, str]]) -> list[str]:
    return [cell_label(cell) for cell in cells]


@pytest.mark.parametrize("bound", [0, 1, 2])
def test_counts_by_class_equal_those_of_an_enumeration(bound: int) -> None:
    exact, within = count_terms(BY_REDEX, 8, 7)
    for nodes in range(1, 8):
        counts: Counter[tuple[int, int]] = Counter()
        for term in plain.terms(nodes, bound):
            counts.update((name, plain.depth(term)) for name in classes_of(term))
        # These tables hold only zeros where depth + bound is over 7.
        for depth in range(8 - bound):
            for name in range(CLASSES):
                assert exact[name, depth, bound, nodes] == counts[name, depth]
                assert within[name, depth, bound, nodes] == sum(counts[name, d] for d in range(depth + 1))


def test_every_large_term_is_in_exactly_one_class() -> None:
    exact, _ = count_terms(BY_REDEX, LARGEST_SIZE, DEEPEST)
    # A redex is at least two edges above the deepest index.
    every = exact[ANY, : DEEPEST_REDEX + 3, 0]
    shared = exact[NORMAL] + sum(exact[reducible(depth)] for depth in range(DEEPEST_REDEX + 1))
    assert every.max() > 1e100
    np.testing.assert_allclose(shared[: DEEPEST_REDEX + 3, 0], every, rtol=1e-10)


def test_closed_terms_have_the_sizes_that_cell_possible_assumes() -> None:
    exact, _ = count_terms(BY_REDEX, LARGEST_SIZE, DEEPEST)
    for depth in range(DEEPEST + 1):
        for redex_depth in range(-1, DEEPEST_REDEX + 1):
            if redex_depth < 0:
                name, fewest, most = NORMAL, depth + 1, 2**depth if depth else 0
            else:
                name, fewest = reducible(redex_depth), depth + 2 + (redex_depth == 0)
                most = 3 * 2 ** (depth - 1) - 2 ** (depth - 2 - redex_depth) if depth >= redex_depth + 2 else 0
            sizes = np.flatnonzero(exact[name, depth, 0])
            assert sizes.tolist() == list(range(fewest, min(most, LARGEST_SIZE) + 1))


def test_a_cell_is_possible_exactly_when_closed_terms_of_it_are_counted() -> None:
    exact, _ = count_terms(BY_REDEX, LARGEST_SIZE, DEEPEST)
    few: dict[str, int] = {}
    for cell in FAMILY.cells():
        counted = counts_in(cell, exact)[0].sum()
        assert FAMILY.cell_possible(cell) == (counted > 0), cell
        if 0 < counted < 1e6:
            few[cell_label(cell)] = int(counted)
    assert few == FEW_TERMS


def test_no_cell_is_asked_for_more_than_a_quarter_of_its_terms() -> None:
    asking = replace(FAMILY, cell_minimum=20)
    asked = {cell_label(cell): asking.minimum_of(cell) for cell in FAMILY.cells()}
    assert asked["10-19|0-3|0"] == asked["10-19|0-3|1-2"] == 1
    assert asked["1-9|0-3|0"] == 5
    assert asked["1-9|4-7|0"] == asked["90-99|8-11|3-4"] == 20
    assert sum(count > 0 for count in asked.values()) == len(POSSIBLE)
    wanted = {label: min(20, (FEW_TERMS[label] + 3) // 4) for label in FEW_TERMS}
    few = [cell for cell in POSSIBLE if cell_label(cell) in wanted]
    drawn = fill(few * 100, seed=2, first=0)
    distinct = Counter(cells_of(drawn.unique("term")))
    assert all(distinct[label] >= count for label, count in wanted.items())


def test_every_possible_cell_is_filled_by_valid_closed_terms() -> None:
    frame = fill(POSSIBLE * 2, seed=3, first=0)
    assert frame.columns == list(FAMILY.wire)
    assert cells_of(frame) == labels(POSSIBLE * 2)
    for text, start, end in frame.select("term", "span_start", "span_end").iter_rows():
        term = plain.read(text)
        assert is_closed(term) and plain.show(term) == text
        assert (plain.redex_span(term) or (0, 0)) == (start, end)


def test_traces_are_really_reduced() -> None:
    frame = fill([cell for cell in POSSIBLE if cell["size"] in ("1-9", "30-39", "60-69")] * 2, seed=5, first=0)
    assert set(frame["outcome"]) >= {"normal_form", "size_capped"}
    for text, total, outcome in frame.select("term", "steps_total", "outcome").iter_rows():
        term, steps = plain.read(text), 0
        after = plain.step(term)
        while after is not None and steps < DEFAULT_FUEL:
            term, steps = after, steps + 1
            if plain.size(term) > DEFAULT_SIZE_CAP:
                break
            after = plain.step(term)
        assert steps == total
        assert (after is None) == (outcome == "normal_form")


@pytest.mark.parametrize(("redex_band", "depths"), [("none", {None}), ("1-2", {1, 2}), ("3-4", {3, 4})])
def test_all_terms_of_a_small_cell_are_drawn_equally_often(redex_band: str, depths: set[int | None]) -> None:
    population = {
        plain.show(term)
        for nodes in range(1, 9)
        for term in plain.terms(nodes, 0)
        if 4 <= plain.depth(term) <= 7 and plain.redex_depth(term) in depths
    }
    cell = {"size": "1-9", "depth_band": "4-7", "redex_depth": redex_band}
    frame = fill([cell] * 30_000, seed=11, first=0)
    seen = Counter(frame.filter(pl.col("size") < 9)["term"])
    assert set(seen) == population
    expected = seen.total() / len(population)
    chi_square = sum((count - expected) ** 2 / expected for count in seen.values())
    freedom = len(population) - 1
    # Chi-square has mean f and variance 2f: four standard deviations, one seed in tens of thousands.
    assert abs(chi_square - freedom) < 4 * (2 * freedom) ** 0.5 + 4


def test_fills_of_a_cell_differ_and_spread_over_its_shapes() -> None:
    cell = {"size": "90-99", "depth_band": "8-11", "redex_depth": "3-4"}
    frame = fill([cell] * 400, seed=1, first=0)
    assert frame["term"].n_unique() == 400
    assert set(frame["size"]) == set(range(90, 100))
    assert set(frame["depth"]) == {8, 9, 10, 11}
    assert set(frame["redex_depth"]) == {3, 4}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(POSSIBLE), max_size=12), SEEDS, st.integers(0, 2**40), st.data())
def test_a_row_depends_only_on_its_cell_its_seed_and_its_number(
    cells: list[dict[str, str]], seed: int, first: int, data: st.DataObject
) -> None:
    whole = fill(cells, seed, first)
    assert cells_of(whole) == labels(cells)
    assert whole["chunk"].to_list() == list(range(first, first + len(cells)))
    cut = data.draw(st.integers(0, len(cells)))
    parts = [fill(cells[:cut], seed, first), fill(cells[cut:], seed, first + cut)]
    assert pl.concat(parts).equals(whole)


def test_other_seeds_and_numbers_give_other_rows() -> None:
    frames = [fill([LARGE] * 20, seed, first) for seed in (0, 1, 2**63 - 1) for first in (0, 20, 2**40)]
    together = pl.concat(frames)
    assert together["term"].n_unique() == together["trace_id"].n_unique() == together.height


@pytest.mark.parametrize(
    "cell",
    [
        {"size": "200+", "depth_band": "0-3", "redex_depth": "0"},
        {"size": "1-9", "depth_band": "0-3", "redex_depth": "9+"},
        {"size": "10-19", "depth_band": "0-3", "redex_depth": "none"},
        {"size": "huge", "depth_band": "0-3", "redex_depth": "none"},
        {"size": "1-9"},
    ],
)
def test_an_impossible_cell_is_refused(cell: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="no closed term lies in cell"):
        fill([cell], seed=1, first=0)
