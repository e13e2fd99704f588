"""Compose scenario rows: draw numbers, choose phrases that fit them, and write the texts."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from producers.scenario.composer.grammar import choices, grammar
from producers.scenario.numbers import MAX_FACTORS_COMPOSED, numbers_of
from producers.scenario.rows import Origin, rows_of
from schema.scenario.vocabulary import RELATIONS

GENERATOR = "composer"
_AGE_BANDS = [band for relation in RELATIONS for band in relation.age_bands]
_AGE_BAND_COUNTS = np.array([len(relation.age_bands) for relation in RELATIONS])
_AGE_BAND_FIRST = np.cumsum(_AGE_BAND_COUNTS) - _AGE_BAND_COUNTS
_FACTOR_SLOTS = [f"factor_{place}" for place in range(MAX_FACTORS_COMPOSED)]


def compose(cells: npt.NDArray[Any], origin: Origin) -> pl.DataFrame:
    """Return one row for each cell index, (N,) row-major over `FAMILY.cells()`, as an identified wire frame.

    Except for `chunk` and `batch_id`, row i depends only on its cell, its seed, its series and its number,
    `origin.first` + i.
    """
    draws = origin.draws(len(cells))
    numbers = numbers_of(np.asarray(cells, dtype=np.int64), draws)
    choice, relation = choices(numbers, draws)
    compiled = grammar()
    age_band = _AGE_BAND_FIRST[relation] + draws.below("age_band", _AGE_BAND_COUNTS[relation])
    texts = {
        "character_name": compiled.phrases(choice, ["name"]),
        "character_age_band": pl.Series(_AGE_BANDS).gather(age_band),
        "character_relation": compiled.phrases(choice, ["relation"]),
        "setting": compiled.phrases(choice, ["setting"]),
        "qualitative_anchor": compiled.phrases(choice, ["anchor"]),
        **{column: compiled.texts(choice, column) for column in ("context", "request", "response")},
    }
    names = compiled.phrases(choice, _FACTOR_SLOTS, numbers.effects != 0)
    return rows_of(numbers, texts, names, GENERATOR, origin)
