"""The interface of a model in evaluation: terms in, spans and normal-form probabilities out.

`Predict` is the type of such a function: a model (`consumers.reduction.model_predictor`), or any other function that
finds the redex.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predictions for N terms.

    Attributes:
        spans: (N, 2) int64, half-open character offsets; (0, 0) means a normal form.
        nf_probability: (N,) float64, the probability that the term is a normal form.
    """

    spans: npt.NDArray[np.int64]
    nf_probability: npt.NDArray[np.float64]


Predict: TypeAlias = Callable[[pl.Series], Predictions]


def remembered(predict: Predict) -> Predict:
    """Return `predict` with a cache, so that a reduction that loops predicts each term of the loop only once."""
    known: dict[str, tuple[int, int, float]] = {}

    def recall(terms: pl.Series) -> Predictions:
        asked = terms.to_list()
        new = [term for term in dict.fromkeys(asked) if term not in known]
        if new:
            predicted = predict(pl.Series(new, dtype=pl.String))
            values = zip(*predicted.spans.T.tolist(), predicted.nf_probability.tolist(), strict=True)
            known.update(zip(new, values, strict=True))
        answers = np.array([known[term] for term in asked], dtype=np.float64).reshape(-1, 3)
        return Predictions(answers[:, :2].astype(np.int64), answers[:, 2])

    return recall
