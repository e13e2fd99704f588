"""The computed columns of a document: role, weight, sizes, marks on its syntax tree, complexity and phase.

The producer and the refine workers call the same function, so a row that states other values is found.
"""

from __future__ import annotations

import polars as pl

from schema.source_code.columns import COLUMNS, COMPUTED, EVOLUTION, EXPERT
from schema.source_code.complexity import complexity_of, phase_of
from schema.source_code.isolated_marks import isolated_marks
from schema.source_code.marks import PATTERNS_EACH
from schema.source_code.roles import role_expression, weight_expression
from schema.source_code.syntax_marks import Marks


def _lines(column: str) -> pl.Expr:
    """Return the number of lines of a text; the last needs no line feed."""
    text = pl.col(column)
    return text.str.count_matches("\n", literal=True) + ((text != "") & ~text.str.ends_with("\n"))


def expert_weight() -> pl.Expr:
    """Return an expert's weight, 0 to 1: 0.4 for few warnings, 0.4 for idiomatic code, 0.2 for documented code.

    W warnings give 1 / (1 + W) of their part.
    """
    few_warnings = 1.0 / (1 + pl.col("lint_warnings").clip(0))
    return 0.4 * few_warnings + 0.4 * pl.col("idiomatic_score") + 0.2 * pl.col("documented")


def computed(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the `COMPUTED` columns of a frame with text, language, path and kind.

    It also reads `after`, if the frame has evolutions, and `origin` and `lint_warnings`, if it has an expert's rows.

    The marks and the complexity of an evolution are those of the file after it. A column is null if a column that it is
    computed from is null.
    """
    after, origin, warnings = (
        pl.col(name) if name in frame.columns else pl.lit(None, dtype=COLUMNS[name]).alias(name)
        for name in ("after", "origin", "lint_warnings")
    )
    facts = frame.select(
        "text",
        "language",
        origin,
        warnings,
        role=role_expression(pl.col("path"), pl.col("language")),
        source=pl.when(pl.col("kind") == EVOLUTION).then(after).otherwise("text"),
    )
    sources = facts["source"].fill_null("").cast(pl.Binary).to_list()
    marks = isolated_marks(zip(sources, facts["language"].to_list(), strict=True))
    types = {name: COLUMNS[name] for name in Marks._fields}
    complexity = complexity_of(_lines("source"), pl.col("nesting"), pl.col("branches"), pl.col("role"))
    is_known = pl.col("source").is_not_null() & pl.col("language").is_not_null()
    return (
        facts.hstack(pl.DataFrame(marks, schema=types, orient="row"))
        .with_columns(pl.when(is_known).then(pl.col(name)).alias(name) for name in types)
        .with_columns(
            characters=pl.col("text").str.len_chars(),
            lines=_lines("text"),
            idiomatic_score=pl.col("idiomatic") / PATTERNS_EACH,
            complexity=complexity,
        )
        .with_columns(
            weight=pl.when(pl.col("origin") == EXPERT)
            .then(expert_weight())
            .otherwise(weight_expression(pl.col("role"))),
            phase=phase_of(pl.col("complexity"), pl.col("language")),
        )
        .select(pl.col(name).cast(COLUMNS[name]) for name in COMPUTED)
    )


def scored(frame: pl.DataFrame) -> pl.DataFrame:
    """Return `frame`, which has the columns that `computed` reads, with all computed columns, whatever they were.

    Example::

        scored(pl.DataFrame({"text": ["x = 1\\n"], "language": "python", "path": "x.py", "kind": "snapshot"}))
    """
    return frame.with_columns(computed(frame))
