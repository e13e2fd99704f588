r"""One beta step at a given span of a term's text: the redex `(\.M)N` becomes M with N in place of M's index 0.

A call reduces many terms, directly in the text form of `schema.reduction.text`. Any span is accepted, because a model
may predict any. A span that cannot be reduced gives a verdict, not an exception.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from schema.buffers import strings, strings_of
from schema.compiled import compiled
from schema.reduction.text import INDICES

Array = npt.NDArray[Any]

# Verdicts.
CONTRACTED, NOT_A_REDEX, SIZE_CAPPED, UNRENDERABLE = range(4)

_LAMBDA, _DOT, _OPEN, _CLOSE = b"\\.()"
# The index that each byte means; bytes that mean no index have `_NO_INDEX`.
_NO_INDEX = 255
_INDEX_OF = np.full(256, _NO_INDEX, dtype=np.uint8)
_INDEX_OF[list(INDICES)] = np.arange(len(INDICES), dtype=np.uint8)
_GLYPHS = np.frombuffer(INDICES, dtype=np.uint8)
# `(\.0)0`
_SHORTEST = 6

# Places in the array `measures`: where M ends, the number of holes, the number of N's free indices, bytes needed.
_BODY_END, _HOLES, _FREE, _ROOM = range(4)


@dataclass(frozen=True, eq=False)
class Contractions:
    """The results of one beta step on N terms.

    Attributes:
        terms: (N,) Utf8, the terms after the step; null if the term was not reduced.
        verdicts: (N,) int8: `CONTRACTED`, or the reason for a null: `NOT_A_REDEX`, `SIZE_CAPPED` (the next term has
            too many nodes) or `UNRENDERABLE` (the next term needs an index above 61).
    """

    terms: pl.Series
    verdicts: npt.NDArray[np.int8]


def contract(terms: pl.Series, spans: npt.NDArray[np.int64], size_cap: int) -> Contractions:
    r"""Contract the redex at the given span of each term.

    A span is a redex if it covers an abstraction in parentheses in head position and its first argument. Parentheses
    around both are outside the span: in `0((\.0)12)` it is [2, 7). Takes 1.3 us for a term of 250 characters.

    Args:
        terms: (N,) Utf8, well-formed. The verdict for a malformed term or a null is arbitrary.
        spans: (N, 2) half-open character offsets; any numbers, (0, 0) too.
        size_cap: the most nodes of the next term.

    Raises:
        TypeError: the terms are not strings.
        ValueError: the number of spans differs from the number of terms.
    """
    if spans.shape != (len(terms), 2):
        raise ValueError(f"{len(terms)} terms need spans of shape ({len(terms)}, 2), not {spans.shape}")
    data, offsets = strings(terms)
    # A copy, so that compiled code always gets the same kind of array.
    places = np.array(spans, dtype=np.int64, order="C")
    text, text_offsets, verdicts = _contract_terms(data, offsets, places, size_cap, _INDEX_OF, _GLYPHS)
    written = strings_of(text, text_offsets).alias(terms.name)
    return Contractions(written.set(pl.Series(verdicts != CONTRACTED), None), verdicts)


@compiled
def _contract_terms(
    data: Array, offsets: Array, spans: Array, size_cap: int, index_of: Array, glyphs: Array
) -> tuple[Array, Array, Array]:
    """Return (text, text offsets, verdicts) of the terms data[offsets[i]:offsets[i + 1]] after a step at spans[i]."""
    rows = offsets.size - 1
    longest = 0
    for row in range(rows):
        longest = max(longest, offsets[row + 1] - offsets[row])
    text = np.empty(2 * (offsets[rows] - offsets[0]) + 2, dtype=np.uint8)
    text_offsets = np.zeros(rows + 1, dtype=np.int64)
    verdicts = np.empty(rows, dtype=np.int8)
    marks = np.empty((4, longest + 1), dtype=np.int64)
    measures = np.empty(4, dtype=np.int64)
    for row in range(rows):
        at = text_offsets[row]
        term = data[offsets[row] : offsets[row + 1]]
        start, end = spans[row, 0], spans[row, 1]
        written = 0
        verdict = _measure(term, start, end, size_cap, index_of, marks, measures)
        if verdict == CONTRACTED:
            if at + measures[_ROOM] > text.size:
                larger = np.empty(max(at + measures[_ROOM], 2 * text.size), dtype=np.uint8)
                larger[:at] = text[:at]
                text = larger
            written = _write(term, start, end, index_of, glyphs, marks, measures, text[at:])
            if written < 0:
                verdict, written = UNRENDERABLE, 0
        verdicts[row] = verdict
        text_offsets[row + 1] = at + written
    return text, text_offsets, verdicts


@compiled
def _measure(term: Array, start: int, end: int, size_cap: int, index_of: Array, marks: Array, measures: Array) -> int:
    r"""Return the verdict on a step at term[start:end]; `_write` finds indices that are too large.

    Fills for `_write`:

    - `marks` (4, length + 1): the places of the holes (M's indices that N replaces), the number of M's abstractions
      around each hole, and the places of N's free indices; the fourth row is scratch.
    - `measures` (4,): where M ends, the number of holes, the number of free indices, the most bytes of the next term.
    """
    holes, hole_depths, free, depths = marks[0], marks[1], marks[2], marks[3]
    # 1. The span must begin at an abstraction in parentheses at the head of a spine.
    if start < 0 or end > term.size or end - start < _SHORTEST:
        return NOT_A_REDEX
    if term[start] != _OPEN or term[start + 1] != _LAMBDA:
        return NOT_A_REDEX
    if start > 0 and term[start - 1] != _OPEN and term[start - 1] != _DOT:
        return NOT_A_REDEX
    # 2. Read M up to its closing parenthesis. An index equal to the number of abstractions around it is a hole.
    at, level, depth, hole_count = start + 3, 0, 0, 0
    while at < end:
        byte = term[at]
        if byte == _OPEN:
            depths[level] = depth
            level += 1
        elif byte == _CLOSE:
            level -= 1
            if level < 0:
                break
            depth = depths[level]
        elif byte == _LAMBDA:
            depth += 1
        elif index_of[byte] == depth < _NO_INDEX:
            holes[hole_count], hole_depths[hole_count] = at, depth
            hole_count += 1
        at += 1
    body_end = at
    # 3. Read N, an index or one pair of parentheses with its content. The span must end with N.
    at, level, depth, free_count = body_end + 1, 0, 0, 0
    while at < end:
        byte = term[at]
        if byte == _OPEN:
            depths[level] = depth
            level += 1
        elif byte == _CLOSE:
            level -= 1
            if level < 0:
                return NOT_A_REDEX
            depth = depths[level]
        elif byte == _LAMBDA:
            depth += 1
        elif depth <= index_of[byte] < _NO_INDEX:
            free[free_count] = at
            free_count += 1
        at += 1
        if level == 0:
            break
    if at != end or level > 0 or body_end + 1 >= end:
        return NOT_A_REDEX
    # 4. Count the nodes of the next term: the application, its abstraction and N are removed; N replaces every hole.
    argument_size = _size(term[body_end + 1 : end], index_of)
    if _size(term, index_of) - 2 - argument_size + hole_count * (argument_size - 1) > size_cap:
        return SIZE_CAPPED
    measures[_BODY_END], measures[_HOLES], measures[_FREE] = body_end, hole_count, free_count
    # New parentheses around M take the place of the old ones.
    measures[_ROOM] = term.size + hole_count * (end - body_end)
    return CONTRACTED


@compiled
def _size(term: Array, index_of: Array) -> int:
    """Return the number of nodes: a term with n indices has n - 1 applications."""
    indices, abstractions = 0, 0
    for byte in term:
        indices += index_of[byte] != _NO_INDEX
        abstractions += byte == _LAMBDA
    return 2 * indices - 1 + abstractions


@compiled
def _write(
    term: Array, start: int, end: int, index_of: Array, glyphs: Array, marks: Array, measures: Array, text: Array
) -> int:
    """Write the term after the step at term[start:end] to `text`; return its length, or -1 if an index is too large.

    `_measure` has filled `marks` and `measures`.
    """
    holes, hole_depths, free = marks[0], marks[1], marks[2]
    body, body_end, hole_count, free_count = start + 3, measures[_BODY_END], measures[_HOLES], measures[_FREE]
    # N is in parentheses if it is more than an index.
    enclosed = int(term[body_end + 1] == _OPEN)
    bare, bare_end = body_end + 1 + enclosed, end - enclosed
    argument_is_abstraction = term[bare] == _LAMBDA
    # 1. Write the text before the redex. The result begins like M, or like N if M is only a hole.
    is_hole = body_end - body == 1 and hole_count == 1
    first, length = (bare, bare_end - bare) if is_hole else (body, body_end - body)
    ends_spine = end == term.size or term[end] == _CLOSE
    adds = not ends_spine and term[first] == _LAMBDA
    # An argument that becomes an index loses its parentheses.
    drops = int(ends_spine and start > 0 and term[start - 1] == _OPEN and length == 1)
    at = 0
    for i in range(start - drops):
        text[at] = term[i]
        at += 1
    if adds:
        text[at] = _OPEN
        at += 1
    # 2. Write M, with its indices bound outside the redex lowered by one and N in the holes.
    hole, depth, level = 0, 0, 0
    depths = marks[3]
    for i in range(body, body_end):
        byte = term[i]
        if hole == hole_count or i != holes[hole]:
            if byte == _OPEN:
                depths[level] = depth
                level += 1
            elif byte == _CLOSE:
                level -= 1
                depth = depths[level]
            elif byte == _LAMBDA:
                depth += 1
            elif depth < index_of[byte] < _NO_INDEX:
                byte = glyphs[index_of[byte] - 1]
            text[at] = byte
            at += 1
            continue
        # At the head of a spine, N needs its parentheses only if it is an abstraction and an argument follows.
        heads = i == body or term[i - 1] == _OPEN or term[i - 1] == _DOT
        followed = i + 1 < body_end and term[i + 1] != _CLOSE
        keeps_parentheses = not heads or (followed and argument_is_abstraction)
        read, stop = (body_end + 1, end) if keeps_parentheses else (bare, bare_end)
        next_free = 0
        for k in range(read, stop):
            byte = term[k]
            if next_free < free_count and k == free[next_free]:
                raised = index_of[byte] + hole_depths[hole]
                if raised >= glyphs.size:
                    return -1
                byte = glyphs[raised]
                next_free += 1
            text[at] = byte
            at += 1
        hole += 1
    # 3. Write the text after the redex.
    if adds:
        text[at] = _CLOSE
        at += 1
    for i in range(end + drops, term.size):
        text[at] = term[i]
        at += 1
    return at
