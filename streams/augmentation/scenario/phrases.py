"""Replace a phrase in texts by another one, as whole words; each row has its own two phrases."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from schema.buffers import strings, strings_of
from schema.compiled import compiled

Array = npt.NDArray[Any]

UNSURE = -1
_HYPHEN, _UNDERSCORE, _CASE_BIT = ord("-"), ord("_"), 32
# General punctuation, such as curly quotation marks, is U+2000 to U+203F in UTF-8: these two and one byte more.
_PUNCTUATION = (0xE2, 0x80)
_NONE, _EXACT, _CAPITAL, _DOUBTFUL = range(4)


def replaced(texts: pl.Series, old: pl.Series, new: pl.Series) -> tuple[pl.Series, Array]:
    """Return (texts with each row's `old` replaced by its `new`, (N,) the number of replacements, or `UNSURE`).

    A phrase counts only if its neighbours are no letters, digits, hyphens or underscores. If it begins with a capital
    letter that `old` does not have, `new` gets a capital letter, too. The row is `UNSURE`, and its text is kept, if the
    phrase has another case or a neighbour beyond ASCII, which may belong to the word.

    Args:
        texts, old, new: (N,) Utf8, without nulls; an empty `old` is found nowhere.
    """
    data, old_data, new_data = (strings(series) for series in (texts, old, new))
    counts = np.zeros(len(texts), dtype=np.int64)
    _count(*data, *old_data, counts)
    bounds = np.zeros(len(texts) + 1, dtype=np.int64)
    growth = np.maximum(counts, 0) * (np.diff(new_data[1]) - np.diff(old_data[1]))
    np.cumsum(np.diff(data[1]) + growth, out=bounds[1:])
    written = np.empty(bounds[-1], dtype=np.uint8)
    _write(*data, *old_data, *new_data, counts, bounds, written)
    return strings_of(written, bounds).alias(texts.name), counts


@compiled
def _count(data: Array, bounds: Array, old: Array, old_bounds: Array, counts: Array) -> None:
    for row in range(counts.size):
        at, end = bounds[row], bounds[row + 1]
        start = at
        length = old_bounds[row + 1] - old_bounds[row]
        if length == 0:
            continue
        # The first byte is compared here, because a call for every byte would be slow.
        lower, upper = _cases(old[old_bounds[row]])
        while at + length <= end:
            if data[at] != lower and data[at] != upper:
                at += 1
                continue
            kind = _kind_at(data, start, at, end, old, old_bounds[row], length)
            if kind == _DOUBTFUL:
                counts[row] = UNSURE
                break
            counts[row] += kind != _NONE
            at += length if kind != _NONE else 1


@compiled
def _write(
    data: Array,
    bounds: Array,
    old: Array,
    old_bounds: Array,
    new: Array,
    new_bounds: Array,
    counts: Array,
    written_bounds: Array,
    written: Array,
) -> None:
    for row in range(counts.size):
        at, end = bounds[row], bounds[row + 1]
        start, to = at, written_bounds[row]
        length = old_bounds[row + 1] - old_bounds[row]
        left = max(counts[row], 0)
        lower, upper = _cases(old[old_bounds[row]]) if left else (np.uint8(0), np.uint8(0))
        while at < end:
            kind = _NONE
            if left > 0 and at + length <= end and (data[at] == lower or data[at] == upper):
                kind = _kind_at(data, start, at, end, old, old_bounds[row], length)
            if kind == _NONE:
                written[to] = data[at]
                to += 1
                at += 1
                continue
            first = to
            for place in range(new_bounds[row], new_bounds[row + 1]):
                written[to] = new[place]
                to += 1
            if kind == _CAPITAL and to > first and 97 <= written[first] <= 122:
                written[first] -= np.uint8(_CASE_BIT)
            at += length
            left -= 1


@compiled
def _kind_at(data: Array, start: int, at: int, end: int, old: Array, old_at: int, length: int) -> int:
    """Return how old[old_at:][:length] occurs at data[at] in the text data[start:end]: one of the four kinds."""
    if _folded(data[at]) != _folded(old[old_at]):
        return _NONE
    same = True
    for place in range(1, length):
        byte, wanted = data[at + place], old[old_at + place]
        if _folded(byte) != _folded(wanted):
            return _NONE
        same &= byte == wanted
    after = at + length
    before_is = _is_word(data[at - 1]) if at > start else np.uint8(0)
    after_is = _is_word(data[after]) if after < end else np.uint8(0)
    if before_is == 2 and at - start >= 3 and data[at - 3] == _PUNCTUATION[0] and data[at - 2] == _PUNCTUATION[1]:
        before_is = np.uint8(0)
    if after_is == 2 and end - after >= 3 and data[after] == _PUNCTUATION[0] and data[after + 1] == _PUNCTUATION[1]:
        after_is = np.uint8(0)
    if before_is == 1 or after_is == 1:
        return _NONE
    if before_is == 2 or after_is == 2 or not same:
        return _DOUBTFUL
    if data[at] == old[old_at]:
        return _EXACT
    return _CAPITAL if data[at] < old[old_at] else _DOUBTFUL


@compiled
def _cases(byte: Any) -> Any:
    """Return a byte in lower and in upper case; both are the byte itself if it is no ASCII letter."""
    lower = byte | np.uint8(_CASE_BIT)
    return (lower, lower ^ np.uint8(_CASE_BIT)) if 97 <= lower <= 122 else (byte, byte)


@compiled
def _folded(byte: Any) -> Any:
    """Return a byte in lower case, if it is an ASCII letter."""
    return np.uint8(byte | np.uint8(_CASE_BIT)) if 65 <= byte <= 90 else np.uint8(byte)


@compiled
def _is_word(byte: Any) -> Any:
    """Return 1 for a byte of a word, 2 for a byte beyond ASCII, else 0."""
    if byte >= 128:
        return np.uint8(2)
    letter = 97 <= (byte | np.uint8(_CASE_BIT)) <= 122
    return np.uint8(letter or 48 <= byte <= 57 or byte in (_HYPHEN, _UNDERSCORE))
