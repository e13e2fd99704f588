"""The complexity of a document and the phase of the curriculum that it belongs to, as Polars expressions.

The edges between phases are the terciles of complexity that `python -m bench.phase_edges` measured, without tests:

- Python: 736 files of the standard library of Python 3.11.7;
- Rust: 201 files of syn 2.0.119, itertools 0.13.0, hashbrown 0.14.5, anyhow 1.0.86, smallvec 1.13.2, thiserror 1.0.61,
  semver 1.0.23, arrayvec 0.7.4 and bitflags 2.6.0;
- other languages: the mean of both.
"""

from __future__ import annotations

import polars as pl

PHASES = (1, 2, 3)
# Points for a document that the repository is about, and for one that is no test.
_CORE_POINTS = 1.0
_NOT_TEST_POINTS = 1.0
# Logarithms may differ in the last bit between machines, and a phase must not.
_DECIMALS = 3
# (the last complexity of phase 1, the last of phase 2), by language.
PHASE_EDGES: dict[str, tuple[float, float]] = {"python": (12.45, 19.4), "rust": (12.85, 18.51)}
OTHER_EDGES = (12.65, 18.95)


def complexity_of(lines: pl.Expr, nesting: pl.Expr, branches: pl.Expr, role: pl.Expr) -> pl.Expr:
    """Return the complexity: log2(1 + lines) + nesting + log2(1 + branches), + 1 if core, + 1 if no test (Float64).

    Logarithms, because a file of 2,000 lines is not ten times as hard as one of 200.
    """
    core = pl.when(role == "core").then(_CORE_POINTS).otherwise(0.0)
    no_test = pl.when(role == "tests").then(0.0).otherwise(_NOT_TEST_POINTS)
    return ((1.0 + lines).log(2) + nesting + (1.0 + branches).log(2) + core + no_test).round(_DECIMALS)


def phase_of(complexity: pl.Expr, language: pl.Expr) -> pl.Expr:
    """Return the phase of a complexity (Int32): 1 up to the language's first edge, 3 above its second."""
    first, second = (
        language.replace_strict(
            {name: edges[place] for name, edges in PHASE_EDGES.items()},
            default=OTHER_EDGES[place],
            return_dtype=pl.Float64,
        )
        for place in (0, 1)
    )
    return (1 + (complexity > first).cast(pl.Int32) + (complexity > second).cast(pl.Int32)).cast(pl.Int32)
