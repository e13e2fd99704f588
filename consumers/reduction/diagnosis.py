"""Judge a model's whole traces: which are right, why the others fail, and the shares by size and depth band.

If the term has a normal form within the limits, a trace is right when it ends by announcing that normal form. A detour
(another redex than the leftmost-outermost) may still lead there, by the Church-Rosser theorem: such a trace is right,
and its detours are counted. If the term has no normal form within the limits, a trace is right when the model never
announces one and takes no detour, because then it ends where the true reduction ends.

A wrong trace has exactly one of these failures::

    stopped_early        the model announces a normal form, but there is a redex
    missed_normal_form   the model points at a place, but there is no redex
    not_a_redex          the model points at a place that is not a redex, although there is one
    fuel                 detours used up the fuel that the way to the normal form needs
    wrong_redex          detours led out of the limits on terms, or the term has no normal form
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from consumers.reduction.metrics import DEPTH_BANDS, SIZE_BANDS, Bands, share

FAILURES = ("stopped_early", "missed_normal_form", "not_a_redex", "fuel", "wrong_redex")

_terminates = pl.col("fate") == "normal_form"
_announced = pl.col("ended") == "normal_form"
_at_normal_form = pl.col("last").struct.field("true_end") == 0
_pointed_at_nothing = pl.col("ended") == "not_a_redex"
_strayed = pl.col("detours") > 0

_failure = (
    pl.when(_announced & ~_at_normal_form)
    .then(pl.lit("stopped_early"))
    .when(_pointed_at_nothing & _at_normal_form)
    .then(pl.lit("missed_normal_form"))
    .when(_pointed_at_nothing)
    .then(pl.lit("not_a_redex"))
    .when(_terminates & (pl.col("ended") == "fuel_exhausted"))
    .then(pl.lit("fuel"))
    .when(~_terminates & _strayed)
    .then(pl.lit("wrong_redex"))
    .when(_terminates & (pl.col("last").struct.field("term") != pl.col("true_last")))
    .then(pl.lit("wrong_redex"))
)

# The moment at which a wrong trace went wrong: its first detour if the detours are the failure, else its end.
_fault = (
    pl.when(pl.col("failure").is_in(["fuel", "wrong_redex"]))
    .then(pl.col("first_detour"))
    .when(pl.col("failure").is_not_null())
    .then(pl.col("last"))
)


def judge(traces: pl.DataFrame) -> pl.DataFrame:
    """Add `failure` (of `FAILURES`; null if right), `correct` and `fault` to a frame of `whole_traces`.

    `fault` is the moment at which a wrong trace went wrong: the first detour for `fuel` and `wrong_redex`, else the
    end.
    """
    return traces.with_columns(failure=_failure).with_columns(correct=pl.col("failure").is_null(), fault=_fault)


def trace_summary(judged: pl.DataFrame) -> dict[str, Any]:
    """Return a summary of judged traces as JSON-able values; a share of 0 traces is None.

    Keys: `overall`, `terminating` and `non_terminating` (by their true fate), `deeper_than_7`, and the lists `by_size`
    and `by_depth` with an entry for every band of the start term. Each entry has `traces`, `correct` (a share),
    `detours` (traces with a detour) and `failures` {class: traces}; entries of a list also have `band`.
    """
    return {
        "overall": _entry(judged),
        "terminating": _entry(judged.filter(_terminates)),
        "non_terminating": _entry(judged.filter(~_terminates)),
        "by_size": _by_band(judged, "size", SIZE_BANDS),
        "by_depth": _by_band(judged, "depth", DEPTH_BANDS),
        "deeper_than_7": _entry(judged.filter(pl.col("depth") > 7)),
    }


def _by_band(judged: pl.DataFrame, column: str, bands: Bands) -> list[dict[str, Any]]:
    code = judged[column].to_torch()
    inside = pl.Series(bands.code(code).numpy())
    return [{"band": name, **_entry(judged.filter(inside == place))} for place, name in enumerate(bands.names)]


def _entry(judged: pl.DataFrame) -> dict[str, Any]:
    failures = dict(judged["failure"].drop_nulls().value_counts().iter_rows())
    return {
        "traces": judged.height,
        "correct": share(int(judged["correct"].sum()), judged.height),
        "detours": judged.filter(_strayed).height,
        "failures": {name: failures.get(name, 0) for name in FAILURES},
    }


def worst(judged: pl.DataFrame, failure: str, count: int) -> list[dict[str, Any]]:
    """Return the `count` worst traces of a failure class, as JSON-able values.

    The worst early stops have the highest probability; the worst of other failures have the shortest term. Keys:
    `start`, `size`, `depth`, `fate`, `true_steps`, and the fault's `step`, `term`, `true_span`, `predicted_span` and
    `nf_probability`.
    """
    fault = pl.col("fault").struct
    by = -fault.field("nf_probability") if failure == "stopped_early" else fault.field("term").str.len_bytes()
    chosen = judged.filter(pl.col("failure") == failure).sort(by, maintain_order=True).head(count)
    return [_trace_entry(row) for row in chosen.iter_rows(named=True)]


def _trace_entry(row: Mapping[str, Any]) -> dict[str, Any]:
    fault = row["fault"]
    return {
        **{name: row[name] for name in ("start", "size", "depth", "fate", "true_steps")},
        "step": fault["step"],
        "term": fault["term"],
        "true_span": [fault["true_start"], fault["true_end"]],
        "predicted_span": [fault["said_start"], fault["said_end"]],
        "nf_probability": fault["nf_probability"],
    }


def diagnosis(judged: pl.DataFrame, examples: int) -> dict[str, Any]:
    """Return for each failure class its `traces`, their `share` of all, and typical values; JSON-able.

    `median_step` is the median step of the fault, `median_size` the median size of the start term, and
    `nf_probability` the mean probability at the fault; None in a class without traces. `examples` are the worst traces
    of the class, at most this many.
    """
    classes = {}
    for name in FAILURES:
        failed = judged.filter(pl.col("failure") == name)
        fault = failed["fault"].struct
        classes[name] = {
            "traces": failed.height,
            "share": share(failed.height, judged.height),
            "median_step": fault.field("step").median(),
            "median_size": failed["size"].median(),
            "nf_probability": fault.field("nf_probability").mean(),
            "examples": worst(judged, name, examples),
        }
    return classes
