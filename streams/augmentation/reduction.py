r"""Augmentation of reductions: the same reduction step inside a larger term.

Half of the copies of a term T are wrapped, half are embedded:

- wrapped: `\.\.\.T`, in 1 to 6 abstractions;
- embedded: `\.0(T)`, as the last argument of a variable under abstractions, 1 to 4 such levels deep. Other arguments
  may come before T, as in `\.\.1(\.0)(\.0(T))`.

The surroundings of T hold no redex, because their heads are variables and their other arguments are normal. They also
never become part of a redex, because T is an argument or the body of an abstraction, never a function. A step inside T
does not change the surroundings: an index that is free in T counts the same abstractions after the step. So normal
order takes exactly the steps that it takes from T. Each term of T's trace, in the same surroundings, is a term of the
larger trace. So `step_k`, `steps_total`, `outcome` and `trace_id` stay correct, and with `trace_id` the split. The
producer's size limits did not count the surroundings.

`initial_size` and `initial_depth` stay those of the generated trace. So quotas on them count each copy of a first step
in the bin of its origin. Their shares hold if all rows are augmented at one rate. `growth` is the new size divided by
that initial size.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from schema.reduction import FAMILY
from schema.reduction.text import facts
from schema.splitmix import mix, nth

Array = npt.NDArray[Any]

# The `recipe` of a copy.
WRAPPED, EMBEDDED = "wrapped", "embedded"
MOST_ABSTRACTIONS = 6
MOST_LEVELS = 4
# Characters; training and evaluation refuse longer terms.
LONGEST = 2048

# Heads of a level as (abstractions, index of the variable that one of them binds). Then the normal arguments that may
# come between head and next level; their only free index is 0.
_HEADS = tuple((abstractions, index) for abstractions in (1, 2, 3) for index in range(abstractions))
_BESIDE = ("", "0", r"(\.0)", r"(\.\.1)", "(00)", r"(\.10)0", r"(\.0)(\.\.0)", r"(\.0(\.1))")

# Bits for one choice: four choices and the number of levels share one word of 64 bits.
_CHOICE_BITS = 14


@dataclass(frozen=True, eq=False)
class Surroundings:
    """The P pieces that can surround a term: the levels of embeddings, the wrappings, and an empty piece.

    Attributes:
        outer: (P,) Utf8, the text before the term, without the term's parenthesis.
        inner: (P,) Utf8, the same text if the piece is itself an argument.
        nodes: (P,) how many nodes the piece adds.
        edges: (P,) how many edges the term moves away from the root.
        deepest: (P,) edges on the longest path through the piece around a term that is a single index.
        levels: how many of the pieces are levels.
    """

    outer: pl.Series
    inner: pl.Series
    nodes: Array
    edges: Array
    deepest: Array
    levels: int


def augment(rows: pl.DataFrame) -> pl.DataFrame:
    """Return an augmented row for each of `rows`, in order; rows whose text would exceed 2,048 characters are left out.

    Args:
        rows: valid rows of the family's wire columns, with their `record` (UInt32) and `copy` (UInt32, the number of
            this copy of its row, from 0). Each result depends only on its row and (`example_id`, `copy`). Of copies 2i
            and 2i + 1 one is wrapped and one embedded, and twelve copies of a row have all six wrappings.

    Returns:
        The wire columns and `record`; `augmented_from` is the origin's id, `example_id` and `split` are null.
    """
    around = _surroundings()
    wrapped, levels, choices = _choose(rows["example_id"].to_numpy(), rows["copy"].to_numpy(), around)
    edges = around.edges[choices]
    above = np.cumsum(edges, axis=0) - edges
    enclosed = ~wrapped & (rows["term"].str.len_bytes() > 1).to_numpy()
    closers = pl.Series([")" * count for count in range(MOST_LEVELS + 1)])
    copies = rows.with_columns(
        _before=pl.select(
            pl.concat_str(
                around.outer.gather(choices[0]),
                *(around.inner.gather(choice) for choice in choices[1:]),
                pl.Series(["", "("]).gather(enclosed.astype(np.int64)),
            )
        ).to_series(),
        _after=closers.gather(levels - 1 + enclosed),
        _edges=pl.Series(edges.sum(axis=0), dtype=pl.Int32),
        _deepest=pl.Series((above + around.deepest[choices]).max(axis=0), dtype=pl.Int32),
        _size=rows["size"] + pl.Series(around.nodes[choices].sum(axis=0), dtype=pl.Int32),
        recipe=pl.Series([EMBEDDED, WRAPPED]).gather(wrapped.astype(np.int64)),
    )
    before = pl.col("_before").str.len_bytes().cast(pl.Int32)
    reducible = pl.col("span_end") > 0
    return (
        copies.with_columns(
            term=pl.concat_str("_before", "term", "_after"),
            span_start=pl.when(reducible).then(pl.col("span_start") + before).otherwise("span_start"),
            span_end=pl.when(reducible).then(pl.col("span_end") + before).otherwise("span_end"),
            size=pl.col("_size"),
            depth=pl.max_horizontal(pl.col("depth") + pl.col("_edges"), "_deepest"),
            redex_depth=pl.col("redex_depth") + pl.col("_edges"),
            growth=(pl.col("_size") / pl.col("initial_size")).cast(pl.Float32),
            augmented_from=pl.col("example_id"),
            example_id=pl.lit(None, dtype=pl.UInt64),
            split=pl.lit(None, dtype=pl.String),
        )
        .filter(pl.col("term").str.len_bytes() <= LONGEST)
        .select(*FAMILY.wire, "record")
    )


@cache
def _surroundings() -> Surroundings:
    levels = [r"\." * abstractions + str(index) + beside for abstractions, index in _HEADS for beside in _BESIDE]
    wraps = [r"\." * abstractions for abstractions in range(1, MOST_ABSTRACTIONS + 1)]
    pieces = [*levels, *wraps, ""]
    # Facts of each piece around the smallest term, `0`, whose own node does not count.
    measured = facts(pl.Series([piece + "0" for piece in pieces]))
    edges = [abstractions + 1 for abstractions, _ in _HEADS for _ in _BESIDE] + list(range(1, MOST_ABSTRACTIONS + 1))
    return Surroundings(
        outer=pl.Series(pieces),
        inner=pl.Series([*("(" + level for level in levels), *wraps, ""]),
        nodes=measured["found_size"].to_numpy() - 1,
        edges=np.array([*edges, 0], dtype=np.int32),
        deepest=measured["found_depth"].to_numpy(),
        levels=len(levels),
    )


def _choose(ids: Array, copies: Array, around: Surroundings) -> tuple[Array, Array, Array]:
    """Return (wrapped, levels, pieces) of N rows: (N,) bool, (N,), and (MOST_LEVELS, N) piece indices, outermost first.

    A row with fewer levels has the empty piece in the remaining places; a wrapping is one level.
    """
    ids, copies = ids.astype(np.uint64), copies.astype(np.uint64)
    row = mix(ids)
    word = nth(row, copies + np.uint64(1))
    wrapped = ((row >> np.uint64(63)) + copies) % np.uint64(2) == 1
    abstractions = (row + copies // np.uint64(2)) % np.uint64(MOST_ABSTRACTIONS)
    levels = np.where(wrapped, 0, word % np.uint64(MOST_LEVELS)).astype(np.int64) + 1
    shifts = np.uint64(64 - MOST_LEVELS * _CHOICE_BITS) + np.arange(MOST_LEVELS, dtype=np.uint64) * np.uint64(
        _CHOICE_BITS
    )
    bits = word >> shifts[:, None] & np.uint64(2**_CHOICE_BITS - 1)
    pieces = (bits % np.uint64(around.levels)).astype(np.int64)
    pieces[np.arange(MOST_LEVELS)[:, None] >= levels] = around.edges.size - 1
    pieces[0, wrapped] = around.levels + abstractions[wrapped].astype(np.int64)
    return wrapped, levels, pieces
