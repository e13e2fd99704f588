"""The size of a row: the bytes of its texts and list elements, as expressions over a family's columns.

A row that is too large for one outgoing record is refused when it is decoded, and augmentation never makes one.
"""

from __future__ import annotations

import polars as pl

from schema.family import Family, instance

# The size of a number in a list.
_FIXED_BYTES = 8


def row_bytes(family: Family) -> pl.Expr:
    """Return how many bytes of text and list elements a row holds."""
    return pl.sum_horizontal(lengths(family))


def lengths(family: Family) -> list[pl.Expr]:
    """Return one expression for each column of variable size: its bytes, under the column's name."""
    return [
        _length(pl.col(name), dtype).fill_null(0)
        for name, dtype in family.wire.items()
        if isinstance(dtype, pl.String | pl.List)
    ]


def _length(value: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    if isinstance(dtype, pl.String):
        return value.str.len_bytes().cast(pl.Int64)
    if isinstance(dtype, pl.List):
        return value.list.eval(_length(pl.element(), instance(dtype.inner))).list.sum()
    if isinstance(dtype, pl.Struct):
        return pl.sum_horizontal(_length(value.struct.field(part.name), instance(part.dtype)) for part in dtype.fields)
    return pl.when(value.is_null()).then(0).otherwise(_FIXED_BYTES).cast(pl.Int64)
