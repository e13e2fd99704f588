"""Arrow columns whose values can be far larger than their buffers: dictionaries and string views.

A dictionary of one long text and a million indices is small until each index becomes a text. Many string views can
refer to the same bytes. `plain_table` checks the size before it writes the values out.
"""

from __future__ import annotations

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from schema.errors import RecordError


def is_expanding(dtype: pa.DataType) -> bool:
    """Return whether values of `dtype` can be larger than their buffers, or have a form that Feedmill cannot read."""
    if (
        pa.types.is_dictionary(dtype)
        or pa.types.is_string_view(dtype)
        or pa.types.is_binary_view(dtype)
        or pa.types.is_run_end_encoded(dtype)
        or pa.types.is_list_view(dtype)
        or pa.types.is_large_list_view(dtype)
    ):
        return True
    return any(is_expanding(dtype.field(index).type) for index in range(dtype.num_fields))


def plain_table(table: pa.Table, max_bytes: int) -> pa.Table:
    """Return `table` with its dictionaries written out as plain columns.

    Raises:
        RecordError: `too_many_bytes`: the values take more than `max_bytes`. `wrong_type`: a column has a form that
            Feedmill cannot read (a dictionary inside a list or struct, run-end encoding, list views).
    """
    for number, field in enumerate(table.schema):
        if not is_expanding(field.type):
            continue
        column = table.column(number)
        size = sum(
            _dictionary_bytes(chunk) if pa.types.is_dictionary(field.type) else _view_bytes(chunk, field)
            for chunk in column.chunks
        )
        if size > max_bytes:
            raise RecordError(
                "too_many_bytes", f"column {field.name} takes {size} bytes once written out, over {max_bytes}"
            )
        if pa.types.is_dictionary(field.type):
            plain = pa.chunked_array([chunk.dictionary_decode() for chunk in column.chunks], field.type.value_type)
            table = table.set_column(number, field.name, plain)
    return table


def _dictionary_bytes(chunk: pa.DictionaryArray) -> int:
    values = chunk.dictionary
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        return int(pc.sum(pc.take(pc.binary_length(values), chunk.indices).cast(pa.int64())).as_py() or 0)
    if pa.types.is_primitive(values.type):
        return len(chunk) * max(int(values.type.bit_width) // 8, 1)
    raise RecordError("wrong_type", f"a dictionary of {values.type} cannot be read: send the column itself")


def _view_bytes(chunk: pa.Array, field: pa.Field) -> int:
    """Return the bytes of all texts in a column that holds string views, at any depth."""
    try:
        return _text_bytes(pl.Series(pl.from_arrow(chunk)))
    except MemoryError:
        raise
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, pa.ArrowException, ValueError) as error:
        message = f"column {field.name} cannot be read: {str(error)[:200]}"
        raise RecordError("wrong_type", message) from error


def _text_bytes(values: pl.Series) -> int:
    if isinstance(values.dtype, pl.String):
        return int(values.str.len_bytes().sum())
    if isinstance(values.dtype, pl.List):
        return _text_bytes(values.explode())
    if isinstance(values.dtype, pl.Struct):
        return sum(_text_bytes(values.struct.field(part.name)) for part in values.dtype.fields)
    if isinstance(values.dtype, pl.Categorical | pl.Enum):
        raise RecordError(
            "wrong_type", "a dictionary inside a list or struct cannot be read: send the values themselves"
        )
    return 0
