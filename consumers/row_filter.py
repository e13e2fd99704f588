"""Row filters: one SQL condition over a family's columns, checked against lists of allowed SQL and run by DuckDB.

The text is untrusted: it comes from a user, a feed's state or a run's manifest. It passes three checks:

1. The syntax tree is that of one lone condition, and each of its nodes, functions and types is in a list below.
   The listed functions depend on the row alone. `consumers.filter_growth` bounds the size of the results.
2. DuckDB accepts it over the columns, and its type is BOOLEAN.
3. It runs in a database of its own without files, network or extensions, with bounded memory and a locked
   configuration. Times without a zone are UTC, whatever the machine's zone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any

import duckdb
import polars as pl

from consumers.filter_growth import MOST_GROWTH, growth
from schema.errors import FeedmillError

# A condition that a person wrote is far shorter; parsing takes many times the text's length in memory.
MAX_TEXT_BYTES = 16_384
# A filter holds the rows of one call and a few vectors; this stops a runaway expression before the machine swaps.
_MEMORY_LIMIT = "1GB"
_OPTIONS: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    # One thread keeps rows in their order.
    "threads": "1",
    "memory_limit": _MEMORY_LIMIT,
    # Python reads the syntax tree by recursion, a few calls for each level of the expression.
    "max_expression_depth": "100",
    "temp_directory": "",
}
# The time zone comes first because the last setting locks all of them.
_LOCKS = ("SET TimeZone = 'UTC'", "SET python_enable_replacements = false", "SET lock_configuration = true")
# The line break after the expression ends a comment in it.
_SHAPE = "SELECT 1 FROM rows WHERE (\n{}\n)"
_TYPE = "DESCRIBE SELECT (\n{}\n) AS kept FROM rows"
_KEPT = "SELECT coalesce((\n{}\n), false) AS kept FROM rows"

# Classes of DuckDB's syntax tree. Not among them: SUBQUERY, WINDOW, STAR, PARAMETER, POSITIONAL_REFERENCE, DEFAULT.
_NODES = {
    *("BETWEEN", "CASE", "CAST", "COLLATE", "COLUMN_REF", "COMPARISON", "CONJUNCTION", "CONSTANT", "FUNCTION"),
    *("LAMBDA", "LAMBDA_REF", "OPERATOR", "TYPE"),
}
_TYPES = {
    *("bool", "boolean", "tinyint", "smallint", "int", "integer", "bigint", "hugeint", "int1", "int2", "int4", "int8"),
    *("utinyint", "usmallint", "uinteger", "ubigint", "uhugeint", "float", "float4", "float8", "real", "double"),
    *("decimal", "numeric", "varchar", "text", "string", "char", "date", "time", "timestamp", "datetime"),
    *("timestamptz", "timestamp with time zone", "timestamp_s", "timestamp_ms", "timestamp_ns", "interval", "list"),
}
_OPERATORS = {
    *("+", "-", "*", "/", "//", "%", "**", "^", "@", "!__postfix", "&", "|", "~", "<<", ">>", "||", "^@", "&&", "@>"),
    *("<@", "~~", "!~~", "~~*", "!~~*", "~~~", "like_escape", "not_like_escape", "ilike_escape", "not_ilike_escape"),
}
# Left out on purpose: functions whose result outgrows their arguments (repeat, lpad, range, list_resize, format), that
# depend on more than the row (age, current_*, version, random), that call a function named by a text (list_aggregate),
# or that read or write (read_text, getenv, write_log).
_FUNCTIONS = {
    # numbers
    *("abs", "add", "subtract", "multiply", "divide", "mod", "pow", "power", "sqrt", "cbrt", "exp", "ln", "log"),
    *("log2", "log10", "sign", "signbit", "ceil", "ceiling", "floor", "round", "round_even", "trunc", "even", "gcd"),
    *("lcm", "greatest", "least", "isnan", "isinf", "isfinite", "bit_count", "xor", "hash", "pi", "sin", "cos", "tan"),
    # text
    *("length", "len", "strlen", "char_length", "character_length", "octet_length", "bit_length", "lower", "lcase"),
    *("upper", "ucase", "trim", "ltrim", "rtrim", "left", "right", "substr", "substring", "reverse", "contains"),
    *("starts_with", "prefix", "ends_with", "suffix", "instr", "strpos", "position", "concat", "concat_ws", "ascii"),
    *("ord", "unicode", "chr", "hex", "to_hex", "md5", "sha256", "split", "str_split", "string_split", "split_part"),
    *("string_to_array", "regexp_matches", "regexp_full_match", "regexp_extract", "levenshtein", "hamming", "jaccard"),
    *("jaro_similarity", "jaro_winkler_similarity", "strip_accents", "nfc_normalize"),
    # lists and structs
    *("list_value", "list_pack", "list_contains", "list_has", "list_has_any", "list_has_all", "array_contains"),
    *("array_has", "array_has_any", "array_has_all", "array_length", "list_position", "list_extract", "list_element"),
    *("array_extract", "list_slice", "array_slice", "list_filter", "array_filter", "filter", "list_transform"),
    *("list_apply", "array_transform", "list_distinct", "list_unique", "list_sort", "flatten", "struct_extract"),
    *("struct_pack", "row", "element_at"),
    # times
    *("year", "month", "day", "hour", "minute", "second", "millisecond", "microsecond", "quarter", "week", "weekday"),
    *("dayofweek", "dayofmonth", "dayofyear", "isodow", "isoyear", "weekofyear", "yearweek", "epoch", "epoch_ms"),
    *("epoch_us", "epoch_ns", "date_part", "datepart", "date_trunc", "datetrunc", "date_diff", "datediff", "last_day"),
    *("dayname", "monthname", "make_date", "make_timestamp", "to_timestamp", "strftime", "strptime", "try_strptime"),
    *("timezone", "to_years", "to_months", "to_weeks", "to_days", "to_hours", "to_minutes", "to_seconds"),
    *("to_milliseconds", "to_microseconds"),
    # nulls
    *("nullif", "ifnull", "coalesce", "constant_or_null"),
}
_CALLABLE = _OPERATORS | _FUNCTIONS


class RowFilter:
    """An SQL condition that rows of a frame satisfy or not; a context manager, because it holds a database.

    Args:
        expression: an SQL boolean expression, e.g. `size > 40 AND outcome = 'normal_form'`.
        columns: the columns it may name.
        error: class of the errors that are raised.

    Attributes:
        names: the columns that the condition names.

    Raises:
        FeedmillError: of the class `error`: the text is not a condition, or uses a column, function or syntax that is
            not allowed. The line gives the reason and the columns.
    """

    def __init__(self, expression: str, columns: Mapping[str, pl.DataType], error: type[FeedmillError]) -> None:
        self._expression = expression
        self._columns = columns
        self._error = error
        if len(expression.encode(errors="replace")) > MAX_TEXT_BYTES:
            raise self._refusal(f"it is longer than {MAX_TEXT_BYTES:,} bytes")
        self._database = duckdb.connect(":memory:", config=_OPTIONS)
        try:
            for lock in _LOCKS:
                self._database.execute(lock)
            self.names = self._check_shape()
            self._check_type()
        except BaseException:
            self._database.close()
            raise

    def __enter__(self) -> RowFilter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def mask(self, frame: pl.DataFrame) -> pl.Series:
        """Return whether each row satisfies the condition (Boolean, never null: an unknown result is false).

        Args:
            frame: with the columns that the condition names.

        Raises:
            FeedmillError: of the class `error`: a row's value makes the condition fail.
        """
        # A condition without columns still needs one column, so that DuckDB sees the rows.
        self._database.register("rows", frame.select(sorted(self.names) or frame.columns[:1]).to_arrow())
        kept = self._run(_KEPT.format(self._expression)).fetchnumpy()["kept"]
        self._database.unregister("rows")
        return pl.Series("kept", kept, dtype=pl.Boolean)

    def _check_shape(self) -> frozenset[str]:
        """Check the syntax tree and return the columns that it names."""
        if not self._expression.strip():
            raise self._refusal("it is empty")
        tree = self._tree(_SHAPE.format(self._expression))
        condition = _take_condition(tree)
        bare = self._tree(_SHAPE.format("true"))
        _take_condition(bare)
        if tree != bare:
            raise self._refusal("it is not one plain condition")
        columns = {name.lower(): name for name in self._columns}
        parameters = set(_lambda_parameters(condition))
        named = set()
        for node in _nodes(condition):
            match node.get("class"):
                case None:
                    continue
                case "FUNCTION" if _called(node) not in _CALLABLE:
                    raise self._refusal(f"the function {_called(node)} is not allowed in a filter")
                case "TYPE" if _type(node) not in _TYPES:
                    raise self._refusal(f"the type {_type(node)} is not allowed in a filter")
                # A name that is not a column may still have a meaning in SQL, such as CURRENT_DATE.
                case "COLUMN_REF" if (name := _column(node)) in columns:
                    named.add(columns[name])
                case "COLUMN_REF" if name not in parameters:
                    raise self._refusal(f"there is no column {'.'.join(node['column_names'])}")
                case kind if kind not in _NODES:
                    raise self._refusal(f"it contains a {str(kind).lower()}, which is not allowed")
        self._check_growth(condition)
        return frozenset(named)

    def _check_growth(self, condition: Any) -> None:
        try:
            times = growth(condition)
        except ValueError as error:
            raise self._refusal(str(error)) from None
        if times > MOST_GROWTH:
            raise self._refusal(f"its results can grow to {times:,} times the size of a row (limit {MOST_GROWTH})")

    def _check_type(self) -> None:
        self._database.register("rows", pl.DataFrame(schema=dict(self._columns)).to_arrow())
        ((_, kind, *_),) = self._run(_TYPE.format(self._expression)).fetchall()
        self._database.unregister("rows")
        if kind != "BOOLEAN":
            raise self._refusal(f"its type is {kind}, not BOOLEAN")

    def _tree(self, statement: str) -> dict[str, Any]:
        """Return the statement's syntax tree without the nodes' places in the text."""
        ((text,),) = self._run("SELECT json_serialize_sql(?)", [statement]).fetchall()
        tree: dict[str, Any] = json.loads(text)
        if tree.get("error", True):
            raise self._refusal(tree.get("error_message", "it is not SQL"))
        for node in _nodes(tree):
            for name in [name for name in node if name.startswith("query_location")]:
                del node[name]
        return tree

    def _run(self, statement: str, values: list[str] | None = None) -> duckdb.DuckDBPyConnection:
        try:
            return self._database.execute(statement, values)
        except duckdb.Error as error:
            raise self._refusal(str(error)) from None

    def _refusal(self, reason: str) -> FeedmillError:
        return self._error(
            f"the filter {self._expression[:200]!r} cannot be used: {' '.join(reason.splitlines()[:1])}; "
            f"give one SQL condition over the columns {', '.join(self._columns)}"
        )


def _take_condition(tree: dict[str, Any]) -> Any:
    """Remove the WHERE condition from the tree of a lone SELECT and return it; None if the tree has none."""
    node: dict[str, Any] = tree["statements"][0]["node"] if len(tree["statements"]) == 1 else {}
    return node.pop("where_clause", None)


def _called(node: dict[str, Any]) -> str:
    """Return a function's name in lower case, with its schema if it names one."""
    return _qualified(node, "function_name")


def _type(node: dict[str, Any]) -> str:
    """Return a type's name in lower case, with its schema if it names one."""
    return _qualified(node, "type_name")


def _qualified(node: dict[str, Any], name: str) -> str:
    parts = (node.get(key) for key in ("catalog", "schema", name))
    return ".".join(part.lower() for part in parts if part)


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
