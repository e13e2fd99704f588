from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import polars as pl
import pytest

from consumers.reduction.evaluation import evaluate
from consumers.reduction.predictions import Predictions
from consumers.reduction.whole_trace import TraceLimits, normal_order
from producers.reduction.run import ReductionRun
from producers.run import generate

LIMITS = TraceLimits(fuel=30, size_cap=600)


@pytest.fixture(scope="module")
def rows() -> pl.DataFrame:
    return pl.concat(generate(ReductionRun(count=2_500, seed=77)))


@pytest.fixture(scope="module")
def starts(rows: pl.DataFrame) -> pl.DataFrame:
    """Initial terms, and some terms from the middle of the same traces."""
    return rows.filter(pl.col("step_k").is_in([0, 3]), pl.col("span_end") > 0).with_columns(
        mid_trace=pl.col("step_k") > 0
    )


def test_normal_order_itself_gets_full_marks(rows: pl.DataFrame, starts: pl.DataFrame) -> None:
    result = evaluate(rows, starts, normal_order, LIMITS)
    assert (result.spans["rows"], result.spans["exact_span"], result.spans["iou"]) == (2_500, 1.0, 1.0)
    assert result.spans["normal_form"] == {"precision": 1.0, "recall": 1.0, "support": rows.filter(span_end=0).height}
    assert (result.traces["overall"]["traces"], result.traces["overall"]["correct"]) == (starts.height, 1.0)
    assert result.traces["initial"]["traces"] == starts.filter(~pl.col("mid_trace")).height
    assert result.traces["mid_trace"]["traces"] == starts.filter("mid_trace").height > 0
    assert result.wrong_rows == result.early_stops == []


def test_wrong_rows_are_listed_worst_first(rows: pl.DataFrame, starts: pl.DataFrame) -> None:
    def predict(terms: pl.Series) -> Predictions:
        """Stop at long terms, and miss the last character of redexes in terms that begin with a parenthesis."""
        answers = normal_order(terms)
        long = (terms.str.len_bytes() > 400).to_numpy()
        shy = terms.str.starts_with("(").to_numpy() & (answers.spans[:, 1] > 0)
        spans = np.where(shy[:, None], answers.spans - [[0, 1]], answers.spans)
        return Predictions(np.where(long[:, None], 0, spans), np.where(long, 0.9, 0.1))

    result = evaluate(rows, starts, predict, LIMITS)
    assert json.loads(json.dumps(asdict(result))) == asdict(result)
    wrong = rows.filter((pl.col("term").str.len_bytes() > 400) | pl.col("term").str.starts_with("(")).filter(
        pl.col("span_end") > 0
    )
    assert result.spans["exact_span"] == pytest.approx(1 - wrong.height / rows.height)
    assert [row["iou"] for row in result.wrong_rows] == [0.0] * 10
    assert all(row["predicted_span"] == [0, 0] and row["nf_probability"] == 0.9 for row in result.wrong_rows)
    lengths = [len(row["term"]) for row in result.wrong_rows]
    assert lengths == sorted(lengths)
    assert len(result.early_stops) == result.traces["overall"]["failures"]["stopped_early"] > 0
    assert all(len(stop["term"]) > 400 for stop in result.early_stops)
    assert result.diagnosis["not_a_redex"]["traces"] == result.traces["overall"]["failures"]["not_a_redex"] > 0


def test_progress_ends_with_everything_done(rows: pl.DataFrame, starts: pl.DataFrame) -> None:
    reported: list[tuple[str, int]] = []
    evaluate(rows, starts, normal_order, LIMITS, lambda stage, done, note: reported.append((stage, done)))
    in_rows = [done for stage, done in reported if stage == "rows"]
    in_traces = [done for stage, done in reported if stage == "traces"]
    assert in_rows == [1_024, 2_048, 2_500]
    assert in_traces == sorted(in_traces)
    assert in_traces[-1] == starts.height
