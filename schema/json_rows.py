"""Read lines of JSON as rows of a family, and give a reason for each line that cannot be read.

A line becomes a row if it is an object and every value has its column's type. A number is never read from a text, nor a
text from a number. A missing value is null, and a key without a column is ignored. This is the inverse of
`schema.json_form`, except that a line's ids and splits are ignored: they are computed from the content.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import polars as pl

from schema.buffers import lists_of
from schema.errors import RecordError
from schema.family import ENVELOPE, Family, instance

# The only envelope column that cannot be computed from the content.
_ORIGIN = "augmented_from"
# Limits within which a value is finite in each kind of float column.
_FLOAT_LIMITS: Mapping[type[pl.DataType], float] = {pl.Float32: 3.4e38, pl.Float64: 1e300}
_INT_LIMITS: Mapping[type[pl.DataType], tuple[int, int]] = {
    pl.Int32: (-(2**31), 2**31 - 1),
    pl.Int64: (-(2**63), 2**63 - 1),
    pl.UInt32: (0, 2**32 - 1),
    pl.UInt64: (0, 2**64 - 1),
}

# Up to this number a float identifies exactly one integer.
_EXACT_FLOAT = 2**53

# Converts a value that is not null for its column; raises RecordError if the type is wrong.
_Reader = Callable[[Any], Any]


@dataclass(frozen=True)
class NoRow:
    """A line that is not a row, with the reason code, a sentence for people, and its index among the lines read."""

    line: bytes
    reason: str
    message: str
    index: int = 0


def lines_of(value: bytes) -> list[bytes]:
    """Return the lines that are not blank, or all of `value` as one line if it is one JSON object."""
    lines = [line for line in value.splitlines() if line.strip()]
    if len(lines) > 1:
        try:
            document(value)
        except RecordError:
            return lines
        return [value]
    return lines


def document(line: bytes) -> dict[str, Any]:
    """Return the JSON object in a line.

    Raises:
        RecordError: `not_json` or `not_an_object`.
    """
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RecordError("not_json", f"not JSON: {str(error)[:200]}") from error
    if not isinstance(value, dict):
        raise RecordError("not_an_object", f"a JSON {type(value).__name__} instead of an object")
    return value


def read_lines(lines: Sequence[bytes], family: Family) -> tuple[pl.DataFrame, list[NoRow]]:
    """Return (rows of the columns `family.wire`, in order; lines that are not rows, in order).

    The reasons of these lines are `not_json`, `not_an_object` and `wrong_type`.
    """
    readers = _readers(family)
    rows: list[list[Any]] = []
    others: list[NoRow] = []
    for index, line in enumerate(lines):
        try:
            flat = family.flatten(document(line))
            rows.append([None if (value := flat.get(name)) is None else read(value) for name, read in readers.items()])
        except RecordError as error:
            others.append(NoRow(line, error.reason, str(error), index))
    columns = {
        name: _series([row[place] for row in rows], dtype) for place, (name, dtype) in enumerate(family.wire.items())
    }
    return pl.DataFrame(columns), others


@lru_cache
def _readers(family: Family) -> dict[str, _Reader]:
    """Return the reader of each column in `family.wire`."""
    own = {name: _reader(name, dtype) for name, dtype in family.columns.items()}
    return {**own, **dict.fromkeys(ENVELOPE, _computed), _ORIGIN: _id}


def _series(values: Sequence[Any], dtype: pl.DataType) -> pl.Series:
    """Return read values as a column. Items of lists are converted together: Polars would make a series per list."""
    if not isinstance(dtype, pl.List):
        return pl.Series(values, dtype=dtype)
    items = [item for value in values if value is not None for item in value]
    lengths = np.array([0 if value is None else len(value) for value in values], dtype=np.int64)
    is_list = pl.Series([value is not None for value in values], dtype=pl.Boolean)
    return pl.select(pl.when(is_list).then(lists_of(_series(items, instance(dtype.inner)), lengths))).to_series()


def _reader(name: str, dtype: pl.DataType) -> _Reader:
    """Return the reader for values of `dtype`, which is the type of column `name` or a type inside it."""
    if isinstance(dtype, pl.List):
        item = _reader(name, instance(dtype.inner))

        def read_list(value: Any) -> Any:
            if not isinstance(value, list):
                raise _wrong(name, value, dtype)
            return [None if each is None else item(each) for each in value]

        return read_list
    if isinstance(dtype, pl.Struct):
        parts = [(part.name, _reader(name, instance(part.dtype))) for part in dtype.fields]

        def read_struct(value: Any) -> Any:
            if not isinstance(value, dict):
                raise _wrong(name, value, dtype)
            return {part: None if (each := value.get(part)) is None else read(each) for part, read in parts}

        return read_struct
    fits = _judge(dtype)
    if dtype.is_float():

        def read_float(value: Any) -> Any:
            if not fits(value):
                raise _wrong(name, value, dtype)
            # JSON integers have any size; Polars accepts 64 bits only.
            return float(value)

        return read_float

    is_integer = dtype.is_integer()

    def read_value(value: Any) -> Any:
        if is_integer and type(value) is float and value.is_integer() and abs(value) <= _EXACT_FLOAT:
            # Writers with one kind of number (JavaScript, pandas with nulls) write 101 as 101.0.
            value = int(value)
        if not fits(value):
            raise _wrong(name, value, dtype)
        return value

    return read_value


def _judge(dtype: pl.DataType) -> Callable[[Any], bool]:
    """Return a function that checks whether a JSON value has exactly the type of a column of `dtype`.

    Raises:
        TypeError: a column of `dtype` has no JSON form.
    """
    if isinstance(dtype, pl.String):
        return lambda value: type(value) is str and (value.isascii() or _is_unicode(value))
    if isinstance(dtype, pl.Boolean):
        return lambda value: type(value) is bool
    if dtype.is_integer():
        low, high = _INT_LIMITS[type(dtype)]
        return lambda value: type(value) is int and low <= value <= high
    if dtype.is_float():
        largest = _FLOAT_LIMITS[type(dtype)]
        return lambda value: type(value) in (float, int) and abs(value) < largest
    raise TypeError(f"no JSON form for a column of {dtype}")


def _is_unicode(text: str) -> bool:
    """Return whether `text` has no lone surrogate; JSON can escape one, but UTF-8 cannot encode it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _computed(value: Any) -> None:
    """Ignore the value in a line."""


def _id(value: Any) -> int:
    if isinstance(value, str) and re.fullmatch("[0-9a-fA-F]{16}", value):
        return int(value, 16)
    raise RecordError("wrong_type", f"{_ORIGIN} is not an example_id of 16 hex digits")


def _wrong(name: str, value: Any, dtype: pl.DataType) -> RecordError:
    shown = str(value)[:24] if type(value) in (int, float) else f"a JSON {type(value).__name__}"
    return RecordError("wrong_type", f"{name} is {shown}, which {dtype} does not hold")
