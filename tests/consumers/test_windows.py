from __future__ import annotations

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from consumers.windows import Windows

SCHEMA = {"n": pl.Int64()}


def cut(pieces: list[int], rows: int, batch_size: int) -> list[list[int]]:
    windows = Windows(SCHEMA, rows, batch_size)
    found, first = [], 0
    for height in pieces:
        found += list(windows.add(pl.DataFrame({"n": range(first, first + height)}, schema=SCHEMA)))
        first += height
    return [window["n"].to_list() for window in [*found, windows.flush()]]


@given(st.lists(st.integers(0, 30), max_size=12), st.integers(1, 40), st.integers(1, 10))
def test_windows_do_not_depend_on_how_rows_come_in(pieces: list[int], rows: int, batch_size: int) -> None:
    assert cut(pieces, rows, batch_size) == cut([1] * sum(pieces), rows, batch_size)


@given(st.lists(st.integers(0, 30), max_size=12), st.integers(1, 40), st.integers(1, 10))
def test_windows_hold_all_rows_in_order_in_whole_batches(pieces: list[int], rows: int, batch_size: int) -> None:
    windows = cut(pieces, rows, batch_size)
    assert [row for window in windows for row in window] == list(range(sum(pieces)))
    assert all(len(window) % batch_size == 0 for window in windows[:-1])
    assert all(len(window) <= max(rows, batch_size) for window in windows)
