"""Shingles compared with a plain implementation of their definition, one text at a time."""

from __future__ import annotations

import re

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema.routing import smallest_shingle
from schema.shingles import FACTORS, MOST_WORDS, shingles, smallest

# Bytes of UTF-8: those of non-ASCII characters are part of a word, unchanged.
WORD = re.compile(rb"[a-z0-9\x80-\xff]+")
MASK = 2**64 - 1

letters = st.text(st.sampled_from("aBz09 .,\n-'éßÉ漢😀"), max_size=40)
texts = st.lists(st.one_of(st.none(), letters, st.text(max_size=30)), max_size=8)


def words(text: str) -> list[bytes]:
    ascii_lowered = text.encode().translate(bytes(range(65)) + bytes(range(97, 123)) + bytes(range(91, 256)))
    return WORD.findall(ascii_lowered)


def plain(text: str | None, width: int = 3) -> list[int]:
    """FNV-1a of each word; `width` of them at a time, each times its factor, through the finaliser of splitmix64."""
    if text is None:
        return []
    hashes = [0] * width
    for word in words(text):
        value = 0xCBF29CE484222325
        for byte in word:
            value = (value ^ byte) * 0x100000001B3 & MASK
        hashes.append(value)
    runs = [hashes[at : at + width] for at in range(width, len(hashes) - width + 1)] or [hashes[-width:]]
    return [mixed(run) for run in runs]


def mixed(run: list[int]) -> int:
    factors = [0xD6E8FEB86659FD93, 0xA0761D6478BD642F, 0xE7037ED1A0B428DB, *(int(value) for value in FACTORS[3:])]
    value = sum(factor * part for factor, part in zip(factors, run, strict=False)) + 0x9E3779B97F4A7C15 & MASK
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & MASK
    value = (value ^ value >> 27) * 0x94D049BB133111EB & MASK
    return value ^ value >> 31


def by_text(series: pl.Series, width: int = 3) -> list[list[int]]:
    hashes, offsets = shingles(series, width)
    return [piece.tolist() for piece in np.split(hashes, offsets[1:-1])] if len(series) else []


@given(texts, st.sampled_from([1, 2, 3, 5, MOST_WORDS]))
def test_shingles_follow_the_definition(values: list[str | None], width: int) -> None:
    assert by_text(pl.Series(values, dtype=pl.String), width) == [plain(value, width) for value in values]


@given(texts, st.sampled_from([3, 5]))
def test_the_smallest_is_the_minimum_and_null_for_null(values: list[str | None], width: int) -> None:
    expected = [min(hashes) if (hashes := plain(value, width)) else None for value in values]
    assert smallest(pl.Series(values, dtype=pl.String), width).to_list() == expected


@pytest.mark.parametrize("width", [0, MOST_WORDS + 1])
def test_a_shingle_of_another_width_is_refused(width: int) -> None:
    for function in (shingles, smallest):
        with pytest.raises(ValueError, match=f"1 to 13 words, not {width}"):
            function(pl.Series(["a b c"]), width)


@given(texts, st.integers(0, 8), st.integers(0, 8), st.integers(1, 3))
def test_a_part_of_a_series_has_the_shingles_of_its_own_texts(
    values: list[str | None], start: int, length: int, step: int
) -> None:
    series = pl.Series(values, dtype=pl.String)
    chunked = pl.concat([series, series], rechunk=False)
    every = [plain(value) for value in values]
    assert by_text(series.slice(start, length)) == every[start : start + length]
    assert by_text(series.gather_every(step)) == every[::step]
    assert by_text(series.filter(series.is_not_null())) == [hashes for hashes in every if hashes]
    assert by_text(chunked.slice(start)) == (every + every)[start:]


@given(letters)
def test_case_and_punctuation_change_nothing(text: str) -> None:
    plainer = " ".join(word.decode() for word in words(text))
    assert by_text(pl.Series([text])) == by_text(pl.Series([f" «{plainer}» ".replace("«", "!").replace("»", "?")]))


@pytest.mark.parametrize(
    ("text", "count"), [("", 1), ("...", 1), ("one", 1), ("one two", 1), ("a b c", 1), ("a b c d", 2)]
)
def test_a_short_text_is_one_shingle(text: str, count: int) -> None:
    assert len(by_text(pl.Series([text]))[0]) == count


def test_hashes_never_change_because_rows_are_routed_by_them() -> None:
    frame = pl.DataFrame({"text": ["The quick brown fox jumps.", None, ""]})
    hashes = frame.select(smallest_shingle(pl.col("text"))).to_series()
    assert hashes.dtype == pl.UInt64
    assert hashes.to_list() == [4794638821040192022, None, 16294208416658607535]
    code = pl.Series(["def area(width, height): return width * height", None, "", "two words"])
    assert smallest(code, 5).to_list() == [980990285683701473, None, 16294208416658607535, 9894408016506939541]
