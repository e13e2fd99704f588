"""Check a scenario's capacity factors and evaluate its calculation lines.

The grammar of a calculation line::

    line       = [ label ":" ] expression "=" number
    label      = any text without "="; the last colon before the "=" ends it
    expression = number { ( "+" | "-" | "*" | "/" ) number }      products before sums, each from left to right
    number     = [ "+" | "-" ] ( digits [ "." digits ] | "." digits )         at most 15 digits

Spaces and tabs are allowed between these parts. U+2212 and U+2013 are read as "-", U+00D7 as "*", U+00F7 as "/". A
result is right if it is correct to its last written digit and differs by less than `POINT_TOLERANCE`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from schema.buffers import lists, strings
from schema.compiled import compiled
from schema.scenario.bands import (
    LARGEST_CAPACITY,
    MAX_FACTORS_ALLOWED,
    POINT_TOLERANCE,
    SUM_TOLERANCE,
    SUPPORT_HEADROOM,
)

Array = npt.NDArray[Any]

_MOST_TERMS = 64
_MOST_DIGITS = 15

FACTS: dict[str, pl.DataType] = {
    "factors_named": pl.Boolean(),
    "factors_distinct": pl.Boolean(),
    "factors_felt": pl.Boolean(),
    "factors_within_scale": pl.Boolean(),
    "effects_sum": pl.Float64(),
    "calculation_readable": pl.Boolean(),
    "calculation_right": pl.Boolean(),
    "calculation_grounded": pl.Boolean(),
}
READINGS: dict[str, pl.DataType] = {
    "readable": pl.Boolean(),
    "start": pl.Float64(),
    "left": pl.Float64(),
    "right": pl.Float64(),
    "holds": pl.Boolean(),
}

# The columns that a grounded calculation must agree with; the first three are numbers.
_GROUNDS = ("base_capacity", "effective_capacity", "support_possible", "capacity_factors", "calculation_steps")

_NAMED, _DISTINCT, _FELT, _WITHIN, _READABLE, _RIGHT, _GROUNDED = range(7)
_START, _LEFT, _RESULT, _DECIMALS = range(4)

_PLUS, _MINUS, _TIMES, _OVER, _EQUALS, _COLON, _POINT, _SPACE, _TAB = b"+-*/=:. \t"


def readings(lines: pl.Series) -> pl.DataFrame:
    """Return the parts of each calculation line (Utf8) as a frame of `READINGS`, one row per line.

    `start` is the first number, `left` the value of the expression, `right` the number after the "=", and `holds` is
    whether `left` and `right` agree. A line that is not `readable` has zeros. A division by zero gives infinity or NaN.
    """
    data, bounds = strings(lines)
    parts = np.zeros((len(lines), 4))
    readable = np.zeros(len(lines), dtype=np.bool_)
    _read_lines(data, bounds, parts, readable)
    holds = readable & (np.abs(parts[:, _LEFT] - parts[:, _RESULT]) <= _allowance(parts[:, _DECIMALS]))
    columns = (readable, parts[:, _START], parts[:, _LEFT], parts[:, _RESULT], holds)
    return pl.DataFrame(dict(zip(READINGS, columns, strict=True)), schema=READINGS)


def facts(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the facts of each row's factors and calculation as a frame of `FACTS`, one row per row of `frame`.

    - `factors_named`: every factor's name has a visible character. `factors_distinct`: no two names are the same.
      `factors_felt`: no effect is 0 to one decimal. `factors_within_scale`: no effect is larger than
      `LARGEST_CAPACITY`. `effects_sum`: the sum of the effects, in points.
    - `calculation_readable`: every line follows the grammar. `calculation_right`: both sides agree in every readable
      line. `calculation_grounded`: the first line starts from the base capacity; every effect and the support headroom
      are terms of the lines, as often as they are stated; the effective capacity and the support possible are results.

    A null makes every fact about it true and the sum null, because nullability is a rule of its own. An empty list
    makes every fact about its items true.
    """
    factor_bounds, factors = lists(frame["capacity_factors"])
    names, effects = factors.flatten()
    name_data, name_bounds = strings(_large(names))
    line_bounds, lines = lists(frame["calculation_steps"])
    data, bounds = strings(_large(lines))
    stated = frame.select(_GROUNDS[:3]).to_numpy(order="c")
    flags = np.zeros((7, frame.height), dtype=np.bool_)
    sums = np.zeros(frame.height)
    _check(
        (data, bounds, line_bounds),
        (name_data, name_bounds, np.asarray(effects.fill_null(0.0)), factor_bounds),
        np.ascontiguousarray(stated, dtype=np.float64),
        _allowance(np.arange(_MOST_DIGITS + 1)),
        (POINT_TOLERANCE, SUPPORT_HEADROOM, MAX_FACTORS_ALLOWED, LARGEST_CAPACITY),
        flags,
        sums,
    )
    unknown = frame.select(pl.any_horizontal(pl.col(name).is_null() for name in _GROUNDS)).to_series()
    return pl.DataFrame(
        {
            "factors_named": flags[_NAMED],
            "factors_distinct": flags[_DISTINCT],
            "factors_felt": flags[_FELT],
            "factors_within_scale": flags[_WITHIN],
            "effects_sum": pl.Series(sums).set(frame["capacity_factors"].is_null(), None),
            "calculation_readable": flags[_READABLE],
            "calculation_right": flags[_RIGHT],
            "calculation_grounded": unknown | pl.Series(flags[_GROUNDED]),
        },
        schema=FACTS,
    )


def _allowance(decimals: Array) -> Array:
    """Return the allowed difference between a result with this many decimals and its expression's value."""
    return np.minimum(0.5 / 10.0**decimals, POINT_TOLERANCE - SUM_TOLERANCE) + SUM_TOLERANCE / 2


def _large(array: pa.Array) -> pa.LargeStringArray:
    """Return `array` as the type that `strings` reads; an array without values may have another type."""
    return array if isinstance(array, pa.LargeStringArray) else array.cast(pa.large_string())


@compiled
def _read_lines(data: Array, bounds: Array, parts: Array, readable: Array) -> None:
    """Fill `parts` (rows, 4) and `readable` (rows) from the lines data[bounds[i]:bounds[i + 1]]."""
    terms = np.empty(_MOST_TERMS)
    for line in range(readable.size):
        readable[line] = _read_line(data, bounds[line], bounds[line + 1], parts[line], terms) > 0


@compiled
def _check(lines: Any, factors: Any, stated: Array, allowances: Array, limits: Any, flags: Array, sums: Array) -> None:
    """Fill `flags` (7, rows) and `sums` (rows); `stated` (rows, 3): base and effective capacity, support possible.

    Constants of other files are arguments, because the cache of compiled code does not notice when they change.
    """
    tolerance, headroom, most_factors, largest = limits
    data, bounds, line_bounds = lines
    _, _, effects, factor_bounds = factors
    parts = np.empty(4)
    terms = np.empty(_MOST_TERMS)
    row_terms = np.empty(_MOST_TERMS)
    for row in range(sums.size):
        base, effective, possible = stated[row]
        first, last = factor_bounds[row], factor_bounds[row + 1]
        flags[_NAMED, row], flags[_DISTINCT, row] = _names(factors, first, last, most_factors)
        felt = within = True
        for factor in range(first, last):
            sums[row] += effects[factor]
            felt &= abs(effects[factor]) >= tolerance
            within &= abs(effects[factor]) < largest + tolerance
        flags[_FELT, row] = felt
        flags[_WITHIN, row] = within

        readable = right = True
        starts = reaches = possibly = False
        count, result = 0, np.nan
        for line in range(line_bounds[row], line_bounds[row + 1]):
            read = _read_line(data, bounds[line], bounds[line + 1], parts, terms)
            if read <= 0:
                readable = False
                continue
            right &= abs(parts[_LEFT] - parts[_RESULT]) <= allowances[np.int64(parts[_DECIMALS])]
            begins = line == line_bounds[row]
            if begins:
                starts = abs(parts[_START] - base) < tolerance
            # The base does not count as a term, nor does the result of the line before if a line starts with it.
            carried = begins or abs(terms[0] - result) < tolerance
            for term in range(1 if carried else 0, min(read, _MOST_TERMS)):
                if count < _MOST_TERMS:
                    row_terms[count] = terms[term]
                    count += 1
            result = parts[_RESULT]
            reaches |= abs(result - effective) < tolerance
            possibly |= abs(result - possible) < tolerance
        flags[_READABLE, row] = readable
        flags[_RIGHT, row] = right
        grounded = starts and reaches and possibly and _take(row_terms, count, headroom, tolerance)
        for factor in range(first, last):
            grounded = grounded and _take(row_terms, count, effects[factor], tolerance)
        flags[_GROUNDED, row] = grounded


@compiled
def _take(terms: Array, count: int, value: float, tolerance: float) -> bool:
    """Remove one term of this value from `terms`; return whether there was one."""
    for place in range(count):
        if abs(terms[place] - value) < tolerance:
            terms[place] = np.nan
            return True
    return False


@compiled
def _names(factors: Any, first: int, last: int, most: int) -> Any:
    """Return (every name has a visible character, no two names are the same); over `most` names are not compared."""
    data, bounds, _, _ = factors
    named = distinct = True
    for factor in range(first, last):
        visible = False
        for place in range(bounds[factor], bounds[factor + 1]):
            visible |= data[place] > _SPACE
        named &= visible
        if last - first > most:
            continue
        for other in range(first, factor):
            length = bounds[factor + 1] - bounds[factor]
            same = length == bounds[other + 1] - bounds[other]
            for place in range(length if same else 0):
                same &= data[bounds[factor] + place] == data[bounds[other] + place]
            distinct &= not same
    return named, distinct


@compiled
def _read_line(data: Array, start: int, end: int, parts: Array, terms: Array) -> int:
    """Read the line data[start:end] into `parts` (4) and `terms`; return its number of terms, 0 if it is malformed."""
    at = start
    for place in range(start, end):
        if data[place] == _EQUALS:
            break
        if data[place] == _COLON:
            at = place + 1
    value, decimals, at = _number(data, _blank(data, at, end), end)
    if at < 0:
        return 0
    begun, total, product, count = value, 0.0, value, 0
    while True:
        operator, at = _operator(data, _blank(data, at, end), end)
        if at < 0:
            return 0
        value, decimals, at = _number(data, _blank(data, at, end), end)
        if at < 0:
            return 0
        if operator == _TIMES:
            product *= value
            continue
        if operator == _OVER:
            product /= value
            continue
        total += product
        if count < _MOST_TERMS:
            terms[count] = product
        count += 1
        if operator == _EQUALS:
            break
        product = -value if operator == _MINUS else value
    if _blank(data, at, end) != end:
        return 0
    parts[_START] = begun
    parts[_LEFT] = total
    parts[_RESULT] = value
    parts[_DECIMALS] = decimals
    return count


@compiled
def _blank(data: Array, at: int, end: int) -> int:
    """Return the place after the spaces at `at`."""
    while at < end and (data[at] == _SPACE or data[at] == _TAB):
        at += 1
    return at


@compiled
def _operator(data: Array, at: int, end: int) -> Any:
    """Return (the operator or "=" at `at` as its ASCII byte; the place after it, -1 without an operator)."""
    if at < end:
        byte = data[at]
        if byte in (_PLUS, _MINUS, _TIMES, _OVER, _EQUALS):
            return np.int64(byte), at + 1
        if byte == 0xC3 and at + 1 < end and data[at + 1] == 0x97:
            return np.int64(_TIMES), at + 2
        if byte == 0xC3 and at + 1 < end and data[at + 1] == 0xB7:
            return np.int64(_OVER), at + 2
        if byte == 0xE2 and at + 2 < end:
            if data[at + 1] == 0x88 and data[at + 2] == 0x92:
                return np.int64(_MINUS), at + 3
            if data[at + 1] == 0x80 and data[at + 2] == 0x93:
                return np.int64(_MINUS), at + 3
    return np.int64(0), -1


@compiled
def _number(data: Array, at: int, end: int) -> Any:
    """Return (the number at `at`, its decimals, the place after it; -1 without a number)."""
    sign, after = _operator(data, at, end)
    if sign in (_PLUS, _MINUS):
        at = after
    whole, digits, decimals, pointed = np.int64(0), 0, 0, False
    while at < end:
        byte = data[at]
        if 48 <= byte <= 57:
            whole = whole * 10 + np.int64(byte - 48)
            digits += 1
            decimals += pointed
            if digits > _MOST_DIGITS:
                return 0.0, 0, -1
        elif byte == _POINT and not pointed:
            pointed = True
        else:
            break
        at += 1
    if digits == 0 or (pointed and decimals == 0):
        return 0.0, 0, -1
    # Both are exact, so the quotient is the nearest float.
    value = whole / 10.0**decimals
    return (-value if sign == _MINUS else value), decimals, at
