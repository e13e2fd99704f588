"""Generates terms for an evaluation, and drops those that are in the training set of the model.

There are two sets. `rows` are rows as the producer makes them, each term once; exact spans are measured on them.
`starts` are terms to reduce to the end. They begin with initial terms of the producer, which have 40 to 200 nodes. Size
bands with few initial terms are filled up with reducible terms from the middle of other traces, one per trace.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import polars as pl

from consumers.reduction.metrics import SIZE_BANDS
from producers.reduction.run import ReductionRun
from producers.run import generate
from schema.errors import UsageError

# Traces in each size band, at least, as a fraction of the number of initial terms.
_BAND_PART = 1 / 3
# Rows to generate at most: enough for the rarest band, plus many times the rows wanted. Few later terms are new.
_MOST_ROWS = 500_000
_MOST_TIMES = 20
_ROWS_PER_TRACE = 14


@dataclass(frozen=True, eq=False)
class FreshTerms:
    """Fresh terms, and how many generated rows were left out.

    Attributes:
        rows: the wanted rows, as the producer makes them.
        starts: such rows to reduce to the end; `mid_trace` is true for a term from the middle of a trace.
        generated: number of rows generated.
        dropped: rows left out because their term is in the training set.
        repeated: rows left out because an earlier row has the same term.
    """

    rows: pl.DataFrame
    starts: pl.DataFrame
    generated: int
    dropped: int
    repeated: int


def draw(run: ReductionRun, initial: int, known: npt.NDArray[np.uint64]) -> FreshTerms:
    """Generate `run.count` fresh rows and `initial` initial terms, and fill up the size bands.

    Args:
        run: the seed, the fuel and the size cap; rows are generated until there are enough fresh ones.
        initial: number of initial terms.
        known: the training set's `example_id`s, (N,), ascending.

    Raises:
        UsageError: too few generated terms are new.
    """
    fresh, generated, dropped = pl.DataFrame(), 0, 0
    starts, enough = fresh, False
    most = _MOST_ROWS + _MOST_TIMES * (run.count + _ROWS_PER_TRACE * initial)
    for frame in generate(replace(run, count=most)):
        new = frame.filter(~pl.Series(_among(frame["example_id"].to_numpy(), known)))
        generated, dropped = generated + frame.height, dropped + frame.height - new.height
        fresh = pl.concat([fresh, new]).unique("example_id", keep="first", maintain_order=True)
        starts, enough = _starts(fresh, initial)
        if enough and fresh.height >= run.count:
            break
    if fresh.height < run.count or (~starts["mid_trace"]).sum() < initial:
        raise UsageError(
            f"of {generated:,} terms generated from seed {run.seed}, {dropped:,} are in the training set, and too few "
            "are left: give another --seed"
        )
    return FreshTerms(fresh.head(run.count), starts, generated, dropped, generated - dropped - fresh.height)


def _starts(fresh: pl.DataFrame, initial: int) -> tuple[pl.DataFrame, bool]:
    """Return terms to reduce to the end, and whether there are enough of them in every size band."""
    begun = fresh.filter(step_k=0).head(initial)
    parts = [begun.with_columns(mid_trace=pl.lit(False))]
    enough = begun.height == initial
    # The ids are hashes, so this order is independent of the traces.
    others = fresh.filter(pl.col("step_k") > 0, pl.col("span_end") > 0).sort("example_id")
    others = others.join(begun, on="trace_id", how="anti", maintain_order="left")
    present = np.bincount(_size_band(begun), minlength=len(SIZE_BANDS.names))
    for band, count in enumerate(present.tolist()):
        wanted = max(0, round(_BAND_PART * initial) - count)
        inside = others.filter(pl.Series(_size_band(others) == band))
        chosen = inside.unique("trace_id", keep="first", maintain_order=True).head(wanted)
        parts.append(chosen.with_columns(mid_trace=pl.lit(True)))
        others = others.join(chosen, on="trace_id", how="anti", maintain_order="left")
        enough &= chosen.height == wanted
    return pl.concat(parts), enough


def _size_band(rows: pl.DataFrame) -> npt.NDArray[np.int64]:
    return np.searchsorted(SIZE_BANDS.edges, rows["size"].to_numpy(), side="right")


def _among(ids: npt.NDArray[np.uint64], known: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
    """Return which of `ids` (N,) are in `known`, ascending."""
    if not len(known):
        return np.zeros(len(ids), dtype=np.bool_)
    places = np.searchsorted(known, ids).clip(max=len(known) - 1)
    is_known: npt.NDArray[np.bool_] = known[places] == ids
    return is_known
