"""Convert columns of strings and lists to the flat buffers that compiled code reads, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

Array = npt.NDArray[Any]


def strings(texts: pl.Series | pa.LargeStringArray) -> tuple[Array, Array]:
    """Return texts as (bytes, bounds): text i is bytes[bounds[i]:bounds[i + 1]]; a null is empty.

    Both are read-only views. `bytes` is uint8 and never empty; `bounds` is int64 with one item more than `texts`.

    Raises:
        TypeError: `texts` are not strings.
    """
    array = texts.to_arrow(compat_level=pl.CompatLevel.oldest()) if isinstance(texts, pl.Series) else texts
    if not isinstance(array, pa.LargeStringArray):
        raise TypeError(f"texts must be strings, not {array.type}")
    if array.null_count:
        # Under a null, the buffer may hold any bytes.
        array = array.fill_null("")
    _, bounds, data = array.buffers()
    return (
        _read_only(data if data is not None and data.size else b"\0", np.uint8),
        _read_only(bounds, np.int64)[array.offset : array.offset + len(array) + 1],
    )


def lists(values: pl.Series) -> tuple[Array, pa.Array]:
    """Return lists as (bounds, items): list i is items[bounds[i]:bounds[i + 1]]; a null is empty.

    Raises:
        TypeError: `values` are not lists.
    """
    array = values.to_arrow(compat_level=pl.CompatLevel.oldest())
    if not isinstance(array, pa.LargeListArray):
        raise TypeError(f"values must be lists, not {values.dtype}")
    bounds = _read_only(array.buffers()[1], np.int64)[array.offset : array.offset + len(array) + 1]
    if not array.null_count:
        return bounds, array.values
    valid = np.asarray(array.is_valid())
    lengths = np.diff(bounds)
    inside = array.values.slice(bounds[0], bounds[-1] - bounds[0]).filter(pa.array(np.repeat(valid, lengths)))
    valid_bounds = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.where(valid, lengths, 0))])
    return _read_only(valid_bounds, np.int64), inside


def strings_of(data: Array, bounds: Array) -> pl.Series:
    """Return the texts data[bounds[i]:bounds[i + 1]] (UTF-8; uint8 and int64) as a series that uses these buffers."""
    array = pa.LargeStringArray.from_buffers(len(bounds) - 1, pa.py_buffer(bounds), pa.py_buffer(data))
    return pl.Series(array, dtype=pl.String)


def lists_of(items: pl.Series | pa.Array, lengths: Array) -> pl.Series:
    """Return `items` cut into consecutive lists of `lengths` (N,)."""
    bounds = pa.array(np.concatenate([[0], np.cumsum(lengths)]), type=pa.int64())
    array = items.to_arrow() if isinstance(items, pl.Series) else items
    return pl.Series(pa.LargeListArray.from_arrays(bounds, array))


def _read_only(buffer: object, dtype: type[np.generic]) -> Array:
    view = np.frombuffer(buffer, dtype=dtype)  # type: ignore[call-overload]
    view.setflags(write=False)
    return view  # type: ignore[no-any-return]
