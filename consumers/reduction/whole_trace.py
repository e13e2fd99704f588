"""Whole traces: terms reduced by predictions alone until a normal form is announced, with their true reductions.

A model that is right in 99 steps of 100 fails every other long trace, so whole traces are the measure that counts.
`follow` reduces terms with any `Predict` function. With `normal_order`, which finds the redex in the text, it gives the
true reduction. All terms advance together, one step at a time, and leave when their reduction ends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from consumers.reduction.contraction import CONTRACTED, NOT_A_REDEX, SIZE_CAPPED, contract
from consumers.reduction.predictions import Predict, Predictions, remembered
from schema.reduction.text import facts

# How a reduction ends: the outcomes of `schema.reduction.columns`, and `not_a_redex` for a span that is not a redex.
ENDS = ("normal_form", "fuel_exhausted", "size_capped", "unrenderable", "not_a_redex")
_NORMAL_FORM, _FUEL, _SIZE, _UNRENDERABLE, _NO_REDEX = range(5)

# A moment of a reduction: the current term, its predicted span, and its true span.
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
    """Limits of every reduction: `fuel` in beta steps, `size_cap` in nodes of a term."""

    fuel: int
    size_cap: int


def normal_order(terms: pl.Series) -> Predictions:
    """Return the leftmost-outermost redex of each term, found in its text; the probability is 0 or 1."""
    spans = _true_spans(terms)
    return Predictions(spans, (spans[:, 1] == 0).astype(np.float64))


def follow(
    terms: pl.Series, predict: Predict, limits: TraceLimits, on_step: OnStep = lambda step, active: None
) -> pl.DataFrame:
    """Reduce each term (N,) at the spans that `predict` gives, and return a row for each reduction.

    `predict` sees every term reached in up to `fuel` steps, including the last one. `on_step` is called with the step,
    from 0, and the number of terms that continue after it.

    Returns:
        A frame with `ended` (one of `ENDS`; `normal_form` means that `predict` announced one), `steps` (contractions),
        `detours` (choices of another redex than the leftmost-outermost), and two moments, structs of `MOMENT`: `last`,
        and `first_detour`, null without a detour.
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
        predicted, true = predict(current), _true_spans(current)
        result = contract(current, predicted.spans, limits.size_cap)
        announced = (predicted.spans == 0).all(axis=1)
        goes_on = (result.verdicts == CONTRACTED) & (step < limits.fuel)
        strays = (result.verdicts != NOT_A_REDEX) & (predicted.spans != true).any(axis=1) & (step < limits.fuel)
        ended[active] = np.select(
            [announced, goes_on, result.verdicts == NOT_A_REDEX, np.full(len(active), step == limits.fuel)],
            [_NORMAL_FORM, -1, _NO_REDEX, _FUEL],
            np.where(result.verdicts == SIZE_CAPPED, _SIZE, _UNRENDERABLE),
        )
        last.note(~goes_on, active, step, current, predicted, true)
        first_detour.note(strays & (detours[active] == 0), active, step, current, predicted, true)
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
        `start` (the term), its `size` and `depth`, `fate` (how the true reduction ends, of `ENDS`), `true_steps` and
        `true_last` (the last term of the true reduction), and then the columns of `follow`.
    """
    truth = follow(terms, normal_order, limits)
    columns = facts(terms)
    begin = pl.DataFrame(
        {
            "start": terms,
            "size": columns["found_size"],
            "depth": columns["found_depth"],
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
        predicted: Predictions,
        true: npt.NDArray[np.int64],
    ) -> None:
        """Keep the moment of the reductions `active[which]`; all arrays have a value for each active reduction."""
        if not which.any():
            return
        self._rows.append(active[which])
        columns = {
            "step": np.full(int(which.sum()), step, dtype=np.int32),
            "term": terms.filter(pl.Series(which)),
            "said_start": predicted.spans[which, 0],
            "said_end": predicted.spans[which, 1],
            "true_start": true[which, 0],
            "true_end": true[which, 1],
            "nf_probability": predicted.nf_probability[which],
        }
        self._parts.append(pl.DataFrame(columns, schema=MOMENT))

    def column(self, name: str, count: int) -> pl.Series:
        """Return the moments as a struct column `name`, in the order of the reductions, null without a moment."""
        places = np.full(count, -1, dtype=np.int64)
        rows = np.concatenate([np.empty(0, dtype=np.int64), *self._rows])
        places[rows] = np.arange(len(rows))
        moments = pl.concat([pl.DataFrame(schema=MOMENT), *self._parts]).to_struct(name)
        indices = pl.Series(places).set(pl.Series(places < 0), None)
        return moments.gather(indices)


def _true_spans(terms: pl.Series) -> npt.NDArray[np.int64]:
    """Return the leftmost-outermost redex of each term as (N, 2), (0, 0) without a redex."""
    return facts(terms)["found_start", "found_end"].to_numpy().astype(np.int64)
