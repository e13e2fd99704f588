"""The totals of a scenario run: rows, cells, shares beside their targets, and the variety of the texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from producers.run import generate
from producers.scenario.run import ScenarioRun, rows_by_cell
from schema.scenario import FAMILY, TEXT
from schema.scenario.bands import AUTHENTICITY_TARGETS, CAPACITY_LEVELS, COMPLEXITY_TYPES, TYPE_SHARE
from schema.text_measures import SAMPLE_ROWS, distinct_ngrams, diversity

_GRAM_WORDS = 4
# Target shares, by axis and bin.
_TARGETS = {
    "capacity_level": {band.name: band.share for band in CAPACITY_LEVELS},
    "authenticity_target": {band.name: band.share for band in AUTHENTICITY_TARGETS},
    "complexity_type": dict.fromkeys(COMPLEXITY_TYPES, TYPE_SHARE),
}


def summary(run: ScenarioRun) -> dict[str, Any]:
    """Return the totals of a run.

    Keys: family, backend, run, seed, rows; cells_covered, cells_total; axes {axis: {bin: rows}}; sample_rows, the
    number of first rows on which distinct_4grams, diversity and copies are measured.
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
        "diversity": round(diversity(texts), 4),
        "copies": len(texts) - texts.n_unique(),
    }


def summary_table(figures: Mapping[str, Any]) -> RenderableType:
    """Return a summary as a small table: each bin's share of the rows, beside its target."""
    table = Table("axis", "bin", box=None, pad_edge=False)
    for title in ("rows", "share", "target"):
        table.add_column(title, justify="right")
    for axis, counts in figures["axes"].items():
        for place, (name, rows) in enumerate(counts.items()):
            shares = f"{rows / figures['rows']:.2%}", f"{_TARGETS[axis][name]:.2%}"
            table.add_row("" if place else axis, name, f"{rows:,}", *shares)
    lines = (
        f"{figures['rows']:,} rows of backend {figures['backend']}, "
        f"{figures['cells_covered']} of {figures['cells_total']} cells covered",
        f"of the first {figures['sample_rows']:,} texts: {figures['copies']:,} copies, "
        f"distinct 4-grams {figures['distinct_4grams']:.3f}, diversity {figures['diversity']:.3f}",
    )
    return Group(Text("\n".join(lines)), table)
