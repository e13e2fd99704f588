"""The whole judgement of a model on terms it has never seen: exact spans, whole traces, and what goes wrong.

`evaluate` takes frames of terms and whatever answers `Predict`, and gives an `Evaluation` of plain values.
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
_STRETCH_ROWS = 1_024
_EXAMPLES = 10
_MOST_STOPS = 200

OnProgress = Callable[[str, int, str], None]


@dataclass(frozen=True)
class Evaluation:
    """What a model is worth; JSON-able.

    Attributes:
        spans: `SpanMetrics.summary` of the rows.
        wrong_rows: the worst of the wrong rows, those first whose span is farthest off: `term`, `size`, `depth`,
            `true_span`, `predicted_span`, `nf_probability`, `iou`.
        traces: `trace_summary`, and the entries `initial` and `mid_trace` for terms from either place.
        diagnosis: of the traces' failures, each with its worst examples.
        early_stops: the stops on reducible terms, the surest first (200 at most), as the examples of `diagnosis`.
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
    """Judge what `predict` says of rows, and where it leads from the starts.

    Args:
        rows: `term`, `span_start`, `span_end`, `size` and `depth`; half-open character offsets, (0, 0) a normal form.
        starts: `term`, and `mid_trace`, whether it is from the middle of a trace.
        predict: answers for terms.
        limits: of every reduction.
        on_progress: is told "rows" or "traces", how many of them are done, and a note.
    """
    said = _ask(rows["term"], predict, on_progress)
    spans, true = torch.from_numpy(said.spans), _spans(rows)
    metrics = SpanMetrics()
    metrics.add(spans, true, (true == 0).all(dim=1), rows["size"].to_torch(), rows["depth"].to_torch())

    def stepped(step: int, active: int) -> None:
        on_progress("traces", starts.height - active, f"step {step}")

    judged = judge(whole_traces(starts["term"], predict, limits, stepped))
    middle = starts["mid_trace"]
    return Evaluation(
        spans=metrics.summary(),
        wrong_rows=_wrong(rows, said),
        traces={
            **trace_summary(judged),
            "initial": trace_summary(judged.filter(~middle))["overall"],
            "mid_trace": trace_summary(judged.filter(middle))["overall"],
        },
        diagnosis=diagnosis(judged, _EXAMPLES),
        early_stops=worst(judged, "stopped_early", _MOST_STOPS),
    )


def _ask(terms: pl.Series, predict: Predict, on_progress: OnProgress) -> Predictions:
    """Ask about all terms, telling progress; the shortest first, so that batches are of like terms."""
    order = terms.str.len_bytes().arg_sort()
    spans, probability = np.empty((len(terms), 2), dtype=np.int64), np.empty(len(terms))
    for start in range(0, len(terms), _STRETCH_ROWS):
        places = order[start : start + _STRETCH_ROWS]
        said = predict(terms.gather(places))
        spans[places], probability[places] = said.spans, said.nf_probability
        on_progress("rows", start + len(places), "")
    return Predictions(spans, probability)


def _spans(rows: pl.DataFrame) -> torch.Tensor:
    return torch.from_numpy(rows["span_start", "span_end"].to_numpy().astype(np.int64))


def _wrong(rows: pl.DataFrame, said: Predictions) -> list[dict[str, Any]]:
    spans, true = torch.from_numpy(said.spans), _spans(rows)
    told = rows.select("term", "size", "depth").with_columns(
        true_span=pl.Series(true.tolist(), dtype=pl.List(pl.Int64)),
        predicted_span=pl.Series(said.spans.tolist(), dtype=pl.List(pl.Int64)),
        nf_probability=said.nf_probability,
        iou=iou(spans, true).numpy(),
    )
    wrong = told.filter((spans != true).any(dim=1).numpy())
    return wrong.sort("iou", pl.col("term").str.len_bytes(), maintain_order=True).head(_EXAMPLES).to_dicts()
