"""Augmented reductions: valid, of the same step, and determined by their origin."""

from __future__ import annotations

import itertools
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producers.reduction.run import ReductionRun
from producers.run import generate
from schema.reduction import FAMILY
from streams.augmentation.reduction import EMBEDDED, LONGEST, MOST_ABSTRACTIONS, WRAPPED, augment
from tests import plain_reducer as plain
from tests import reductions
from tests.schema.test_reduction_text import TERMS
from tests.streams.augmented import copies, judged

KEPT = ("step_k", "steps_total", "trace_id", "outcome", "initial_size", "initial_depth", "cycle", "seed", "chunk")


def row_of(term: plain.Term, number: int) -> dict[str, Any]:
    """The row of a term as if a trace of two steps went on from it, or ended with it."""
    span = plain.redex_span(term)
    steps, outcome = (2, "normal_form") if span is None else (4, "fuel_exhausted")
    start, end = span or (0, 0)
    return reductions.row(
        number,
        term=plain.show(term),
        span_start=start,
        span_end=end,
        step_k=2,
        steps_total=steps,
        outcome=outcome,
        trace_id=f"t{number}",
    )


def replaced(term: plain.Term, edges: int, old: plain.Term, new: plain.Term) -> plain.Term:
    """`term` with `new` for the `old` that is so many edges down: through bodies, and last arguments of a variable."""
    if edges == 0:
        assert term == old
        return new
    if term[0] == "abs":
        return ("abs", replaced(term[1], edges - 1, old, new))
    head = term[1]
    while head[0] == "app":
        assert plain.redex_depth(head[2]) is None
        head = head[1]
    assert head[0] == "var"
    return ("app", term[1], replaced(term[2], edges - 1, old, new))


@settings(max_examples=60)
@given(st.lists(TERMS, min_size=1, max_size=8, unique_by=plain.show), st.integers(1, 4))
def test_a_step_in_the_surroundings_is_the_step_of_the_term(terms: list[plain.Term], count: int) -> None:
    origins = reductions.frame([row_of(term, number) for number, term in enumerate(terms)])
    rows = copies(origins, count)
    augmented = augment(rows)
    assert augmented.height == rows.height
    judged(augmented, FAMILY)
    before = rows.with_columns(origin=pl.col("example_id"))
    for origin, row in zip(before.iter_rows(named=True), augmented.iter_rows(named=True), strict=True):
        old, new = plain.read(origin["term"]), plain.read(row["term"])
        assert plain.show(new) == row["term"]
        assert (plain.redex_span(new) or (0, 0)) == (row["span_start"], row["span_end"])
        assert (plain.size(new), plain.depth(new)) == (row["size"], row["depth"])
        assert plain.redex_depth(new) == row["redex_depth"]
        after = plain.step(old)
        if after is None:
            assert plain.step(new) is None
        else:
            assert plain.step(new) == replaced(new, row["redex_depth"] - origin["redex_depth"], old, after)
        if row["recipe"] == WRAPPED:
            abstractions = plain.leading(new) - plain.leading(old)
            assert 1 <= abstractions <= MOST_ABSTRACTIONS
            assert row["term"] == "\\." * abstractions + origin["term"]


@pytest.fixture(scope="module")
def generated() -> pl.DataFrame:
    return pl.concat(generate(ReductionRun(count=6000, seed=17))).unique("example_id", maintain_order=True)


def test_augmented_rows_of_a_run_are_valid_and_keep_the_columns_of_the_trace(generated: pl.DataFrame) -> None:
    rows = copies(generated, 2)
    augmented = augment(rows)
    assert augmented.columns == [*FAMILY.wire, "record"]
    assert augmented.schema == pl.Schema({**FAMILY.wire, "record": pl.UInt32})
    assert augmented["example_id"].null_count() == augmented["split"].null_count() == augmented.height
    assert augmented["record"].equals(rows["record"])
    assert augmented["augmented_from"].equals(rows["example_id"], check_names=False)
    assert augmented.select(KEPT).equals(rows.select(KEPT))
    assert judged(augmented, FAMILY)["split"].equals(rows["split"])
    growth = augmented.select((pl.col("size") / pl.col("initial_size")).cast(pl.Float32)).to_series()
    assert growth.equals(augmented["growth"], check_names=False)
    # A closed term stays closed: no index counts beyond the abstractions around it.
    assert all(is_closed(plain.read(term)) for term in augmented["term"].head(300))


def is_closed(term: plain.Term, bound: int = 0) -> bool:
    if term[0] == "var":
        return bool(term[1] < bound)
    return all(is_closed(child, bound + (term[0] == "abs")) for child in term[1:])


def test_both_kinds_are_made_evenly_and_aim_at_deep_redexes(generated: pl.DataFrame) -> None:
    augmented = augment(copies(generated, 1))
    kinds = dict(augmented["recipe"].value_counts().iter_rows())
    # Four standard deviations of a fair coin.
    assert abs(kinds[WRAPPED] - kinds[EMBEDDED]) < 4 * augmented.height**0.5
    reducible = augmented.filter(pl.col("span_end") > 0)
    prefixed = reducible.filter(pl.col("term").str.starts_with("\\.\\.\\."), pl.col("recipe") == WRAPPED)
    assert prefixed.height > 1000
    shallow, shallow_before = ((frame["redex_depth"] <= 4).mean() for frame in (reducible, generated))
    assert shallow < shallow_before / 2  # type: ignore[operator]


def test_twelve_copies_hold_every_wrapping_once(generated: pl.DataFrame) -> None:
    augmented = augment(copies(generated.head(20), 2 * MOST_ABSTRACTIONS))
    per_origin = augmented.group_by("augmented_from").agg(
        wrapped=pl.col("term").filter(pl.col("recipe") == WRAPPED).n_unique(),
        embedded=pl.col("recipe").filter(pl.col("recipe") == EMBEDDED).len(),
    )
    assert set(per_origin["wrapped"]) == set(per_origin["embedded"]) == {MOST_ABSTRACTIONS}


def test_a_copy_depends_on_its_origin_and_its_number_alone(generated: pl.DataFrame) -> None:
    rows = copies(generated.head(200), 3)
    whole = augment(rows)
    turned = rows.reverse()
    pieces = [augment(turned.slice(start, size)) for start, size in itertools.pairwise((0, 1, 200))]
    assert augment(turned).equals(whole.reverse())
    assert pieces[0].equals(whole.reverse().head(1))
    assert augment(rows.clear()).equals(whole.clear())


def test_terms_that_would_be_too_long_are_left_out() -> None:
    long, short = "\\." + "0" * (LONGEST - 3), "\\.0"
    rows = [reductions.row(n, term=term, span_start=0, span_end=0, step_k=1) for n, term in enumerate((long, short))]
    augmented = augment(copies(reductions.frame(rows), 2))
    assert augmented["record"].to_list() == [1, 1]
    assert augmented["term"].str.len_bytes().max() < LONGEST  # type: ignore[operator]
