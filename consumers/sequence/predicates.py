"""A feed's row filter: an SQL condition or a Polars expression, and its text in states and manifests.

A state and a manifest are files that anyone may have written. The text in them is one of:

- an SQL condition, checked against lists of allowed SQL (`consumers.row_filter`);
- `polars-sha256:<hex>`, the fingerprint of a Polars expression. The program must pass the expression again, and the
  fingerprints must match. Expressions are never deserialized, because Polars' own format may hold pickled Python.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl
from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from consumers.row_filter import MAX_TEXT_BYTES, RowFilter
from schema.errors import FeedError, UsageError

_FINGERPRINT = "polars-sha256:"
_FINGERPRINT_FORM = re.compile(_FINGERPRINT + "[0-9a-f]{64}")
# How the text began in builds that wrote Polars' own JSON.
_SERIALIZED = re.compile(r'\s*[{\["]')

_NODES = {"Column", "Literal", "BinaryExpr", "Cast", "Ternary", "Alias", "Function"}
_FUNCTIONS = {"Boolean", "StringExpr", "Sql", "Abs", "Negate", "Pow", "Sign", "FillNull", "Coalesce"}
# Boolean functions of Polars whose result for a row depends on other rows.
_OF_MANY_ROWS = {"Any", "All", "IsUnique", "IsDuplicated", "IsFirstDistinct", "IsLastDistinct"}


class Predicate:
    """Decides which rows a feed keeps. Two predicates are equal if their texts are equal.

    Args:
        text: the portable form, as in a state.
        expression: the Polars expression whose fingerprint `text` is; None if the program did not pass it.

    >>> predicate = Predicate.of("size > 40", {"size": pl.Int32()})
    >>> predicate.text
    'size > 40'
    >>> pl.DataFrame({"size": [3, 90]}).filter(predicate.test({"size": pl.Int32()}).mask)["size"].to_list()
    [90]
    """

    def __init__(self, text: str, expression: pl.Expr | None = None) -> None:
        self.text, self._expression = text, expression

    @classmethod
    def of(cls, where: pl.Expr | str, columns: Mapping[str, pl.DataType]) -> Predicate:
        """Return the predicate of an SQL condition or a Polars expression.

        Args:
            where: true for the rows to keep, e.g. `size > 40 AND depth <= 9` or `pl.col("size") > 40`.
            columns: the columns it may name.

        Raises:
            UsageError: `where` cannot be read, names another column, or judges a row by other rows.
        """
        if not isinstance(where, str):
            return cls(_fingerprint(where, columns), where)
        predicate = cls(where)
        RowFilter(where, columns, UsageError).close()
        return predicate

    @classmethod
    def read(cls, text: str) -> Predicate:
        """Return the predicate of a text from a state or a manifest; `test` checks an SQL condition.

        Raises:
            ValueError: the text is a serialized Polars expression, as earlier builds wrote it, or is too long.
        """
        if _SERIALIZED.match(text):
            raise ValueError(
                "its filter is a serialized Polars expression, which an earlier build wrote and which may hold code: "
                "give the feed its filter as SQL and start a new run"
            )
        if len(text) > MAX_TEXT_BYTES or (text.startswith(_FINGERPRINT) and not _FINGERPRINT_FORM.fullmatch(text)):
            raise ValueError("its filter is damaged")
        return cls(text)

    @property
    def is_portable(self) -> bool:
        """Whether the text alone decides which rows are kept."""
        return not self.text.startswith(_FINGERPRINT)

    def test(self, columns: Mapping[str, pl.DataType]) -> RowTest:
        """Return the test of rows with these columns.

        Raises:
            FeedError: the text is not a condition over the columns, or is the fingerprint of an expression that this
                program has not passed.
        """
        if self.is_portable:
            return RowTest(RowFilter(self.text, columns, FeedError))
        if self._expression is None:
            raise FeedError(
                "the filter is a Polars expression, of which a state or manifest keeps only the fingerprint: "
                "pass the same expression as `where`, or give the feed SQL from the start"
            )
        return RowTest(self._expression)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Predicate) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return f"Predicate({self.text!r})"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Validate and serialize a predicate as a string."""
        return core_schema.no_info_after_validator_function(
            cls.read,
            core_schema.str_schema(strict=True),
            serialization=core_schema.plain_serializer_function_ser_schema(lambda predicate: predicate.text),
        )


class RowTest:
    """Finds the rows of a frame that a predicate keeps.

    Attributes:
        columns: the columns that the test reads.
    """

    def __init__(self, how: RowFilter | pl.Expr) -> None:
        self._how = how
        self.columns = how.names if isinstance(how, RowFilter) else frozenset(how.meta.root_names())

    def mask(self, frame: pl.DataFrame) -> pl.Series:
        """Return whether each row is kept (Boolean, never null).

        Raises:
            FeedError: a row's value makes the condition fail.
        """
        if isinstance(self._how, RowFilter):
            return self._how.mask(frame)
        return frame.select(kept=self._how.fill_null(False))["kept"]


def _fingerprint(where: pl.Expr, columns: Mapping[str, pl.DataType]) -> str:
    """Return the fingerprint of an expression; raises the errors of `Predicate.of`."""
    try:
        text = where.meta.serialize(format="json")
        tree = json.loads(text)
    except Exception as error:
        # Polars raises many kinds of exceptions for expressions that it cannot serialize.
        raise UsageError(f"the filter cannot be read ({error}): give a Polars expression over columns") from None
    unknown = sorted(set(where.meta.root_names()) - set(columns))
    if unknown:
        raise UsageError(f"the filter names {unknown[0]!r}: use the columns {', '.join(columns)}")
    foreign = next(_foreign_parts(tree), None)
    if foreign is not None:
        raise UsageError(
            f"the filter holds {foreign}: a feed's filter judges each row by its own columns, with comparisons, "
            "arithmetic, `is_in` and string functions"
        )
    kind = pl.DataFrame(schema=dict(columns)).lazy().select(kept=where).collect_schema()["kept"]
    if kind != pl.Boolean:
        raise UsageError(f"the filter's type is {kind}, not Boolean: compare the column with a value")
    return _FINGERPRINT + hashlib.sha256(text.encode()).hexdigest()


def _foreign_parts(tree: Any) -> Iterator[str]:
    """Yield the name of each part of an expression's JSON that may judge a row by other rows."""
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
    elif node == "Cast":
        if set(content["dtype"]) != {"Literal"}:
            yield "a cast to a type that depends on another expression"
        yield from _foreign_parts(content["expr"])
    elif node in ("BinaryExpr", "Ternary"):
        for part, value in content.items():
            if part in ("left", "right", "predicate", "truthy", "falsy"):
                yield from _foreign_parts(value)


def _foreign_function(function: Any) -> Iterator[str]:
    name, detail = (function, None) if isinstance(function, str) else next(iter(function.items()))
    inner = next(iter(detail), None) if isinstance(detail, dict) else detail
    if name not in _FUNCTIONS:
        yield name
    elif inner in _OF_MANY_ROWS:
        yield str(inner)
