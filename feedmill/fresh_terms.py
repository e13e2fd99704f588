"""Terms that a model has never seen: generated anew, less those of its training set.

They come as two sets. `rows` is what the producer makes, every term once: exact spans are measured on it. `starts` are
terms to reduce to the end: initial terms of the producer, which have 40 to 200 nodes, and reducible terms from the
middle of other traces, at most one of each, for the size bands that initial terms leave thin.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import polars as pl

from consumers.reduction.metrics import SIZE_BANDS
from producers.reduction.run import ReductionRun, generate
from schema.errors import UsageError

# Every size band gets at least this part as many traces as there are initial terms.
_BAND_PART = 1 / 3
# Rows to generate at most: enough for the rarest band, and many times what is wanted. Past that, hardly a term is new.
_MOST_ROWS = 500_000
_MOST_TIMES = 20
_ROWS_PER_TRACE = 14


@dataclass(frozen=True, eq=False)
class FreshTerms:
    """What was drawn.

    Attributes:
        rows: the wanted rows, as the producer makes them.
        starts: such rows too, and `mid_trace`, whether the term is from the middle of a trace.
        generated: rows made, of which
        dropped: held a term of the training set, and
        repeated: the term of an earlier row.
    """

    rows: pl.DataFrame
    starts: pl.DataFrame
    generated: int
    dropped: int
    repeated: int


def draw(run: ReductionRun, initial: int, known: npt.NDArray[np.uint64]) -> FreshTerms:
    """Generate `run.count` rows, and beside them `initial` initial terms with what the size bands lack.

    Args:
        run: depends on the seed, the fuel and the size cap as always; more rows are made until there are enough.
        initial: terms.
        known: the training set's `example_id`s, (N,), ascending.

    Raises:
        UsageError: too few of the terms generated are new.
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
            f"of {generated:,} terms generated from seed {run.seed} {dropped:,} are in the training set, and too few "
            "are left: give another --seed"
        )
    return FreshTerms(fresh.head(run.count), starts, generated, dropped, generated - dropped - fresh.height)


def _starts(fresh: pl.DataFrame, initial: int) -> tuple[pl.DataFrame, bool]:
    """Return terms to reduce to the end, and whether there are enough of them in every size band."""
    begun = fresh.filter(step_k=0).head(initial)
    parts = [begun.with_columns(mid_trace=pl.lit(False))]
    enough = begun.height == initial
    # By their hashes, terms stand in an order that has nothing to do with where they come from.
    others = fresh.filter(pl.col("step_k") > 0, pl.col("span_end") > 0).sort("example_id")
    others = others.join(begun, on="trace_id", how="anti", maintain_order="left")
    present = np.bincount(_size_band(begun), minlength=len(SIZE_BANDS.names))
    for band, there in enumerate(present.tolist()):
        wanted = max(0, round(_BAND_PART * initial) - there)
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
    found: npt.NDArray[np.bool_] = known[places] == ids
    return found
