"""Traces: a term's normal-order reduction, step by step, and which of its terms become examples.

Terms are preorder tokens, as `sampling` writes them. In preorder the leftmost-outermost redex is the first application
that an abstraction follows at once; a step writes the next term behind the last one, so a trace lies whole in memory
when its examples are chosen.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from schema.compiled import compiled

Array = npt.NDArray[Any]

_APPLICATION, _ABSTRACTION, _FIRST_INDEX = 0, 1, 2
# The text form has 62 indices, 0 to 61.
_INDICES = 62

# Outcomes, as places in schema.reduction.columns.OUTCOMES.
NORMAL_FORM, FUEL_EXHAUSTED, SIZE_CAPPED, UNRENDERABLE = range(4)
_REDUCIBLE = -1

# Columns of the table of examples, one row each.
TRACE, STEP, STEPS_TOTAL, OUTCOME, REDEX = range(5)


@compiled
def reduce_terms(tokens: Array, offsets: Array, fuel: int, size_cap: int, keep: int) -> tuple[Array, Array, Array]:
    """Reduce each term tokens[offsets[i]:offsets[i + 1]] and return its examples as (tokens, offsets, table).

    At most `fuel` beta steps are taken. A step whose result has over `size_cap` nodes, or an index that has no
    character, is the last one counted, and its result is not kept. A trace gives `keep` examples at most: the first,
    the last, and evenly between. Example e is tokens[offsets[e]:offsets[e + 1]] with table[e] = (trace, step, steps
    taken, outcome, token at which the redex begins or -1); the examples of a trace stand together, in order.
    """
    traces = offsets.size - 1
    kept = np.empty(max(tokens.size * 4, size_cap), dtype=np.uint8)
    kept_offsets = np.zeros(traces * 16 + 1, dtype=np.int64)
    table = np.empty((traces * 16, 5), dtype=np.int32)
    count = 0
    trace = np.empty(size_cap * 64, dtype=np.uint8)
    ends = np.empty(fuel + 2, dtype=np.int64)
    redexes = np.empty(fuel + 2, dtype=np.int32)
    body = np.empty(size_cap, dtype=np.uint8)
    marks = np.empty((4, size_cap + 2), dtype=np.int32)
    for row in range(traces):
        size = offsets[row + 1] - offsets[row]
        trace[:size] = tokens[offsets[row] : offsets[row + 1]]
        ends[0], ends[1] = 0, size
        steps, redex, outcome = 0, 0, _REDUCIBLE
        while outcome == _REDUCIBLE:
            start, end = ends[steps], ends[steps + 1]
            # All before the redex was searched before, but for an application that may now apply an abstraction.
            redex = _find_redex(trace[start:end], max(redex - 1, 0))
            redexes[steps] = redex
            if redex < 0:
                outcome = NORMAL_FORM
            elif steps == fuel:
                outcome = FUEL_EXHAUSTED
            else:
                if end + size_cap > trace.size:
                    trace = _grown(trace, 0)
                size = _beta_step(trace[start:end], redex, trace[end : end + size_cap], body, marks)
                steps += 1
                if size > 0:
                    ends[steps + 1] = end + size
                else:
                    outcome = -size
        reached = steps + 1 if outcome == NORMAL_FORM else steps
        chosen = min(reached, keep)
        if count + chosen > table.shape[0]:
            larger = np.empty((table.shape[0] * 2 + chosen, 5), dtype=np.int32)
            larger[:count] = table[:count]
            table = larger
            kept_offsets = _grown(kept_offsets, table.shape[0] + 1)
        for choice in range(chosen):
            step = choice
            if reached > keep:
                step = (2 * choice * (reached - 1) + keep - 1) // (2 * (keep - 1))
            start, size = ends[step], ends[step + 1] - ends[step]
            at = kept_offsets[count]
            if at + size > kept.size:
                kept = _grown(kept, at + size)
            _copy(trace, start, kept, at, size)
            table[count, TRACE] = row
            table[count, STEP] = step
            table[count, STEPS_TOTAL] = steps
            table[count, OUTCOME] = outcome
            table[count, REDEX] = redexes[step]
            count += 1
            kept_offsets[count] = at + size
    return kept[: kept_offsets[count]], kept_offsets[: count + 1], table[:count]


@compiled
def _find_redex(term: Array, start: int) -> int:
    """Return the first application at `start` or after that an abstraction follows, or -1."""
    for i in range(start, term.size - 1):
        if term[i] == _APPLICATION and term[i + 1] == _ABSTRACTION:
            return i
    return -1


@compiled
def _beta_step(term: Array, redex: int, result: Array, body: Array, marks: Array) -> int:
    r"""Write `term` with (\.M)N at `redex` replaced by M[0 := N], and return its size.

    Returns -SIZE_CAPPED where that is larger than `result`, -UNRENDERABLE where an index passes the last. `body` and
    `marks` are scratch: M lowered, and four rows, the depths of arguments still to be read, where the replaced variable
    stands in M, under how many abstractions, and where free indices stand in N.
    """
    waiting_depths, holes, hole_depths, free = marks[0], marks[1], marks[2], marks[3]
    # 1. Read M: lower the indices bound outside the redex, and mark those that N replaces.
    at = redex + 2
    length, depth, waiting, hole_count = 0, 0, 1, 0
    while waiting > 0:
        token = int(term[at])
        at += 1
        is_index = int(token >= _FIRST_INDEX)
        index = token - _FIRST_INDEX
        body[length] = token - (index > depth)
        holes[hole_count] = length
        hole_depths[hole_count] = depth
        hole_count += index == depth
        length += 1
        waiting_depths[waiting] = depth
        waiting += int(token == _APPLICATION) - is_index
        depth = int(waiting_depths[waiting]) if is_index else depth + token
    # 2. Read N: find its end and its free indices.
    argument = at
    depth, waiting, free_count = 0, 1, 0
    while waiting > 0:
        token = int(term[at])
        is_index = int(token >= _FIRST_INDEX)
        free[free_count] = at - argument
        free_count += token - _FIRST_INDEX >= depth
        at += 1
        waiting_depths[waiting] = depth
        waiting += int(token == _APPLICATION) - is_index
        depth = int(waiting_depths[waiting]) if is_index else depth + token
    argument_length = at - argument
    size = redex + length + hole_count * (argument_length - 1) + term.size - at
    if size > result.size:
        return -SIZE_CAPPED
    # 3. Write what stands before the redex, M with N in its place, its free indices raised, and what stands behind.
    _copy(term, 0, result, 0, redex)
    written, read = redex, 0
    for hole in range(hole_count):
        _copy(body, read, result, written, holes[hole] - read)
        written += holes[hole] - read
        read = holes[hole] + 1
        _copy(term, argument, result, written, argument_length)
        raised = hole_depths[hole]
        if raised > 0:
            for i in range(free_count):
                token = int(term[argument + free[i]]) + raised
                if token >= _INDICES + _FIRST_INDEX:
                    return -UNRENDERABLE
                result[written + free[i]] = token
        written += argument_length
    _copy(body, read, result, written, length - read)
    _copy(term, at, result, written + length - read, term.size - at)
    return size


@compiled
def _copy(source: Array, read: int, target: Array, write: int, count: int) -> None:
    start, to = np.uint64(read), np.uint64(write)
    for i in range(np.uint64(max(count, 0))):
        target[to + i] = source[start + i]


@compiled
def _grown(array: Array, size: int) -> Array:
    """Return `array` with room for `size` entries or twice its own, whichever is more."""
    larger = np.empty(max(size, array.size * 2), dtype=array.dtype)
    larger[: array.size] = array
    return larger
