"""A row filter given as text by a user: one SQL boolean expression over named columns, judged by DuckDB in memory.

The text is untrusted. It runs in a database of its own with no access to files, network or extensions and with its
configuration locked, and before it runs at all its syntax tree must be that of a lone WHERE expression, free of
subqueries, and of functions that are not pure: the same rows give the same answer at any time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any

import duckdb
import polars as pl

from schema.errors import ReplayError

# A filter holds one group of rows and a few vectors; a runaway expression ends here and not in the machine's swap.
_MEMORY_LIMIT = "1GB"
_OPTIONS: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    # One thread keeps rows in their order.
    "threads": "1",
    "memory_limit": _MEMORY_LIMIT,
    "temp_directory": "",
}
_LOCKS = ("SET python_enable_replacements = false", "SET lock_configuration = true")
# The line break after the expression ends a comment in it.
_SHAPE = "SELECT 1 FROM rows WHERE (\n{}\n)"
_TYPE = "DESCRIBE SELECT (\n{}\n) AS kept FROM rows"
_KEPT = "SELECT coalesce((\n{}\n), false) AS kept FROM rows"
# DuckDB calls these pure; what they return depends on the moment, the build or a column's text taken as SQL.
_IMPURE = {
    "age",
    "current_localtime",
    "current_localtimestamp",
    "version",
    "json_serialize_plan",
    "json_deserialize_sql",
}
# Macros are refused for what they may stand for; these stand for pure functions.
_PURE_MACROS = {"nullif", "split_part"}


class RowFilter:
    """Tells which rows of a frame satisfy an expression; a context manager, for it holds a database.

    Args:
        expression: an SQL boolean expression, e.g. `size > 40 AND outcome = 'normal_form'`.
        columns: the columns it may name.

    Raises:
        ReplayError: it is not one, names something else, or asks for more than a filter may; the line holds DuckDB's
            reason and the columns there are.
    """

    def __init__(self, expression: str, columns: Mapping[str, pl.DataType]) -> None:
        self._expression = expression
        self._columns = columns
        self._database = duckdb.connect(":memory:", config=_OPTIONS)
        try:
            for lock in _LOCKS:
                self._database.execute(lock)
            self._check_shape()
            self._check_type()
        except BaseException:
            self._database.close()
            raise

    def __enter__(self) -> RowFilter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()

    def mask(self, frame: pl.DataFrame) -> pl.Series:
        """Return whether each row satisfies the expression (Boolean, never null: unknown is no).

        Raises:
            ReplayError: a row's value makes the expression fail.
        """
        self._database.register("rows", frame.to_arrow())
        kept = self._run(_KEPT.format(self._expression)).fetchnumpy()["kept"]
        self._database.unregister("rows")
        return pl.Series("kept", kept, dtype=pl.Boolean)

    def _check_shape(self) -> None:
        if not self._expression.strip():
            raise self._refusal("it is empty")
        tree = self._tree(_SHAPE.format(self._expression))
        condition = _take_condition(tree)
        bare = self._tree(_SHAPE.format("true"))
        _take_condition(bare)
        if tree != bare:
            raise self._refusal("it is not one plain condition")
        pure = self._pure_functions()
        known = {name.lower() for name in self._columns} | set(_lambda_parameters(condition))
        for node in _nodes(condition):
            match node.get("class"):
                case "SUBQUERY" | "WINDOW" | "STAR" as kind:
                    raise self._refusal(f"it holds a {kind.lower()}, which looks beyond the row or column")
                case "FUNCTION" if node["function_name"].lower() not in pure:
                    raise self._refusal(
                        f"the function {node['function_name']} is not one that depends on the row alone"
                    )
                # A name that is no column may still mean something, such as CURRENT_DATE.
                case "COLUMN_REF" if _column(node) not in known:
                    raise self._refusal(f"there is no column {'.'.join(node['column_names'])}")

    def _check_type(self) -> None:
        self._database.register("rows", pl.DataFrame(schema=dict(self._columns)).to_arrow())
        ((_, kind, *_),) = self._run(_TYPE.format(self._expression)).fetchall()
        self._database.unregister("rows")
        if kind != "BOOLEAN":
            raise self._refusal(f"it gives {kind} and not BOOLEAN")

    def _tree(self, statement: str) -> dict[str, Any]:
        """Return the statement's syntax tree without what only says where in the text a node stood."""
        row = self._run("SELECT json_serialize_sql(?)", [statement]).fetchone()
        tree: dict[str, Any] = json.loads(row[0] if row else "{}")
        if tree.get("error", True):
            raise self._refusal(tree.get("error_message", "it is not SQL"))
        for node in _nodes(tree):
            for name in [name for name in node if name.startswith("query_location")]:
                del node[name]
        return tree

    def _pure_functions(self) -> set[str]:
        rows = self._run(
            "SELECT function_name FROM duckdb_functions() GROUP BY ALL "
            "HAVING bool_and(function_type = 'scalar' AND stability = 'CONSISTENT')"
        ).fetchall()
        return ({name.lower() for (name,) in rows} - _IMPURE) | _PURE_MACROS

    def _run(self, statement: str, values: list[str] | None = None) -> duckdb.DuckDBPyConnection:
        try:
            return self._database.execute(statement, values)
        except duckdb.Error as error:
            raise self._refusal(str(error)) from None

    def _refusal(self, reason: str) -> ReplayError:
        return ReplayError(
            f"the filter {self._expression[:200]!r} cannot be used: {' '.join(reason.splitlines()[:1])}; "
            f"give one SQL condition over the columns {', '.join(self._columns)}"
        )


def _take_condition(tree: dict[str, Any]) -> Any:
    """Remove the WHERE condition from the tree of a lone SELECT and return it; None where there is no such place."""
    node: dict[str, Any] = tree["statements"][0]["node"] if len(tree["statements"]) == 1 else {}
    return node.pop("where_clause", None)


def _column(reference: dict[str, Any]) -> str:
    names: list[str] = [name.lower() for name in reference["column_names"]]
    return names[1] if names[0] == "rows" and len(names) > 1 else names[0]


def _lambda_parameters(tree: Any) -> Iterator[str]:
    for node in _nodes(tree):
        if node.get("class") == "LAMBDA":
            yield from (_column(name) for name in _nodes(node["lhs"]) if name.get("class") == "COLUMN_REF")


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    if isinstance(tree, dict):
        yield tree
        for value in tree.values():
            yield from _nodes(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _nodes(value)
