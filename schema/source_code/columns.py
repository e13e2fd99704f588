"""The code family's columns. The JSON form of a row is flat: one key for each column.

One row is a document: a source file, an augmentation of a source file, an evolution (one change of a file in a git
history), or a completion (a prompt and the code that completes it). The columns from `role` to `parses` are computed
from the others (`schema.source_code.scores`).
"""

from __future__ import annotations

import polars as pl

SNAPSHOT, EVOLUTION, COMPLETION = "snapshot", "evolution", "completion"
# What an augmentation does to a snapshot; such a row has `augmented_from`.
AUGMENTED_KINDS = ("renamed", "comments", "reformatted")
KINDS = (SNAPSHOT, *AUGMENTED_KINDS, EVOLUTION, COMPLETION)
# The origin of completions that a model wrote, and that compiler and linter judged good (`feedmill iterate`).
EXPERT = "expert"
# Every row of the kind evolution has these columns, and no other row has one.
EVOLUTION_COLUMNS = ("before", "after", "diff", "message", "author_date")

COLUMNS: dict[str, pl.DataType] = {
    # The whole file. Of an evolution: message, a blank line, and the unified diff. Of a completion: also its prompt.
    "text": pl.String(),
    "language": pl.String(),  # one of `languages.LANGUAGES`
    "repository": pl.String(),  # name of the repository, crate or package
    "commit": pl.String(),  # id of the snapshot's or the evolution's commit
    "path": pl.String(),  # inside the repository, with `/`
    "license": pl.String(),  # SPDX id or name, if a file of the repository gives it
    "kind": pl.String(),  # one of `KINDS`
    "role": pl.String(),  # one of `roles.ROLES`
    "weight": pl.Float64(),  # mean number of passes over the document in an epoch, by its role or an expert's scores
    "characters": pl.Int32(),  # of `text`
    "lines": pl.Int32(),  # of `text`
    "idiomatic": pl.Int32(),  # different idiomatic patterns that occur, 0 to 8
    "idiomatic_score": pl.Float64(),  # idiomatic / 8
    "low_quality": pl.Int32(),  # different low-quality marks that occur
    "documented": pl.Boolean(),  # whether the code has a doc comment or docstring
    "complexity": pl.Float64(),  # from length, nesting, branches and role: `complexity.complexity_of`
    "nesting": pl.Int32(),  # most blocks within one another
    "branches": pl.Int32(),  # places where the code decides
    "phase": pl.Int32(),  # of the curriculum: 1 (simple), 2 or 3
    "parses": pl.Boolean(),  # whether the syntax tree is free of errors; true for a language without grammar
    "before": pl.String(),  # the file before the commit; empty for a new file
    "after": pl.String(),  # the file after the commit
    "diff": pl.String(),  # unified diff from `before` to `after`
    "message": pl.String(),  # the commit's message
    "author_date": pl.String(),  # ISO 8601 in UTC, e.g. "2024-05-06T07:08:09Z"
    "signatures": pl.String(),  # signatures of what the file imports from its own repository
    "prompt": pl.String(),  # of every completion and of no other row: the beginning of `text`, which a model is given
    "origin": pl.String(),  # `EXPERT`, or missing: people wrote the code
    "lint_warnings": pl.Int32(),  # of an expert's row: the warnings of clippy or ruff
    "group": pl.String(),  # rows with the same group are all in the same split
}

# The columns that `scores.scored` computes.
COMPUTED = (
    *("role", "weight", "characters", "lines", "idiomatic", "idiomatic_score", "low_quality", "documented"),
    *("complexity", "nesting", "branches", "phase", "parses"),
)


def evolution_text(message: pl.Expr, diff: pl.Expr) -> pl.Expr:
    """Return an expression for the text of an evolution: its message, a blank line, and its diff.

    >>> frame = pl.DataFrame({"message": ["Fix it"], "diff": ["--- a/x.py\\n"]})
    >>> frame.select(evolution_text(pl.col("message"), pl.col("diff"))).item()
    'Fix it\\n\\n--- a/x.py\\n'
    """
    return pl.concat_str(message, diff, separator="\n\n")
