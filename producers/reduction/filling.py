"""Examples for given cells: terms drawn with the size, depth and redex depth that a cell asks for.

Every row is the first step of a trace of its own, really reduced. A cell holds many shapes (nodes, depth, redex depth);
one is drawn, then a term of it, each as likely as any other. A shape with few terms is drawn less often, in proportion
to them, so that every term of a small cell is equally likely. There, repeats are unavoidable: the refine stage drops
them, and `schema.reduction.coverage.cell_room` keeps requests below what such a cell holds.

This module loads compiled code: import it where it is used.
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

# The name of this way of drawing terms, in every row's `recipe`.
RECIPE = "fill-cell"
# The bands without an upper end are filled up to here: well within what a trace may grow to.
LARGEST_SIZE = 249
DEEPEST = 20
# A shape with more terms than this is drawn as often as any other such; no less than a small cell holds in all.
_ENOUGH_TERMS = 1e6
# Of a trace only the first term is used; reducing keeps the last as well.
_KEPT = 2


def fill(cells: Sequence[Mapping[str, str]], seed: int, first: int) -> pl.DataFrame:
    """Return one example for each cell, in order, as an identified frame of the family's wire columns.

    Row i is numbered `first` + i, its `chunk`, and depends on its cell, the seed and that number alone; its trace is
    `fill-<seed>-<number>`. Each term is closed; `steps_total` and `outcome` are those of its reduction with the fuel
    and the size cap that runs have by default. Takes 20 to 60 us a row, and 0.4 s once.

    Args:
        cells: {axis: bin} over the family's `cell_axes`; repeats are allowed.
        seed: 0 <= seed < 2^63.
        first: number of the first row, 0 or more.

    Raises:
        UsageError: no closed term lies in a cell (`cell_possible` is false), or it is no cell.
    """
    known, place = _cells()
    labels = [cell_label({axis: cell.get(axis, "") for axis in FAMILY.cell_axes}) for cell in cells]
    wrong = next((label for label in labels if label not in place), None)
    if wrong is not None:
        raise UsageError(f"no closed term lies in cell {wrong}: ask only for cells that `feedmill coverage gaps` names")
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
    """Return how many closed terms a cell holds, by (class, depth, size), and which those of index 0 are.

    Args:
        cell: {axis: bin}.
        exact: of `count_terms(BY_REDEX, LARGEST_SIZE, DEEPEST)`.

    Returns:
        (counts, the class of each index, the first depth, the first size).
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
    """Return what may be drawn for every cell that has any terms, and each such cell's place by label.

    Takes 0.4 s and 62 MiB, once.
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
