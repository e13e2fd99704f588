"""Strings and lists of a frame as the flat buffers that compiled code reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

Array = npt.NDArray[Any]


def strings(texts: pl.Series | pa.LargeStringArray) -> tuple[Array, Array]:
    """Return texts as (bytes, bounds): text i is bytes[bounds[i]:bounds[i + 1]]; a null is empty.

    Both are read-only views: uint8, never empty, and int64, one more than there are texts.

    Raises:
        TypeError: they are no strings.
    """
    array = texts.to_arrow(compat_level=pl.CompatLevel.oldest()) if isinstance(texts, pl.Series) else texts
    if not isinstance(array, pa.LargeStringArray):
        raise TypeError(f"texts must be strings, not {array.type}")
    _, bounds, data = array.buffers()
    return (
        _read_only(data if data is not None and data.size else b"\0", np.uint8),
        _read_only(bounds, np.int64)[array.offset : array.offset + len(array) + 1],
    )


def lists(values: pl.Series) -> tuple[Array, pa.Array]:
    """Return lists as (bounds, items): list i is items[bounds[i]:bounds[i + 1]]; a null is empty.

    Raises:
        TypeError: they are no lists.
    """
    array = values.to_arrow(compat_level=pl.CompatLevel.oldest())
    if not isinstance(array, pa.LargeListArray):
        raise TypeError(f"values must be lists, not {values.dtype}")
    bounds = _read_only(array.buffers()[1], np.int64)[array.offset : array.offset + len(array) + 1]
    if not array.null_count:
        return bounds, array.values
    # What lies under a null is whatever stood there.
    valid = np.asarray(array.is_valid())
    lengths = np.diff(bounds)
    inside = array.values.slice(bounds[0], bounds[-1] - bounds[0]).filter(pa.array(np.repeat(valid, lengths)))
    held = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.where(valid, lengths, 0))])
    return _read_only(held, np.int64), inside


def _read_only(buffer: object, dtype: type[np.generic]) -> Array:
    view = np.frombuffer(buffer, dtype=dtype)  # type: ignore[call-overload]
    view.setflags(write=False)
    return view  # type: ignore[no-any-return]
