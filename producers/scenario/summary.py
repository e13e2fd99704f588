"""The summary of a scenario run: rows by cell and by bin, and the variety of the texts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from producers.run import generate
from producers.scenario.run import ScenarioRun, rows_by_cell
from schema.response_measures import response_measures
from schema.scenario import FAMILY, TEXT
from schema.text_measures import SAMPLE_ROWS, distinct_ngrams

_GRAM_WORDS = 4


def summary(run: ScenarioRun) -> dict[str, Any]:
    """Return the totals of a run.

    Keys: family, backend, run, seed, rows; cells_covered, cells_total; axes {axis: {bin: rows}}; sample_rows, the
    number of first rows on which distinct_4grams, copies and responses are measured; responses as
    `schema.response_measures.response_measures`.
    """
    counts = rows_by_cell(run)
    cube = counts.reshape([len(FAMILY.axis(name).bins) for name in FAMILY.cell_axes])
    axes = {}
    for place, name in enumerate(FAMILY.cell_axes):
        others = tuple(other for other in range(cube.ndim) if other != place)
        axes[name] = dict(zip(FAMILY.axis(name).bins, cube.sum(axis=others).tolist(), strict=True))
    # A shorter run is the beginning of a longer one.
    sample = pl.concat(generate(replace(run, count=min(run.count, SAMPLE_ROWS))))
    texts = sample.select(TEXT).to_series()
    return {
        "family": FAMILY.name,
        "backend": run.backend,
        "run": run.run,
        "seed": run.seed,
        "rows": run.count,
        "cells_covered": int(np.count_nonzero(counts)),
        "cells_total": int(counts.size),
        "axes": axes,
        "sample_rows": len(texts),
        f"distinct_{_GRAM_WORDS}grams": round(distinct_ngrams(texts, _GRAM_WORDS), 4),
        "copies": len(texts) - texts.n_unique(),
        "responses": response_measures(sample["response"], sample["authenticity_target"]),
    }
