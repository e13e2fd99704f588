"""Make reduction examples for given cells: random terms of the cell's size, depth and redex depth.

Every row is the first step of its own trace, which is really reduced. A cell holds many shapes (nodes, depth, redex
depth). A shape is drawn first, then a term of that shape with uniform probability. A shape with few terms is drawn less
often, in proportion to its terms, so every term of a small cell is equally likely. In such a cell duplicates are
unavoidable. The refine stage drops them, and `schema.reduction.coverage.cell_room` limits a request to a quarter of the
cell's terms.

This module loads compiled code: import it inside the function that uses it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from producers.reduction.classes import BY_REDEX, DEEPEST_REDEX, NORMAL, reducible
from producers.reduction.counting import Counts, count_terms
from producers.reduction.recipe import DEFAULT_FUEL, DEFAULT_SIZE_CAP
from producers.reduction.reducing import OUTCOME, REDEX, STEP, STEPS_TOTAL, reduce_terms
from producers.reduction.rendering import DEPTH, GLYPHS, REDEX_DEPTH, SPAN_END, SPAN_START, render_terms
from producers.reduction.sampling import Cells, sample_cells
from schema.buffers import strings_of
from schema.errors import UsageError
from schema.family import cell_label, identify
from schema.reduction import FAMILY
from schema.reduction.columns import COLUMNS, OUTCOMES
from schema.reduction.coverage import band_range

Array = npt.NDArray[Any]

# The value of the `recipe` column in every row of this module.
RECIPE = "fill-cell"
# Upper ends for the open bands, well below the size that a trace may grow to.
LARGEST_SIZE = 249
DEEPEST = 20
# Shapes with at least this many terms are drawn equally often. No small cell holds more terms in all.
_ENOUGH_TERMS = 1e6
# Only the first term of a trace is used, but reducing always keeps the last as well.
_KEPT = 2


def fill(cells: Sequence[Mapping[str, str]], seed: int, first: int) -> pl.DataFrame:
    """Return one example for each cell, in order, as an identified frame of the family's wire columns.

    Row i has the number `first` + i as its `chunk`, and depends only on its cell, the seed and that number. Its trace
    is `fill-<seed>-<number>`. Each term is closed; `steps_total` and `outcome` come from its reduction with the default
    fuel and size cap. Takes 20 to 60 us a row, plus 0.4 s on the first call.

    Args:
        cells: {axis: bin} over the family's `cell_axes`; repeats are allowed.
        seed: 0 <= seed < 2^63.
        first: number of the first row, 0 or more.

    Raises:
        UsageError: a cell holds no closed term (`cell_possible` is false), or is not a cell of the family.
    """
    known, place = _cells()
    labels = [cell_label({axis: cell.get(axis, "") for axis in FAMILY.cell_axes}) for cell in cells]
    wrong = next((label for label in labels if label not in place), None)
    if wrong is not None:
        raise UsageError(f"no closed term lies in cell {wrong}: give a cell that `feedmill coverage gaps` lists")
    chosen = np.array([place[label] for label in labels], dtype=np.int64)
    initial, offsets = sample_cells(known, chosen, seed, first)
    _, _, table = reduce_terms(initial, offsets, DEFAULT_FUEL, DEFAULT_SIZE_CAP, _KEPT)
    table = table[table[:, STEP] == 0]
    redexes = np.ascontiguousarray(table[:, REDEX])
    text, text_offsets, facts = render_terms(initial, offsets, redexes, GLYPHS)

    count = len(labels)
    size = np.diff(offsets).astype(np.int32)
    number = np.arange(first, first + count, dtype=np.int64)
    frame = pl.DataFrame(
        {
            "term": strings_of(text, text_offsets),
            "step_k": np.zeros(count, dtype=np.int32),
            "steps_total": table[:, STEPS_TOTAL],
            "trace_id": pl.select(pl.format("fill-{}-{}", pl.lit(f"{seed:x}"), pl.Series(number))).to_series(),
            "span_start": facts[:, SPAN_START],
            "span_end": facts[:, SPAN_END],
            "outcome": pl.Series(OUTCOMES).gather(table[:, OUTCOME]),
            "size": size,
            "depth": facts[:, DEPTH],
            "initial_size": size,
            "initial_depth": facts[:, DEPTH],
            "redex_depth": pl.Series(facts[:, REDEX_DEPTH]).set(pl.Series(redexes < 0), None),
            "growth": np.ones(count, dtype=np.float32),
            "cycle": pl.Series([None], dtype=pl.Int32).new_from_index(0, count),
            "seed": np.full(count, seed, dtype=np.int64),
            "chunk": number,
            "recipe": pl.Series([RECIPE]).new_from_index(0, count),
        },
        schema=COLUMNS,
    )
    return identify(frame, FAMILY).select(*FAMILY.wire)


def counts_in(cell: Mapping[str, str], exact: Counts) -> tuple[Counts, list[int], int, int]:
    """Return the number of closed terms in a cell by (class, depth, size), with the values of these three indices.

    Args:
        cell: {axis: bin}.
        exact: first result of `count_terms(BY_REDEX, LARGEST_SIZE, DEEPEST)`.

    Returns:
        (counts, the class at each first index, the depth at index 0, the size at index 0).
    """
    smallest, largest = band_range(cell["size"], LARGEST_SIZE)
    shallowest, deepest = band_range(cell["depth_band"], DEEPEST)
    if cell["redex_depth"] == "none":
        classes = [NORMAL]
    else:
        nearest, farthest = band_range(cell["redex_depth"], DEEPEST_REDEX)
        classes = [reducible(depth) for depth in range(nearest, farthest + 1)]
    return exact[classes, shallowest : deepest + 1, 0, smallest : largest + 1], classes, shallowest, smallest


@cache
def _cells() -> tuple[Cells, dict[str, int]]:
    """Return the shapes of every cell that holds a term, and the index of each such cell by its label.

    Takes 0.4 s and 62 MiB, once per process.
    """
    exact, within = count_terms(BY_REDEX, LARGEST_SIZE, DEEPEST)
    shapes, upto, bounds = [np.empty((0, 3), dtype=np.int64)], [np.empty(0)], [0]
    place: dict[str, int] = {}
    for cell in FAMILY.cells():
        counts, classes, shallowest, smallest = counts_in(cell, exact)
        name, depth, nodes = np.nonzero(counts)
        if name.size == 0:
            continue
        place[cell_label(cell)] = len(place)
        shapes.append(np.stack([nodes + smallest, depth + shallowest, np.array(classes)[name]], axis=1))
        upto.append(np.cumsum(np.minimum(counts[name, depth, nodes], _ENOUGH_TERMS)))
        bounds.append(bounds[-1] + name.size)
    every = np.concatenate(shapes), np.concatenate(upto), np.array(bounds, dtype=np.int64)
    return Cells(BY_REDEX, exact, within, *every), place
