"""The compiled encoder of reduction terms: characters in, padded tokens out.

Two things make it fast. Comparisons, not a table, turn a character into its token, so that one instruction handles many
characters. The next terms are fetched into the cache ahead of time, because a shuffled batch reads terms from all over
the window.

All compiled code of this module is in this file, as `schema.compiled` requires.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from consumers.reduction.alphabet import ALPHABET, BOS, EOS, PAD
from consumers.tensor_form import Indices
from schema.compiled import compiled

# Token of a character outside the alphabet; all other tokens are smaller, and or-ed together never give this value.
FOREIGN = 255
# Rows that are fetched into the cache ahead of the row that is written.
_ROWS_AHEAD = 4
_NUMBERS_AHEAD = 16
_CACHE_LINE_BYTES = 64

# The first token of each range of the alphabet, and the range's first character.
_FIRST_TOKEN = 3
_SLASH, _DOT, _OPEN, _CLOSE = (ord(character) for character in ALPHABET[:4])
_DIGIT, _LOWER, _UPPER = (ord(character) for character in "0aA")
_DIGITS, _LETTERS = 10, 26
_DIGIT_TOKEN = _FIRST_TOKEN + 4
_LOWER_TOKEN = _DIGIT_TOKEN + _DIGITS
_UPPER_TOKEN = _LOWER_TOKEN + _LETTERS


@intrinsic
def _prefetch(_typing: Any, array: Any, index: Any) -> Any:
    """Prefetch the cache line of item `index` of a contiguous array; any index is safe."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        address = builder.bitcast(builder.gep(data, [arguments[1]]), byte)
        # Arguments: to read, to keep in all caches, as data.
        builder.call(function, [address, word(0), word(3), word(1)])
        return context.get_dummy_value()

    return types.void(array, index), generate


@compiled
def longest_term(offsets: npt.NDArray[np.int64], rows: Indices) -> int:
    """Return the length of the longest of the terms `rows` (B,); term r is offsets[r] to offsets[r + 1]."""
    longest = 0
    for row in rows:
        longest = max(longest, offsets[row + 1] - offsets[row])
    return longest


@compiled
def write_terms(
    flat: npt.NDArray[np.uint8],
    offsets: npt.NDArray[np.int64],
    rows: Indices,
    tokens: npt.NDArray[np.int64],
    mask: npt.NDArray[np.bool_],
) -> int:
    """Write the terms `rows` (B,) into `tokens` and `mask` (B, T), and return all tokens or-ed together.

    The result is `FOREIGN` if and only if a character is outside the alphabet, because the bits of other tokens never
    add up to it.
    """
    seen = np.uint8(0)
    for number in range(len(rows)):
        ahead = number + _ROWS_AHEAD
        if ahead < len(rows):
            for place in range(offsets[rows[ahead]], offsets[rows[ahead] + 1], _CACHE_LINE_BYTES):
                _prefetch(flat, place)
        begin = offsets[rows[number]]
        length = offsets[rows[number] + 1] - begin
        term, line, real = flat[begin : begin + length], tokens[number], mask[number]
        line[0] = BOS
        for column in range(length):
            character = term[column]
            digit = np.uint8(character - _DIGIT)
            lower = np.uint8(character - _LOWER)
            upper = np.uint8(character - _UPPER)
            token = np.uint8(FOREIGN)
            token = np.uint8(digit + _DIGIT_TOKEN) if digit < _DIGITS else token
            token = np.uint8(lower + _LOWER_TOKEN) if lower < _LETTERS else token
            token = np.uint8(upper + _UPPER_TOKEN) if upper < _LETTERS else token
            token = np.uint8(_FIRST_TOKEN) if character == _SLASH else token
            token = np.uint8(_FIRST_TOKEN + 1) if character == _DOT else token
            token = np.uint8(_FIRST_TOKEN + 2) if character == _OPEN else token
            token = np.uint8(_FIRST_TOKEN + 3) if character == _CLOSE else token
            seen |= token
            line[column + 1] = np.int64(token)
        line[length + 1] = EOS
        line[length + 2 :] = PAD
        real[: length + 2] = True
        real[length + 2 :] = False
    return int(seen)


@compiled
def gather_numbers(
    narrow: tuple[npt.NDArray[np.int32], ...],
    wide: tuple[npt.NDArray[np.int64], ...],
    ends: npt.NDArray[np.bool_],
    no_span: int,
    numbers: npt.NDArray[np.int64],
) -> int:
    """Write a window's columns row by row into `numbers` (N, 4 + W), and return the number of misplaced markers.

    Args:
        narrow: span_start, span_end, size and depth, (N,) each.
        wide: W columns, (N,) each.
        ends: (N,) whether the row is the last of its trace; only there a marker (a span of (0, 0)) is valid.
        no_span: value of both ends of a misplaced marker.
        numbers: the output: the span in tokens, size, depth, and the wide columns.
    """
    misplaced = 0
    span_start, span_end, size, depth = narrow
    for row in range(len(numbers)):
        start, end = span_start[row], span_end[row]
        line = numbers[row]
        if start != 0 or end != 0:
            # A token's position is its character's offset plus 1, because BOS comes first.
            line[0], line[1] = start + 1, end + 1
        elif ends[row]:
            line[0], line[1] = 0, 0
        else:
            line[0], line[1] = no_span, no_span
            misplaced += 1
        line[2], line[3] = size[row], depth[row]
        for column in range(len(wide)):
            line[4 + column] = wide[column][row]
    return misplaced


@compiled
def pick_numbers(
    numbers: npt.NDArray[np.int64],
    rows: Indices,
    span: npt.NDArray[np.int64],
    is_normal_form: npt.NDArray[np.bool_],
    columns: npt.NDArray[np.int64],
) -> None:
    """Copy rows (B,) of `numbers` (N, 2 + K): the first two columns to `span` (B, 2), the others to `columns` (K, B).

    A row is a normal form if the span's end is 0.
    """
    width = numbers.shape[1]
    for number in range(len(rows)):
        ahead = number + _NUMBERS_AHEAD
        if ahead < len(rows):
            # A row of numbers may lie in two cache lines.
            _prefetch(numbers, rows[ahead] * width)
            _prefetch(numbers, rows[ahead] * width + width - 1)
        values = numbers[rows[number]]
        span[number, 0] = values[0]
        span[number, 1] = values[1]
        is_normal_form[number] = values[1] == 0
        for column in range(len(columns)):
            columns[column, number] = values[2 + column]
