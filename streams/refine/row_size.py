"""How large a row is: the bytes of its texts and of what is in its lists, as expressions over a family's columns.

What one record of ours could not carry is refused on its way in, and never made by augmentation.
"""

from __future__ import annotations

import polars as pl

from schema.family import Family, instance

# What a number takes in a list.
_FIXED_BYTES = 8


def row_bytes(family: Family) -> pl.Expr:
    """Return how many bytes of text, and of what is in lists, a row holds."""
    return pl.sum_horizontal(lengths(family))


def lengths(family: Family) -> list[pl.Expr]:
    """Return the bytes of each column that has no fixed size, one expression each, named as its column."""
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
