"""Fresh terms of an evaluation: enough in every size band, and none of the training set."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from feedmill import fresh_terms
from feedmill.fresh_terms import FreshTerms, draw
from producers.reduction.run import ReductionRun
from producers.run import generate
from schema.errors import UsageError

NOTHING = np.empty(0, dtype=np.uint64)
RUN = ReductionRun(count=3_000, seed=5)


@pytest.fixture(scope="module")
def fresh() -> FreshTerms:
    return draw(RUN, 60, NOTHING)


def test_rows_are_the_producers_each_term_once(fresh: FreshTerms) -> None:
    generated = pl.concat(generate(ReductionRun(count=8_000, seed=5))).unique("term", keep="first", maintain_order=True)
    assert fresh.rows.height == 3_000
    assert fresh.rows.equals(generated.head(3_000))
    assert (fresh.dropped, fresh.repeated > 0) == (0, True)


def test_every_size_band_has_enough_traces_and_no_trace_twice(fresh: FreshTerms) -> None:
    starts = fresh.starts
    initial, middle = starts.filter(~pl.col("mid_trace")), starts.filter("mid_trace")
    assert initial.height == 60
    assert (initial["step_k"] == 0).all()
    assert (middle["step_k"] > 0).all()
    assert (middle["span_end"] > 0).all()
    assert starts["trace_id"].is_unique().all()
    for low, high in ((1, 19), (20, 49), (50, 79), (80, 119), (120, 199), (200, 10_000)):
        inside = starts.filter(pl.col("size").is_between(low, high))
        assert inside.height >= 20
        assert inside.height == max(20, initial.filter(pl.col("size").is_between(low, high)).height)


def test_no_term_of_the_training_set_is_drawn(fresh: FreshTerms) -> None:
    seen = pl.concat([fresh.rows, fresh.starts.drop("mid_trace")])["example_id"].unique()
    known = np.sort(seen.gather_every(2).to_numpy())
    again = draw(RUN, 60, known)
    drawn = pl.concat([again.rows["example_id"], again.starts["example_id"]])
    assert not drawn.is_in(pl.Series(known)).any()
    assert again.rows.height == 3_000
    assert again.dropped >= len(known) - 20
    assert again.generated - again.dropped - again.repeated >= 3_000


def test_the_same_seed_draws_the_same_terms(fresh: FreshTerms) -> None:
    again = draw(RUN, 60, NOTHING)
    assert again.rows.equals(fresh.rows)
    assert again.starts.equals(fresh.starts)


def test_a_seed_of_the_training_set_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fresh_terms, "_MOST_ROWS", 3_000)
    monkeypatch.setattr(fresh_terms, "_MOST_TIMES", 1)
    known = np.unique(pl.concat(generate(ReductionRun(count=10_000, seed=5)))["example_id"].to_numpy())
    with pytest.raises(UsageError, match="give another --seed"):
        draw(RUN, 60, known)
