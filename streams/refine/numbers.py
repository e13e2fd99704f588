"""Replace floats that are not finite by null: NaN, infinities, and values that overflow a float column.

JSON cannot hold such numbers, and sums and bins of them mean nothing. A null is rejected by a rule with a clear name.
"""

from __future__ import annotations

from functools import lru_cache

import polars as pl

from schema.family import Family, instance


def finite(frame: pl.DataFrame, family: Family) -> pl.DataFrame:
    """Return `frame` with every float of the family's columns that is not finite replaced by null."""
    names = _float_columns(family)
    if not frame.height or not names:
        return frame
    faulty = [name for name in names if not _is_finite(frame[name])]
    return frame.with_columns(_nulled(pl.col(name), family.wire[name]) for name in faulty) if faulty else frame


@lru_cache
def _float_columns(family: Family) -> tuple[str, ...]:
    return tuple(name for name, dtype in family.wire.items() if _holds_floats(dtype))


def _holds_floats(dtype: pl.DataType) -> bool:
    if isinstance(dtype, pl.List):
        return _holds_floats(instance(dtype.inner))
    if isinstance(dtype, pl.Struct):
        return any(_holds_floats(instance(part.dtype)) for part in dtype.fields)
    return dtype.is_float()


def _is_finite(values: pl.Series) -> bool:
    if isinstance(values.dtype, pl.List):
        return _is_finite(values.explode())
    if isinstance(values.dtype, pl.Struct):
        return all(_is_finite(values.struct.field(part.name)) for part in values.dtype.fields)
    return not values.dtype.is_float() or bool(values.is_finite().all())


def _nulled(value: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Return `value` with null in place of floats that are not finite, at any depth."""
    if not _holds_floats(dtype):
        return value
    if isinstance(dtype, pl.List):
        return value.list.eval(_nulled(pl.element(), instance(dtype.inner)))
    if isinstance(dtype, pl.Struct):
        parts = [_nulled(value.struct.field(part.name), instance(part.dtype)).alias(part.name) for part in dtype.fields]
        return pl.when(value.is_not_null()).then(pl.struct(parts))
    return pl.when(value.is_finite()).then(value)
