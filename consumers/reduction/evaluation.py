"""Evaluate a model on terms that it has never seen: exact spans, whole traces, and failures.

`evaluate` takes frames of terms and a `Predict` function, and gives an `Evaluation` of plain values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch

from consumers.reduction.diagnosis import diagnosis, judge, trace_summary, worst
from consumers.reduction.metrics import SpanMetrics, iou
from consumers.reduction.predictions import Predict, Predictions
from consumers.reduction.whole_trace import TraceLimits, whole_traces

# Rows between two reports of progress.
_PROGRESS_ROWS = 1_024
_EXAMPLES = 10
_MOST_STOPS = 200

OnProgress = Callable[[str, int, str], None]


@dataclass(frozen=True)
class Evaluation:
    """Scores and failures of a model; JSON-able.

    Attributes:
        spans: `SpanMetrics.summary` of the rows.
        wrong_rows: the worst wrong rows, the farthest span first: `term`, `size`, `depth`, `true_span`,
            `predicted_span`, `nf_probability`, `iou`.
        traces: `trace_summary`, and the entries `initial` and `mid_trace` for initial and mid-trace terms.
        diagnosis: of the traces' failures, each with its worst examples.
        early_stops: stops on reducible terms, the most probable first (at most 200), with the keys of `worst`.
    """

    spans: dict[str, Any]
    wrong_rows: list[dict[str, Any]]
    traces: dict[str, Any]
    diagnosis: dict[str, Any]
    early_stops: list[dict[str, Any]]


def evaluate(
    rows: pl.DataFrame,
    starts: pl.DataFrame,
    predict: Predict,
    limits: TraceLimits,
    on_progress: OnProgress = lambda stage, done, note: None,
) -> Evaluation:
    """Evaluate the predictions for single rows, and the whole traces from the start terms.

    Args:
        rows: `term`, `span_start`, `span_end`, `size` and `depth`; half-open character offsets, (0, 0) a normal form.
        starts: `term`, and `mid_trace`, whether the term is from the middle of a trace.
        predict: the model's predictions for terms.
        limits: of every reduction.
        on_progress: called with "rows" or "traces", the number done, and a note.
    """
    predictions = _ask(rows["term"], predict, on_progress)
    spans, true = torch.from_numpy(predictions.spans), _spans(rows)
    metrics = SpanMetrics()
    metrics.add(spans, true, (true == 0).all(dim=1), rows["size"].to_torch(), rows["depth"].to_torch())

    def stepped(step: int, active: int) -> None:
        on_progress("traces", starts.height - active, f"step {step}")

    judged = judge(whole_traces(starts["term"], predict, limits, stepped))
    middle = starts["mid_trace"]
    return Evaluation(
        spans=metrics.summary(),
        wrong_rows=_wrong(rows, predictions),
        traces={
            **trace_summary(judged),
            "initial": trace_summary(judged.filter(~middle))["overall"],
            "mid_trace": trace_summary(judged.filter(middle))["overall"],
        },
        diagnosis=diagnosis(judged, _EXAMPLES),
        early_stops=worst(judged, "stopped_early", _MOST_STOPS),
    )


def _ask(terms: pl.Series, predict: Predict, on_progress: OnProgress) -> Predictions:
    """Predict all terms and report progress; the shortest come first, so that batches hold terms of similar length."""
    order = terms.str.len_bytes().arg_sort()
    spans, probability = np.empty((len(terms), 2), dtype=np.int64), np.empty(len(terms))
    for start in range(0, len(terms), _PROGRESS_ROWS):
        places = order[start : start + _PROGRESS_ROWS]
        answers = predict(terms.gather(places))
        spans[places], probability[places] = answers.spans, answers.nf_probability
        on_progress("rows", start + len(places), "")
    return Predictions(spans, probability)


def _spans(rows: pl.DataFrame) -> torch.Tensor:
    return torch.from_numpy(rows["span_start", "span_end"].to_numpy().astype(np.int64))


def _wrong(rows: pl.DataFrame, predictions: Predictions) -> list[dict[str, Any]]:
    spans, true = torch.from_numpy(predictions.spans), _spans(rows)
    compared = rows.select("term", "size", "depth").with_columns(
        true_span=pl.Series(true.tolist(), dtype=pl.List(pl.Int64)),
        predicted_span=pl.Series(predictions.spans.tolist(), dtype=pl.List(pl.Int64)),
        nf_probability=predictions.nf_probability,
        iou=iou(spans, true).numpy(),
    )
    wrong = compared.filter((spans != true).any(dim=1).numpy())
    return wrong.sort("iou", pl.col("term").str.len_bytes(), maintain_order=True).head(_EXAMPLES).to_dicts()
