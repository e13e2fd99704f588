"""Row filters as Polars expressions, kept as text: what a feed was told to leave out stands in its state and manifest.

A state and a manifest are files that anyone may have written, so an expression read from one is let through only if it
is made of known parts that judge each row by itself: no Python, no plug-ins, no aggregates, no windows.
"""

from __future__ import annotations

import io
import json
from collections.abc import Collection, Iterator
from typing import Any

import polars as pl

from schema.errors import UsageError

_NODES = {"Column", "Literal", "BinaryExpr", "Cast", "Ternary", "Alias", "Function"}
_FUNCTIONS = {"Boolean", "StringExpr", "Sql", "Abs", "Negate", "Pow", "Sign", "FillNull", "Coalesce"}
# Boolean functions of polars whose answer for a row depends on other rows.
_OF_MANY_ROWS = {"Any", "All", "IsUnique", "IsDuplicated", "IsFirstDistinct", "IsLastDistinct"}


def predicate_text(where: pl.Expr | str, columns: Collection[str]) -> str:
    """Return the canonical text of a filter: Polars' own JSON of the expression.

    Args:
        where: an expression that is true for the rows to keep, or SQL for one, e.g. `size > 40 AND depth <= 9`.
        columns: the columns it may name.

    Raises:
        UsageError: it is no expression, names another column, or judges a row by more than its own columns.
    """
    try:
        expression = pl.sql_expr(where) if isinstance(where, str) else where
        text = expression.meta.serialize(format="json")
    except Exception as error:
        # Polars has an exception of its own for every kind of text that it cannot read.
        raise UsageError(f"the filter cannot be read ({error}): give a Polars expression over columns") from None
    unknown = sorted(set(expression.meta.root_names()) - set(columns))
    if unknown:
        raise UsageError(f"the filter names {unknown[0]!r}: use the columns {', '.join(columns)}")
    read_predicate(text)
    return text


def read_predicate(text: str) -> pl.Expr:
    """Return the expression of a text that `predicate_text` made.

    Raises:
        UsageError: the text is none, or holds a part that is not allowed.
    """
    try:
        foreign = next(_foreign_parts(json.loads(text)), None)
        if foreign is None:
            return pl.Expr.deserialize(io.StringIO(text), format="json")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, pl.exceptions.PolarsError) as error:
        raise UsageError(f"the filter's text is damaged ({error}): give the filter anew") from None
    raise UsageError(
        f"the filter holds {foreign}: a feed's filter judges each row by its own columns, with comparisons, "
        "arithmetic, `is_in` and string functions"
    )


def _foreign_parts(tree: Any) -> Iterator[str]:
    """Yield the name of each part of an expression's JSON that is not allowed."""
    if not isinstance(tree, dict) or len(tree) != 1:
        yield "something unknown"
        return
    [(node, content)] = tree.items()
    if node not in _NODES:
        yield node
    elif node == "Function":
        yield from _foreign_function(content["function"])
        for argument in content["input"]:
            yield from _foreign_parts(argument)
    elif node == "Alias":
        yield from _foreign_parts(content[0])
    elif node in ("BinaryExpr", "Cast", "Ternary"):
        for part, value in content.items():
            if part in ("left", "right", "expr", "predicate", "truthy", "falsy"):
                yield from _foreign_parts(value)


def _foreign_function(function: Any) -> Iterator[str]:
    name, detail = (function, None) if isinstance(function, str) else next(iter(function.items()))
    inner = next(iter(detail), None) if isinstance(detail, dict) else detail
    if name not in _FUNCTIONS:
        yield name
    elif inner in _OF_MANY_ROWS:
        yield str(inner)
