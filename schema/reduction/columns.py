"""The reduction family's columns, and its JSON form.

One row is one step of a trace: a term, and the span of the redex that normal order reduces next. Spans are half-open
character offsets; (0, 0) is the normal-form marker. In JSON the span is the list `target_span`, and the last ten
columns are in the object `meta`.
"""

from __future__ import annotations

from typing import Any

import polars as pl

OUTCOMES = ("normal_form", "fuel_exhausted", "size_capped", "unrenderable")

CORE: dict[str, pl.DataType] = {
    "term": pl.String(),
    "step_k": pl.Int32(),
    "steps_total": pl.Int32(),  # beta steps taken in the trace
    "trace_id": pl.String(),
    "span_start": pl.Int32(),
    "span_end": pl.Int32(),
    "outcome": pl.String(),
}
META: dict[str, pl.DataType] = {
    "size": pl.Int32(),  # nodes of this term
    "depth": pl.Int32(),  # edges on this term's longest path
    "initial_size": pl.Int32(),
    "initial_depth": pl.Int32(),
    "redex_depth": pl.Int32(),  # edges from the root to the redex; null in a normal form
    "growth": pl.Float32(),  # size / initial_size
    "cycle": pl.Int32(),
    "seed": pl.Int64(),
    "chunk": pl.Int64(),
    "recipe": pl.String(),
}
COLUMNS: dict[str, pl.DataType] = {**CORE, **META}


def flatten(document: dict[str, Any]) -> dict[str, Any]:
    """Return one JSON object as {column: value}; values of an unexpected shape are kept for the type check."""
    flat = {name: value for name, value in document.items() if name not in ("target_span", "meta")}
    span = document.get("target_span")
    if isinstance(span, list) and len(span) == 2:
        flat["span_start"], flat["span_end"] = span
    elif span is not None:
        flat["span_start"] = span
    meta = document.get("meta")
    if isinstance(meta, dict):
        flat.update({name: value for name, value in meta.items() if name in META})
    return flat


def nest(frame: pl.DataFrame) -> pl.DataFrame:
    """Return `frame` in the JSON form: `target_span` a two-element list, meta a struct, `example_id` 16 hex digits."""
    rest = [name for name in frame.columns if name not in COLUMNS]
    return frame.select(
        "term",
        "step_k",
        "steps_total",
        "trace_id",
        pl.concat_list("span_start", "span_end").alias("target_span"),
        "outcome",
        pl.struct(*META).alias("meta"),
        *rest,
    )
