"""Documents as a language model learns them: a prompt, which is given, and a target, which is learned, then an end.

A file is all target. A completion has its own prompt, and the rest of its text is the target. A change of a git history
has the message and the file before it as the prompt, and the file after it as the target:

::

    Fix the rounding of negative numbers

    --- src/round.py
    (the file before)
    +++ src/round.py
    (the file after)
"""

from __future__ import annotations

import polars as pl

from schema.source_code.columns import COMPLETION, EVOLUTION

COLUMNS = ("text", "kind", "path", "message", "before", "after", "prompt")


def prompts_and_targets(rows: pl.DataFrame) -> pl.DataFrame:
    r"""Return each document's `prompt` and `target` (String, never null).

    >>> rows = pl.DataFrame({"text": ["Fix it\n\n--- a"], "kind": ["evolution"], "path": ["a.py"],
    ...                      "message": ["Fix it"], "before": ["x = 0\n"], "after": ["x = 1\n"], "prompt": [None]})
    >>> prompts_and_targets(rows).row(0)
    ('Fix it\n\n--- a.py\nx = 0\n+++ a.py\n', 'x = 1\n')

    Args:
        rows: with `COLUMNS`.
    """
    changed, completed = pl.col("kind") == EVOLUTION, pl.col("kind") == COMPLETION
    change = change_prompt(pl.col("message"), pl.col("path"), pl.col("before"))
    prompt = pl.when(changed).then(change).when(completed).then("prompt").otherwise(pl.lit("")).fill_null("")
    completion = pl.col("text").str.strip_prefix(pl.col("prompt"))
    target = pl.when(changed).then("after").when(completed).then(completion).otherwise("text").fill_null("")
    return rows.select(prompt=prompt, target=target)


def change_prompt(message: pl.Expr, path: pl.Expr, before: pl.Expr) -> pl.Expr:
    """Return the prompt of a change: a model continues it with the file after the change."""
    ended = pl.when(before.str.ends_with("\n") | (before == "")).then(before).otherwise(before + "\n")
    return pl.format("{}\n\n--- {}\n{}+++ {}\n", message, path, ended, path)
