"""Strings and lists as flat buffers: the bounds are right for sliced, filtered, chunked and null values."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema.buffers import lists, lists_of, strings, strings_of

TEXTS = st.lists(st.one_of(st.none(), st.text(max_size=20)), max_size=8)
# Operations on a series before it is read; each gives another memory layout.
CUTS = st.sampled_from(["whole", "slice", "filter", "chunks", "hide"])


def cut(series: pl.Series, how: str) -> pl.Series:
    if how == "slice":
        return series[1:-1]
    if how == "filter":
        return series.filter(pl.Series([place % 2 == 0 for place in range(len(series))], dtype=pl.Boolean))
    if how == "hide":
        shown = pl.Series([place % 2 == 0 for place in range(len(series))], dtype=pl.Boolean)
        return pl.select(pl.when(shown).then(series)).to_series()
    return pl.concat([series, series], rechunk=False) if how == "chunks" else series


@given(TEXTS, CUTS)
def test_a_text_is_the_bytes_between_its_bounds(texts: list[str | None], how: str) -> None:
    series = cut(pl.Series(texts, dtype=pl.String), how)
    data, bounds = strings(series)
    read = [bytes(data[start:end]).decode() for start, end in pairwise(bounds)]
    assert read == [text or "" for text in series.to_list()]
    assert data.size > 0
    assert not data.flags.writeable
    assert not bounds.flags.writeable


@given(st.lists(st.one_of(st.none(), TEXTS), max_size=8), CUTS)
def test_a_list_is_the_items_between_its_bounds(values: list[list[str | None] | None], how: str) -> None:
    series = cut(pl.Series(values, dtype=pl.List(pl.String)), how)
    bounds, items = lists(series)
    item_list = items.to_pylist()
    read = [item_list[start:end] for start, end in pairwise(bounds)]
    assert read == [value or [] for value in series.to_list()]
    assert not bounds.flags.writeable


def test_bytes_under_a_null_are_not_read() -> None:
    data, bounds = strings(cut(pl.Series(["a text", "one of more than twelve bytes", "b"]), "hide"))
    assert (bounds.tolist(), bytes(data)) == ([0, 6, 6, 7], b"a textb")
    bounds, items = lists(cut(pl.Series([["a"], ["b", "c"], ["d"]]), "hide"))
    assert (bounds.tolist(), items.to_pylist()) == ([0, 1, 1, 2], ["a", "d"])


@given(st.lists(st.text(max_size=20), max_size=8), CUTS)
def test_texts_written_as_buffers_are_read_again(texts: list[str], how: str) -> None:
    series = cut(pl.Series(texts, dtype=pl.String), how)
    written = strings_of(*strings(series))
    assert written.to_list() == series.fill_null("").to_list()
    assert written.dtype == pl.String


@given(st.lists(TEXTS, max_size=8))
def test_items_are_listed_by_their_lengths(values: list[list[str | None]]) -> None:
    items = pl.Series([item for value in values for item in value], dtype=pl.String)
    lengths = np.array([len(value) for value in values], dtype=np.int64)
    for given_as in (items, items.to_arrow()):
        assert lists_of(given_as, lengths).to_list() == values


def test_other_types_are_refused() -> None:
    with pytest.raises(TypeError, match="must be strings"):
        strings(pl.Series([1]))
    with pytest.raises(TypeError, match="must be lists"):
        lists(pl.Series(["a"]))
