"""What the whole traces of a model come to: which are right, why the others fail, and how it all differs by band.

A trace whose term has a normal form within the limits is right when the model announces a normal form and has that
one. By the Church-Rosser theorem a detour (another redex than the leftmost-outermost) may still lead there: it counts
as right, and is counted. A trace without a normal form within the limits is right when the model never announces one
and takes no detour, for then it ends where the true reduction ends.

The failures, of which a wrong trace has exactly one::

    stopped_early        a normal form is announced, and there is a redex
    missed_normal_form   a place is pointed at, and there is no redex
    not_a_redex          a place is pointed at that is no redex, and there is one
    fuel                 detours used up the fuel that the way to the normal form needs
    wrong_redex          detours led out of the limits on terms, or there is no normal form to lead to
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

# The moment at which a wrong trace went wrong: where it took its first detour if that is what is wrong, else its end.
_fault = (
    pl.when(pl.col("failure").is_in(["fuel", "wrong_redex"]))
    .then(pl.col("first_detour"))
    .when(pl.col("failure").is_not_null())
    .then(pl.col("last"))
)


def judge(traces: pl.DataFrame) -> pl.DataFrame:
    """Return a frame of `whole_traces` with `failure` (of `FAILURES`; null where right), `correct` and `fault`.

    `fault` is the moment at which a wrong trace went wrong: the first detour in `fuel` and `wrong_redex`, else the end.
    """
    return traces.with_columns(failure=_failure).with_columns(correct=pl.col("failure").is_null(), fault=_fault)


def trace_summary(judged: pl.DataFrame) -> dict[str, Any]:
    """Return everything about judged traces as JSON-able values; a share of nothing is None.

    Keys: `overall`, `terminating` and `non_terminating` (by their true fate), `deeper_than_7`, and lists with every
    band, `by_size` and `by_depth`, where size and depth are those of the term that the trace starts with. Each entry
    has `traces`, `correct` (a share), `detours` (traces with one) and `failures` {class: traces}; those of a list have
    `band` too.
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

    The worst stops are the surest ones; of other failures, those at the shortest term. Keys: `start`, `size`, `depth`,
    `fate`, `true_steps`, and of the fault its `step`, `term`, `true_span`, `predicted_span` and `nf_probability`.
    """
    fault = pl.col("fault").struct
    by = -fault.field("nf_probability") if failure == "stopped_early" else fault.field("term").str.len_bytes()
    chosen = judged.filter(pl.col("failure") == failure).sort(by, maintain_order=True).head(count)
    return [_told(row) for row in chosen.iter_rows(named=True)]


def _told(row: Mapping[str, Any]) -> dict[str, Any]:
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
    """Return for each failure class its `traces`, their `share` of all, and what is typical of them; JSON-able.

    `median_step` is that of the fault, `median_size` that of the start term, `nf_probability` the mean at the fault;
    None in a class without traces. `examples` are the `worst`, so many of each class.
    """
    told = {}
    for name in FAILURES:
        failed = judged.filter(pl.col("failure") == name)
        fault = failed["fault"].struct
        told[name] = {
            "traces": failed.height,
            "share": share(failed.height, judged.height),
            "median_step": fault.field("step").median(),
            "median_size": failed["size"].median(),
            "nf_probability": fault.field("nf_probability").mean(),
            "examples": worst(judged, name, examples),
        }
    return told
