"""Row filters of feeds: SQL as text, Polars expressions as fingerprints, and no text that is read as code."""

from __future__ import annotations

import io
import json
import pickle
from contextlib import suppress
from pathlib import Path

import polars as pl
import pytest
from pydantic import TypeAdapter, ValidationError

from consumers.sequence.predicates import Predicate
from schema.errors import FeedError, UsageError
from tests.consumers.hostile import serialized_filters

COLUMNS = {"size": pl.Int32(), "depth": pl.Int32(), "term": pl.String(), "outcome": pl.String()}
FRAME = pl.DataFrame(
    {
        "size": [3, 40, 90],
        "depth": [1, 9, 12],
        "term": ["\\.0", "(\\.0)1", "00"],
        "outcome": ["normal_form", "a", None],
    },
    schema=COLUMNS,
)
TEXTS: TypeAdapter[Predicate] = TypeAdapter(Predicate)


def kept(predicate: Predicate) -> list[int]:
    return FRAME.filter(predicate.test(COLUMNS).mask(FRAME))["size"].to_list()


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("size > 30 AND depth <= 9", [40]),
        ("outcome IN ('a')", [40]),
        ("outcome IS NULL OR size % 2 = 0", [40, 90]),
        ("outcome <> 'a'", [3]),
        ("term LIKE '(%'", [40]),
        ("true", [3, 40, 90]),
        ("abs(-size) BETWEEN 3 AND 40", [3, 40]),
    ],
)
def test_a_filter_in_sql_survives_being_written_down(where: str, expected: list[int]) -> None:
    text = TEXTS.dump_json(Predicate.of(where, COLUMNS))
    assert json.loads(text) == where
    read = TEXTS.validate_json(text)
    assert read.is_portable
    assert kept(read) == expected


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (pl.col("size") > 30, [40, 90]),
        ((pl.col("size") > 30) & (pl.col("depth") <= 9), [40]),
        (pl.col("outcome").is_in(["normal_form", "a"]), [3, 40]),
        (pl.col("outcome") != "a", [3]),
        (pl.col("term").str.starts_with("("), [40]),
        (pl.col("size").cast(pl.Float64).abs().is_between(3, 40), [3, 40]),
        (pl.when(pl.col("depth") > 5).then(pl.col("size")).otherwise(0) > 50, [90]),
        (pl.lit(True), [3, 40, 90]),
    ],
)
def test_a_polars_expression_works_in_its_program_and_leaves_a_fingerprint(where: pl.Expr, expected: list[int]) -> None:
    predicate = Predicate.of(where, COLUMNS)
    assert kept(predicate) == expected
    read = TEXTS.validate_json(TEXTS.dump_json(predicate))
    assert not read.is_portable
    assert read == Predicate.of(where, COLUMNS)
    assert read != Predicate.of(pl.col("size") > 31, COLUMNS)
    with pytest.raises(FeedError, match="pass the same expression as `where`, or give the feed SQL"):
        read.test(COLUMNS)
    # As a loader passes it to its workers.
    assert kept(pickle.loads(pickle.dumps(predicate))) == expected  # noqa: S301  # our own bytes


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
        pl.col("size").cast(pl.dtype_of(pl.col("depth").sum())) > 3,
    ],
)
def test_a_filter_that_looks_at_other_rows_is_refused(where: pl.Expr) -> None:
    with pytest.raises(UsageError, match="judges each row by its own columns"):
        Predicate.of(where, COLUMNS)


def test_python_functions_are_refused() -> None:
    with pytest.raises(UsageError, match=r"cannot be read|judges each row"):
        Predicate.of(pl.col("size").map_batches(lambda column: column > 3, return_dtype=pl.Boolean), COLUMNS)


@pytest.mark.parametrize("where", ["size >", "SELECT 1", "size > (SELECT 3)", "no such function(size)", "size"])
def test_text_that_is_not_a_filter_is_refused(where: str) -> None:
    with pytest.raises(UsageError):
        Predicate.of(where, COLUMNS)


def test_an_unknown_column_is_named() -> None:
    with pytest.raises(UsageError, match=r"names 'sise': use the columns size, depth"):
        Predicate.of(pl.col("sise") > 3, COLUMNS)
    with pytest.raises(UsageError, match=r"no column sise; give one SQL condition over the columns size, depth"):
        Predicate.of("sise > 3", COLUMNS)


def test_an_expression_that_is_not_a_condition_is_refused() -> None:
    with pytest.raises(UsageError, match="type is Int32, not Boolean"):
        Predicate.of(pl.col("size"), COLUMNS)


@pytest.mark.parametrize("place", ["cast", "operand"])
def test_a_serialized_expression_is_refused_and_never_runs(place: str, tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    text = serialized_filters(touched)[place]
    with pytest.raises(ValidationError, match="serialized Polars expression"):
        TEXTS.validate_python(text)
    assert not touched.exists()
    # The payload is real: Polars itself runs it.
    with suppress(TypeError):
        pl.DataFrame({"size": [1, 5]}).filter(pl.Expr.deserialize(io.StringIO(text), format="json"))
    assert touched.exists()


@pytest.mark.parametrize(
    "text",
    ["polars-sha256:", "polars-sha256:" + "0" * 63, "polars-sha256:" + "0" * 65, "x" * 20_000, "[]", '{"Column":3}'],
)
def test_a_damaged_text_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        TEXTS.validate_python(text)
