from __future__ import annotations

import json

import polars as pl
import pytest

from consumers.sequence.predicates import predicate_text, read_predicate
from schema.errors import UsageError

COLUMNS = ("size", "depth", "term", "outcome")
FRAME = pl.DataFrame(
    {"size": [3, 40, 90], "depth": [1, 9, 12], "term": ["\\.0", "(\\.0)1", "00"], "outcome": ["normal_form", "a", None]}
)


@pytest.mark.parametrize(
    ("where", "kept"),
    [
        (pl.col("size") > 30, [40, 90]),
        ((pl.col("size") > 30) & (pl.col("depth") <= 9), [40]),
        (pl.col("outcome").is_in(["normal_form", "a"]), [3, 40]),
        (pl.col("term").str.starts_with("("), [40]),
        (pl.col("outcome").is_null() | (pl.col("size") % 2 == 0), [40, 90]),
        (pl.col("size").cast(pl.Float64).abs().is_between(3, 40), [3, 40]),
        (pl.when(pl.col("depth") > 5).then(pl.col("size")).otherwise(0) > 50, [90]),
        ("size > 30 AND depth <= 9", [40]),
        ("outcome IN ('a')", [40]),
        ("term LIKE '(%'", [40]),
        ("true", [3, 40, 90]),
    ],
)
def test_a_filter_survives_being_written_down(where: pl.Expr | str, kept: list[int]) -> None:
    text = predicate_text(where, COLUMNS)
    assert json.loads(text)
    assert FRAME.filter(read_predicate(text))["size"].to_list() == kept


@pytest.mark.parametrize(
    "where",
    [
        pl.col("size").sum() > 3,
        pl.col("size") > pl.col("size").mean(),
        pl.col("size").sum().over("depth") > 3,
        pl.col("size").shift(1) > 3,
        pl.col("size").is_duplicated(),
        (pl.col("size") > 3).any(),
        pl.col("size").sort() > 3,
        pl.col("size").rank() > 3,
        pl.when(pl.col("size").max() > 3).then(True).otherwise(False),
    ],
)
def test_a_filter_that_looks_at_other_rows_is_refused(where: pl.Expr) -> None:
    with pytest.raises(UsageError, match="judges each row by its own columns"):
        predicate_text(where, COLUMNS)


def test_python_functions_are_refused() -> None:
    with pytest.raises(UsageError, match=r"cannot be read|judges each row"):
        predicate_text(pl.col("size").map_batches(lambda column: column > 3, return_dtype=pl.Boolean), COLUMNS)


@pytest.mark.parametrize("where", ["size >", "SELECT 1", "size > (SELECT 3)", "no such function(size)"])
def test_text_that_is_no_filter_is_refused(where: str) -> None:
    with pytest.raises(UsageError):
        predicate_text(where, COLUMNS)


def test_an_unknown_column_is_named() -> None:
    with pytest.raises(UsageError, match=r"names 'sise': use the columns size, depth"):
        predicate_text(pl.col("sise") > 3, COLUMNS)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "null",
        '{"FfiPlugin":{"input":[],"lib":"x.so"}}',
        '{"Function":{"input":[{"Column":"size"}],"function":{"FfiPlugin":{"lib":"x.so","symbol":"y"}}}}',
        '{"AnonymousFunction":{"input":[],"function":[80,76]}}',
        '{"Alias":[{"Agg":{"Sum":{"Column":"size"}}},"a"]}',
        '{"Column":3}',
        '{"Function":{}}',
        '{"Ternary":[1]}',
        '{"BinaryExpr":{"left":{"Column":"size"},"op":"Gt","right":' + '{"Alias":[' * 2000 + "}",
    ],
)
def test_a_damaged_or_hostile_text_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        read_predicate(text)
