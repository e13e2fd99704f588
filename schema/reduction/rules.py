"""The rules for a valid reduction row; a rule's name is the reason code of rows that break it.

The rules compare a row with facts (`found_*`, `well_formed`) that compiled code recomputes from the term's text. So a
producer's span is never accepted unchecked.
"""

from __future__ import annotations

import dataframely as dy
import polars as pl

from schema.family import Example
from schema.reduction.columns import OUTCOMES


def derive(frame: pl.DataFrame) -> pl.DataFrame:
    """Return `frame` with the recomputed facts as columns; a missing size, depth or redex depth is filled from them."""
    # Importing the compiler takes a second. Commands that only name the family do not wait for it.
    from schema.reduction.text import facts

    return frame.hstack(facts(frame["term"])).with_columns(
        size=pl.coalesce("size", "found_size"),
        depth=pl.coalesce("depth", "found_depth"),
        redex_depth=pl.coalesce("redex_depth", "found_redex_depth"),
    )


def _is_marker() -> pl.Expr:
    return (pl.col("span_start") == 0) & (pl.col("span_end") == 0)


def _is_last() -> pl.Expr:
    return pl.col("step_k") == pl.col("steps_total")


class Reduction(Example):
    """The rules of one reduction step."""

    term = dy.String(nullable=False)
    step_k = dy.Int32(nullable=False, min=0)
    steps_total = dy.Int32(nullable=False, min=0)
    trace_id = dy.String(nullable=False)
    span_start = dy.Int32(nullable=False)
    span_end = dy.Int32(nullable=False)
    outcome = dy.String(nullable=False)
    size = dy.Int32(nullable=True)
    depth = dy.Int32(nullable=True)
    initial_size = dy.Int32(nullable=True, min=1)
    initial_depth = dy.Int32(nullable=True, min=0)
    redex_depth = dy.Int32(nullable=True)
    growth = dy.Float32(nullable=True)
    cycle = dy.Int32(nullable=True)
    seed = dy.Int64(nullable=True)
    chunk = dy.Int64(nullable=True)
    recipe = dy.String(nullable=True)

    # Recomputed by `derive`; never in a record.
    well_formed = dy.Bool(nullable=False)
    found_start = dy.Int32(nullable=False)
    found_end = dy.Int32(nullable=False)
    found_redex_depth = dy.Int32(nullable=True)
    found_size = dy.Int32(nullable=False)
    found_depth = dy.Int32(nullable=False)
    found_leading = dy.Int32(nullable=False)

    @dy.rule()
    def term_malformed(cls) -> pl.Expr:
        """The term follows the grammar of `schema.reduction.text`, with no parenthesis too many or too few."""
        return pl.col("well_formed")

    @dy.rule()
    def step_beyond_total(cls) -> pl.Expr:
        """The step is at most the number of steps in the trace."""
        return pl.col("step_k") <= pl.col("steps_total")

    @dy.rule()
    def outcome_unknown(cls) -> pl.Expr:
        """The outcome is one of `OUTCOMES`."""
        return pl.col("outcome").is_in(OUTCOMES)

    @dy.rule()
    def span_disordered(cls) -> pl.Expr:
        """0 <= start < end, or the span is the normal-form marker (0, 0)."""
        return _is_marker() | ((pl.col("span_start") >= 0) & (pl.col("span_start") < pl.col("span_end")))

    @dy.rule()
    def span_outside_term(cls) -> pl.Expr:
        """The span ends inside its term (Unicode characters, not bytes)."""
        return pl.col("span_end").cast(pl.Int64) <= pl.col("term").str.len_chars().cast(pl.Int64)

    @dy.rule()
    def nf_marker_mid_trace(cls) -> pl.Expr:
        """The row has no marker, or it is the last step."""
        return ~_is_marker() | _is_last()

    @dy.rule()
    def nf_marker_missing(cls) -> pl.Expr:
        """The last step has the marker."""
        return _is_marker() | ~_is_last()

    @dy.rule()
    def nf_marker_without_normal_form(cls) -> pl.Expr:
        """A row with the marker has the outcome `normal_form`."""
        return ~_is_marker() | (pl.col("outcome") == "normal_form")

    @dy.rule()
    def nf_marker_on_reducible_term(cls) -> pl.Expr:
        """A term with the marker has no redex."""
        return ~_is_marker() | ~pl.col("well_formed") | (pl.col("found_end") == 0)

    @dy.rule()
    def span_not_leftmost_outermost(cls) -> pl.Expr:
        """The span is the leftmost-outermost redex of its term, or the marker."""
        same = (pl.col("span_start") == pl.col("found_start")) & (pl.col("span_end") == pl.col("found_end"))
        return _is_marker() | ~pl.col("well_formed") | same

    @dy.rule()
    def size_mismatch(cls) -> pl.Expr:
        """The size is the number of nodes of the term."""
        return ~pl.col("well_formed") | (pl.col("size") == pl.col("found_size"))

    @dy.rule()
    def depth_mismatch(cls) -> pl.Expr:
        """The depth is the number of edges on the term's longest path."""
        return ~pl.col("well_formed") | (pl.col("depth") == pl.col("found_depth"))

    @dy.rule()
    def redex_depth_mismatch(cls) -> pl.Expr:
        """The redex depth is the number of edges from the root to the redex, or null without a redex."""
        return ~pl.col("well_formed") | pl.col("redex_depth").eq_missing(pl.col("found_redex_depth"))
