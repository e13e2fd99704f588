"""Calculation lines are read by the grammar, and their values equal those of exact fractions."""

from __future__ import annotations

import re
from fractions import Fraction

import polars as pl
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from schema.scenario.arithmetic import FACTS, READINGS, facts, readings
from schema.scenario.bands import POINT_TOLERANCE
from tests.scenarios import steps, valid_rows

NUMBERS = st.builds(
    "{}{}{}".format,
    st.sampled_from(["", "", "-", "+"]),
    st.integers(0, 9999),
    st.one_of(st.just(""), st.integers(0, 999).map(".{}".format)),
)
OPERATORS = st.sampled_from("+-*/\u2212\u2013\u00d7\u00f7")
BLANKS = st.sampled_from(["", " ", "  ", "\t"])
LABELS = st.sampled_from(["", "support:", "a label (of 10): ", "6.0 + 1: "])
PLAIN = str.maketrans("\u2212\u2013\u00d7\u00f7", "--*/")

# The same grammar as a regular expression.
NUMBER = r"[+\-\u2212\u2013]?(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)"
LINE = re.compile(
    rf"(?:[^=]*:)?[ \t]*{NUMBER}[ \t]*(?:[+\-*/\u2212\u2013\u00d7\u00f7][ \t]*{NUMBER}[ \t]*)*=[ \t]*{NUMBER}[ \t]*"
)


def reading(line: str | None) -> dict[str, object]:
    return readings(pl.Series([line], dtype=pl.String)).row(0, named=True)


def exact(number: str) -> Fraction:
    return Fraction(number.translate(PLAIN))


def evaluated(numbers: list[str], operators: list[str]) -> Fraction:
    """Return the value of an expression as a fraction: products first, each from left to right."""
    total, product = Fraction(0), exact(numbers[0])
    for operator, number in zip(operators, numbers[1:], strict=True):
        value, plain = exact(number), operator.translate(PLAIN)
        if plain in "*/":
            product = product * value if plain == "*" else product / value
        else:
            total += product
            product = value if plain == "+" else -value
    return total + product


@given(st.data(), LABELS, st.lists(NUMBERS, min_size=1, max_size=6), NUMBERS)
def test_a_line_has_the_value_that_fractions_give(
    data: st.DataObject, label: str, numbers: list[str], right: str
) -> None:
    operators = [data.draw(OPERATORS) for _ in numbers[1:]]
    assume(not any(op in "/\u00f7" and exact(number) == 0 for op, number in zip(operators, numbers[1:], strict=True)))
    parts = [numbers[0]]
    for operator, number in zip(operators, numbers[1:], strict=True):
        parts += [data.draw(BLANKS), operator, data.draw(BLANKS), number]
    actual = reading(f"{label}{data.draw(BLANKS)}{''.join(parts)} = {right}{data.draw(BLANKS)}")
    left = evaluated(numbers, operators)
    assert actual["readable"]
    assert actual["start"] == float(exact(numbers[0]))
    assert actual["right"] == float(exact(right))
    assert actual["left"] == pytest.approx(float(left), rel=1e-9, abs=1e-9)

    decimals = len(right.partition(".")[2])
    allowed = min(Fraction(1, 2 * 10**decimals), Fraction(str(POINT_TOLERANCE)))
    apart = abs(left - exact(right)) - allowed
    # At the bound itself, and for large numbers, floating point decides.
    if abs(apart) > Fraction(1, 10**5) + abs(left) / 10**9:
        assert actual["holds"] == (apart < 0)


@given(st.text("0123456789.+-*/=: \tax\u2212\u00d7", max_size=14))
def test_a_line_is_readable_only_if_it_follows_the_grammar(line: str) -> None:
    assert reading(line)["readable"] == bool(LINE.fullmatch(line))


@given(st.lists(st.one_of(st.none(), st.text(max_size=20)), max_size=6))
def test_any_lines_are_read_and_none_is_lost(lines: list[str | None]) -> None:
    actual = readings(pl.Series(lines, dtype=pl.String))
    assert actual.schema == READINGS
    assert actual["readable"].to_list() == [line is not None and bool(LINE.fullmatch(line)) for line in lines]


@pytest.mark.parametrize(
    ("line", "holds"),
    [
        ("6.0 - 1.5 = 4.5", True),
        ("10 / 3 = 3.3", True),
        ("10 / 3 = 3.33", True),
        ("10 / 3 = 3.34", False),
        ("10 / 3 = 3", False),
        ("6.0 - 1.6 = 4", False),
        ("2 + 3 * 2 = 8", True),
        ("2 - 1 - 1 = 0", True),
        ("8 / 2 / 2 = 2", True),
        ("5 - -1.5 = 6.5", True),
        ("1 / 0 = 1", False),
        ("0 / 0 = 0", False),
        ("000000000000001 = 1", True),
    ],
)
def test_results_are_right_to_their_last_written_digit(line: str, holds: bool) -> None:
    actual = reading(line)
    assert (actual["readable"], actual["holds"]) == (True, holds)


def test_a_number_with_more_digits_than_a_double_is_unreadable() -> None:
    assert not reading("1234567890123456 = 1")["readable"]
    assert not reading("0.1234567890123456 = 1")["readable"]


@given(st.integers(0, 100), st.lists(st.integers(-30, 30).filter(bool), min_size=1, max_size=6), st.data())
def test_a_calculation_with_a_missing_line_is_not_grounded(base: int, effects: list[int], data: st.DataObject) -> None:
    effective = base + sum(effects)
    lines = steps(base / 10, [effect / 10 for effect in effects])
    missing = data.draw(st.integers(0, len(lines) - 1))
    # A remaining line may hold the missing number by chance, as a running total.
    totals = [base + sum(effects[:count]) for count in range(1, len(effects) + 1)]
    assume((effects[missing] if missing < len(effects) else effective + 20) not in totals)
    rows = valid_rows(2).with_columns(
        capacity_factors=pl.lit([{"name": f"f{n}", "effect": effect / 10} for n, effect in enumerate(effects)]),
        base_capacity=base / 10,
        effective_capacity=effective / 10,
        support_possible=effective / 10 + 2,
        calculation_steps=pl.Series([lines, lines[:missing] + lines[missing + 1 :]]),
    )
    actual = facts(rows)
    assert actual.schema == FACTS
    assert actual["calculation_readable"].to_list() == actual["calculation_right"].to_list() == [True, True]
    assert actual["effects_sum"].to_list() == pytest.approx([sum(effects) / 10] * 2)
    whole, cut = actual["calculation_grounded"]
    assert whole
    assert not cut


def test_a_term_counts_for_one_factor_or_for_the_headroom() -> None:
    rows = valid_rows(1).with_columns(
        base_capacity=pl.lit(5.0),
        effective_capacity=pl.lit(9.0),
        support_possible=pl.lit(11.0),
        capacity_factors=pl.lit([{"name": "a", "effect": 2.0}, {"name": "b", "effect": 2.0}]),
    )
    right = ["5 + 2 = 7", "7 + 2 = 9", "9 + 2 = 11"]
    for lines, grounded in [(right, True), (["5 + 2 + 2 = 9", right[2]], True), (["5 + 4 = 9", "9 + 2 = 11"], False)]:
        actual = facts(rows.with_columns(calculation_steps=pl.Series([lines])))
        assert actual["calculation_grounded"].to_list() == [grounded]


def test_facts_of_a_slice_equal_those_of_its_rows() -> None:
    rows = valid_rows(20)
    missing = rows.with_columns(
        pl.when(pl.int_range(20) % 3 > 0).then(pl.col("capacity_factors")),
        pl.when(pl.int_range(20) % 4 > 0).then(pl.col("calculation_steps")),
    )
    for frame in (rows, missing):
        whole = facts(frame)
        assert facts(frame[7:13]).equals(whole[7:13])
        assert facts(frame.filter(pl.int_range(20) % 2 == 1)).equals(whole.gather_every(2, 1))
    assert facts(missing)["effects_sum"].null_count() == 7
    assert facts(rows[:0]).height == 0


def test_a_thousand_terms_and_factors_are_read() -> None:
    many = [{"name": f"f{n}", "effect": 0.1} for n in range(1000)]
    lines = ["1" + " + 1" * 1000 + " = 1001", *["1 = 1"] * 1000]
    actual = facts(valid_rows(1).with_columns(capacity_factors=pl.lit(many), calculation_steps=pl.Series([lines]))).row(
        0, named=True
    )
    assert (actual["calculation_readable"], actual["calculation_right"]) == (True, True)
    assert not actual["calculation_grounded"]
