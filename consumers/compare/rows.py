"""Rows on their way into a comparison: frames of a family, and JSON lines made into them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import polars as pl
from polars.datatypes import DataTypeClass

from schema.family import ENVELOPE, Family
from schema.registry import FAMILIES

# As the refine stage calls them.
NOT_JSON, NOT_AN_OBJECT, WRONG_TYPE = "not_json", "not_an_object", "wrong_type"

# The one column of the envelope that the content does not tell.
_ORIGIN = "augmented_from"

# Rows judged at once: judging costs mostly per call, and this many long rows are some tens of megabytes.
ROWS_AT_ONCE = 16_384


@dataclass(frozen=True)
class Rows:
    """Some rows of a source: a frame of the family's wire columns, and what is no row, counted by reason."""

    frame: pl.DataFrame
    refused: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.frame.height + sum(self.refused.values())

    def head(self, count: int) -> Rows:
        """Return `count` of the rows at most: the frame's first, and then what is no row."""
        left = max(0, count - self.frame.height)
        kept = list(Counter(self.refused).elements())[:left]
        return Rows(self.frame.head(count), Counter(kept))


def families_with(columns: Iterable[str]) -> list[str]:
    """Return the names of the families all of whose required columns are among `columns`."""
    held = set(columns)
    return [
        name
        for name, family in FAMILIES.items()
        if held
        >= {column for column, kind in family.rules.columns().items() if not kind.nullable} & set(family.columns)
    ]


def read_lines(lines: Sequence[bytes], family: Family) -> Rows:
    """Return the rows of JSON lines, and the lines that are none.

    A row's values are judged by their types here, as the refine stage does. Ids and splits are left null: they follow
    from the content.
    """
    refused: Counter[str] = Counter()
    rows: list[dict[str, Any]] = []
    for line in lines:
        document = parsed(line)
        if isinstance(document, dict):
            rows.append(family.flatten(document))
        else:
            refused[NOT_JSON if document is None else NOT_AN_OBJECT] += 1
    frame = _framed(rows, family)
    if frame is None:
        # Some value is of another type: the rows one by one tell whose.
        kept = [one for row in rows if (one := _framed([row], family)) is not None]
        refused[WRONG_TYPE] += len(rows) - len(kept)
        frame = pl.concat([pl.DataFrame(schema=family.wire), *kept])
    return Rows(frame, refused)


def parsed(line: bytes) -> Any:
    """Return what a line of JSON says, None where it is no JSON.

    NaN and the infinities, which Python reads and no column holds, are complex numbers, which no column holds either.
    """
    try:
        return json.loads(line, parse_constant=complex)
    except (ValueError, RecursionError):
        return None


def _framed(rows: Sequence[dict[str, Any]], family: Family) -> pl.DataFrame | None:
    """Return the rows as a frame, None where a value is not of its column's type."""
    columns = {name: [row.get(name) for row in rows] for name in family.columns}
    # Polars would take true for 1, and a text for a list of letters.
    if not all(_typed(columns[name], dtype) for name, dtype in family.columns.items()):
        return None
    try:
        columns[_ORIGIN] = [_number(row.get(_ORIGIN)) for row in rows]
        own = pl.DataFrame(columns, schema={**family.columns, _ORIGIN: ENVELOPE[_ORIGIN]})
    except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError):
        return None
    computed = [pl.lit(None, dtype=dtype).alias(name) for name, dtype in ENVELOPE.items() if name != _ORIGIN]
    return own.with_columns(computed).select(list(family.wire))


def _typed(values: list[Any], dtype: pl.DataType) -> bool:
    """Return whether each value is null, or of the JSON type that a column of `dtype` holds."""
    found = set(map(type, values)) - {type(None)}
    if isinstance(dtype, pl.List):
        items = chain.from_iterable(value for value in values if value is not None) if found <= {list} else ()
        return found <= {list} and _typed(list(items), _instance(dtype.inner))
    if isinstance(dtype, pl.Struct):
        held = [value for value in values if value is not None] if found <= {dict} else []
        return found <= {dict} and all(
            _typed([value.get(part.name) for value in held], _instance(part.dtype)) for part in dtype.fields
        )
    return found <= ({str} if isinstance(dtype, pl.String) else {int} if dtype.is_integer() else {int, float})


def _instance(dtype: pl.DataType | DataTypeClass) -> pl.DataType:
    """Return `dtype` as an instance: Polars lets inner types be named by their class."""
    return dtype if isinstance(dtype, pl.DataType) else dtype()


def _number(digits: Any) -> int | None:
    """Return the id that 16 hex digits write.

    Raises:
        ValueError, TypeError: they do not.
    """
    if digits is None:
        return None
    if len(digits) != 16:
        raise ValueError("no id")
    return int(digits, 16)
