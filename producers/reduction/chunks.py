"""Make chunks of a run as frames: sample terms, reduce them, render their text and build the columns.

A chunk is `TRACES_PER_CHUNK` traces of one cycle. It depends only on the seed, the chunk number and the run's
parameters. Many chunks are made per call, because one call of compiled code or Polars costs as much as hundreds of
rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from producers.reduction.recipe import CYCLES, RECIPE, SHAPES, TRACES_PER_CHUNK
from producers.reduction.reducing import OUTCOME, REDEX, STEP, STEPS_TOTAL, TRACE, reduce_terms
from producers.reduction.rendering import DEPTH, GLYPHS, REDEX_DEPTH, SPAN_END, SPAN_START, render_terms
from producers.reduction.sampling import sample_chunks
from schema.buffers import strings_of
from schema.family import identify
from schema.reduction import FAMILY
from schema.reduction.columns import COLUMNS, OUTCOMES

if TYPE_CHECKING:
    from producers.reduction.run import ReductionRun

Array = npt.NDArray[Any]


def make_chunks(run: ReductionRun, first: int, chunks: int) -> pl.DataFrame:
    """Return the examples of chunks first..first + chunks - 1, in order, as a frame of the family's wire columns."""
    initial, initial_offsets = sample_chunks(SHAPES, run.seed, first, chunks, TRACES_PER_CHUNK)
    tokens, offsets, table = reduce_terms(initial, initial_offsets, run.fuel, run.size_cap, run.examples_per_trace)
    redexes = np.ascontiguousarray(table[:, REDEX])
    text, text_offsets, facts = render_terms(tokens, offsets, redexes, GLYPHS)

    trace = table[:, TRACE]
    chunk = first + trace // TRACES_PER_CHUNK
    size = np.diff(offsets).astype(np.int32)
    initial_size = np.diff(initial_offsets).astype(np.int32)[trace]
    cycle = (chunk % CYCLES).astype(np.int32)
    frame = pl.DataFrame(
        {
            "term": strings_of(text, text_offsets),
            "step_k": table[:, STEP],
            "steps_total": table[:, STEPS_TOTAL],
            "trace_id": _trace_ids(run.seed, first, chunks).gather(trace),
            "span_start": facts[:, SPAN_START],
            "span_end": facts[:, SPAN_END],
            "outcome": pl.Series(OUTCOMES).gather(table[:, OUTCOME]),
            "size": size,
            "depth": facts[:, DEPTH],
            "initial_size": initial_size,
            "initial_depth": SHAPES[:, 0].astype(np.int32)[cycle],
            "redex_depth": pl.Series(facts[:, REDEX_DEPTH]).set(pl.Series(redexes < 0), None),
            "growth": (size / initial_size).astype(np.float32),
            "cycle": cycle,
            "seed": np.full(len(table), run.seed, dtype=np.int64),
            "chunk": chunk.astype(np.int64),
            "recipe": pl.Series([RECIPE]).new_from_index(0, len(table)),
        },
        schema=COLUMNS,
    )
    return identify(frame, FAMILY).select(*FAMILY.wire)


def _trace_ids(seed: int, first: int, chunks: int) -> pl.Series:
    """Return the ids of all traces of these chunks, in order: `<seed in hex>-<chunk>-<trace within the chunk>`."""
    trace = pl.int_range(chunks * TRACES_PER_CHUNK, eager=True)
    return pl.select(
        pl.format("{}-{}-{}", pl.lit(f"{seed:x}"), first + trace // TRACES_PER_CHUNK, trace % TRACES_PER_CHUNK)
    ).to_series()
