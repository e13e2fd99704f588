"""Filters whose results would outgrow the rows are refused before they run; ordinary ones are not."""

from __future__ import annotations

import polars as pl
import pytest

from consumers.row_filter import RowFilter
from schema.errors import ReplayError

COLUMNS = {"term": pl.String(), "n": pl.Int32(), "reasons": pl.List(pl.String())}


def nested(form: str, start: str, times: int) -> str:
    """Return `form` with its `@` replaced by itself, `times` times, and by `start` at last."""
    expression = start
    for _ in range(times):
        expression = form.replace("@", expression)
    return expression


@pytest.mark.parametrize(
    "expression",
    [
        f"length({nested('hex(@)', 'term', 27)}) > 3",
        f"length({nested('(@ || @)', 'term', 9)}) > 3",
        f"length({nested('concat(@, @)', 'term', 9)}) > 3",
        f"length({nested('concat_ws(@' + ', 1' * 40 + ')', 'term', 3)}) > 3",
        f"len({nested('list_transform(@, lambda x: x || x)', 'reasons', 26)}) > 3",
        f"len({nested('flatten(list_transform(@, lambda x: [x, x]))', 'reasons', 22)}) > 3",
        f"length({nested('([@]::VARCHAR)', 'term', 10)}) > 3",
        f"len({nested('[@, @]', 'n', 10)}) > 3",
        f"len({nested('struct_pack(a := @, b := @)', 'n', 9)}.a) > 3",
    ],
)
def test_a_result_that_grows_with_the_nesting_is_refused(expression: str) -> None:
    with pytest.raises(ReplayError, match=r"its results can grow to [0-9,]+ times the size of a row"):
        RowFilter(expression, COLUMNS, ReplayError)


@pytest.mark.parametrize(
    "expression",
    [
        "len(list_transform(reasons, lambda x: reasons)) > 3",
        "len(list_filter(reasons, lambda x: x = term)) > 3",
        "len(list_transform(reasons, lambda x: list_transform(['a'], lambda y: y))) > 3",
        "len([[y || x for y in ['a']] for x in reasons]) > 3",
    ],
)
def test_a_lambda_may_use_only_its_parameters_and_no_other_lambda(expression: str) -> None:
    with pytest.raises(ReplayError, match="a lambda"):
        RowFilter(expression, COLUMNS, ReplayError)


@pytest.mark.parametrize(
    "expression",
    [nested("NOT @", "true", 900), nested("[@]", "1", 330), nested("CASE WHEN true THEN @ END", "1", 600)],
)
def test_a_deep_expression_is_refused_in_one_line(expression: str) -> None:
    with pytest.raises(ReplayError, match="Max expression depth limit of 100 exceeded"):
        RowFilter(expression, COLUMNS, ReplayError)


@pytest.mark.parametrize(
    "expression",
    [
        " AND ".join(["n > 1"] * 1000),
        f"n IN ({', '.join(map(str, range(2000)))})",
        f"list_contains([{', '.join(map(str, range(400)))}], n)",
        "len([x || '!' for x in reasons if x <> 'duplicate']) > 1",
        "length(term || term || term || term) > 8 AND hex(term)::VARCHAR <> 'x'",
        "reasons[1] = 'x' AND len(reasons[1:2]) = 1",
    ],
)
def test_ordinary_conditions_are_accepted(expression: str) -> None:
    RowFilter(expression, COLUMNS, ReplayError).close()
