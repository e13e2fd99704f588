"""Whole traces: terms reduced by predictions alone, until a normal form is announced, beside their true reduction.

A model that is right in 99 steps of 100 loses every other long trace, so this is what it must be judged by. `follow`
reduces terms by whatever says where the redex is; with `normal_order`, which reads it off the text, that is the truth.
All terms go forward together, a step at a time, and those that have come to an end leave.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from consumers.reduction.predictions import Predict, Predictions, remembered
from schema.reduction.contraction import CONTRACTED, NOT_A_REDEX, SIZE_CAPPED, contract
from schema.reduction.text import facts

# How a reduction ends, beside the outcomes of `schema.reduction.columns`: what was pointed at cannot be contracted.
ENDS = ("normal_form", "fuel_exhausted", "size_capped", "unrenderable", "not_a_redex")
_NORMAL_FORM, _FUEL, _SIZE, _UNRENDERABLE, _NO_REDEX = range(5)

# A moment of a reduction: the term at hand, what was said of it, and what is true.
MOMENT: dict[str, pl.DataType] = {
    "step": pl.Int32(),
    "term": pl.String(),
    "said_start": pl.Int64(),
    "said_end": pl.Int64(),
    "true_start": pl.Int64(),
    "true_end": pl.Int64(),
    "nf_probability": pl.Float64(),
}

OnStep = Callable[[int, int], None]


@dataclass(frozen=True)
class TraceLimits:
    """Where every reduction ends at the latest: beta steps, and nodes of a term."""

    fuel: int
    size_cap: int


def normal_order(terms: pl.Series) -> Predictions:
    """Return the leftmost-outermost redex of each term, read off its text; the probability is 0 or 1."""
    spans = _true_spans(terms)
    return Predictions(spans, (spans[:, 1] == 0).astype(np.float64))


def follow(
    terms: pl.Series, predict: Predict, limits: TraceLimits, on_step: OnStep = lambda step, active: None
) -> pl.DataFrame:
    """Reduce each term (N,) at the spans that `predict` gives, and return how it went, a row for each.

    `predict` is asked about every term reached in up to `fuel` steps, the last included. `on_step` is told the
    step, from 0, and how many terms go on after it.

    Returns:
        A frame with `ended` (one of `ENDS`: `normal_form` says that `predict` said so), `steps` contracted, `detours`
        (how often another redex than the leftmost-outermost was chosen), and two moments, each a struct of `MOMENT`:
        `last`, and `first_detour`, null where there was none.
    """
    count = len(terms)
    ended = np.full(count, -1, dtype=np.int8)
    steps = np.zeros(count, dtype=np.int32)
    detours = np.zeros(count, dtype=np.int32)
    last, first_detour = _Moments(), _Moments()
    active = np.arange(count)
    current = terms
    for step in range(limits.fuel + 1):
        if not len(active):
            break
        said, true = predict(current), _true_spans(current)
        result = contract(current, said.spans, limits.size_cap)
        announced = (said.spans == 0).all(axis=1)
        goes_on = (result.verdicts == CONTRACTED) & (step < limits.fuel)
        strays = (result.verdicts != NOT_A_REDEX) & (said.spans != true).any(axis=1) & (step < limits.fuel)
        ended[active] = np.select(
            [announced, goes_on, result.verdicts == NOT_A_REDEX, np.full(len(active), step == limits.fuel)],
            [_NORMAL_FORM, -1, _NO_REDEX, _FUEL],
            np.where(result.verdicts == SIZE_CAPPED, _SIZE, _UNRENDERABLE),
        )
        last.note(~goes_on, active, step, current, said, true)
        first_detour.note(strays & (detours[active] == 0), active, step, current, said, true)
        detours[active] += strays
        steps[active] += goes_on
        current = result.terms.filter(pl.Series(goes_on))
        active = active[goes_on]
        on_step(step, len(active))
    return pl.DataFrame(
        {"ended": pl.Series(ENDS).gather(ended), "steps": steps, "detours": detours},
    ).with_columns(last.column("last", count), first_detour.column("first_detour", count))


def whole_traces(
    terms: pl.Series, predict: Predict, limits: TraceLimits, on_step: OnStep = lambda step, active: None
) -> pl.DataFrame:
    """Reduce each term (N,) by `predict` alone, and by normal order, under the same limits.

    Returns:
        The frame of `follow`, after `start` (the term), its `size` and `depth`, `fate` (how the true reduction ends,
        of `ENDS`), `true_steps`, and `true_last` (the term with which it ends).
    """
    truth = follow(terms, normal_order, limits)
    found = facts(terms)
    begin = pl.DataFrame(
        {
            "start": terms,
            "size": found["found_size"],
            "depth": found["found_depth"],
            "fate": truth["ended"],
            "true_steps": truth["steps"],
            "true_last": truth["last"].struct.field("term"),
        }
    )
    return begin.hstack(follow(terms, remembered(predict), limits, on_step))


class _Moments:
    """Moments of some reductions, gathered step by step."""

    def __init__(self) -> None:
        self._rows: list[npt.NDArray[np.int64]] = []
        self._parts: list[pl.DataFrame] = []

    def note(
        self,
        which: npt.NDArray[np.bool_],
        active: npt.NDArray[np.int64],
        step: int,
        terms: pl.Series,
        said: Predictions,
        true: npt.NDArray[np.int64],
    ) -> None:
        """Keep the moment of the reductions `active[which]`; all arrays are of the active ones."""
        if not which.any():
            return
        self._rows.append(active[which])
        columns = {
            "step": np.full(int(which.sum()), step, dtype=np.int32),
            "term": terms.filter(pl.Series(which)),
            "said_start": said.spans[which, 0],
            "said_end": said.spans[which, 1],
            "true_start": true[which, 0],
            "true_end": true[which, 1],
            "nf_probability": said.nf_probability[which],
        }
        self._parts.append(pl.DataFrame(columns, schema=MOMENT))

    def column(self, name: str, count: int) -> pl.Series:
        """Return the moments as a struct column of that name, in the order of the reductions, null where none."""
        places = np.full(count, -1, dtype=np.int64)
        rows = np.concatenate([np.empty(0, dtype=np.int64), *self._rows])
        places[rows] = np.arange(len(rows))
        moments = pl.concat([pl.DataFrame(schema=MOMENT), *self._parts]).to_struct(name)
        indices = pl.Series(places).set(pl.Series(places < 0), None)
        return moments.gather(indices)


def _true_spans(terms: pl.Series) -> npt.NDArray[np.int64]:
    """Return the leftmost-outermost redex of each term as (N, 2), (0, 0) where there is none."""
    return facts(terms)["found_start", "found_end"].to_numpy().astype(np.int64)
