"""Reduce terms in normal order, step by step, and choose the examples of each trace.

Terms are preorder tokens, as `sampling` writes them. In preorder, the leftmost-outermost redex is the first application
token directly followed by an abstraction token. A step writes the next term behind the previous one, so the whole trace
is in memory when its examples are chosen.
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

# Outcomes, as indices into schema.reduction.columns.OUTCOMES.
NORMAL_FORM, FUEL_EXHAUSTED, SIZE_CAPPED, UNRENDERABLE = range(4)
_REDUCIBLE = -1

# Columns of the table of examples; each example is one row.
TRACE, STEP, STEPS_TOTAL, OUTCOME, REDEX = range(5)
_COLUMNS = 5


@compiled
def reduce_terms(tokens: Array, offsets: Array, fuel: int, size_cap: int, keep: int) -> tuple[Array, Array, Array]:
    """Reduce each term tokens[offsets[i]:offsets[i + 1]] and return its examples as (tokens, offsets, table).

    A trace takes at most `fuel` beta steps. If the result of a step has over `size_cap` nodes, or an index without a
    character, that step is the last one counted and its result is dropped. A trace gives at most `keep` examples: the
    first term, the last, and terms evenly spaced between. Example e is tokens[offsets[e]:offsets[e + 1]], with
    table[e] = (trace, step, steps taken, outcome, token at which the redex begins or -1). The examples of a trace are
    consecutive and in order.
    """
    traces = offsets.size - 1
    kept = np.empty(max(tokens.size * 16, size_cap), dtype=np.uint8)
    kept_offsets = np.empty(traces * 16 + 1, dtype=np.int64)
    kept_offsets[0] = 0
    table = np.empty(traces * 16 * _COLUMNS, dtype=np.int32)
    count = 0
    trace = np.empty(size_cap * 64, dtype=np.uint8)
    ends = np.empty(fuel + 2, dtype=np.int64)
    redexes = np.empty(fuel + 2, dtype=np.int64)
    body = np.empty(size_cap + 2, dtype=np.uint8)
    marks = np.empty((4, size_cap + 2), dtype=np.int64)
    for row in range(traces):
        size = offsets[row + 1] - offsets[row]
        _copy(tokens, offsets[row], trace, 0, size)
        ends[0], ends[1] = 0, size
        steps, redex, outcome = 0, 0, _REDUCIBLE
        while outcome == _REDUCIBLE:
            start, end = ends[steps], ends[steps + 1]
            # Tokens before the last redex hold none, except that the application just before it may be a redex now.
            redex = _find_redex(trace, start, max(redex - 1, 0), end - start)
            redexes[steps] = redex
            if redex < 0:
                outcome = NORMAL_FORM
            elif steps == fuel:
                outcome = FUEL_EXHAUSTED
            else:
                if end + size_cap > trace.size:
                    trace = _grown(trace, 0)
                size = _beta_step(trace, start, start + redex, end, size_cap, body, marks)
                steps += 1
                ends[steps + 1] = end + size
                if size < 0:
                    outcome = -size
        reached = steps + 1 if outcome == NORMAL_FORM else steps
        chosen = min(reached, keep)
        if count + chosen > kept_offsets.size - 1:
            kept_offsets = _grown(kept_offsets, count + chosen + 1)
            table = _grown(table, kept_offsets.size * _COLUMNS)
        for choice in range(chosen):
            step = choice
            if reached > keep:
                step = (2 * choice * (reached - 1) + keep - 1) // (2 * (keep - 1))
            at, size = kept_offsets[count], ends[step + 1] - ends[step]
            if at + size > kept.size:
                kept = _grown(kept, at + size)
            _copy(trace, ends[step], kept, at, size)
            table[count * _COLUMNS + TRACE] = row
            table[count * _COLUMNS + STEP] = step
            table[count * _COLUMNS + STEPS_TOTAL] = steps
            table[count * _COLUMNS + OUTCOME] = outcome
            table[count * _COLUMNS + REDEX] = redexes[step]
            count += 1
            kept_offsets[count] = at + size
    return kept, kept_offsets[: count + 1], table[: count * _COLUMNS].reshape(count, _COLUMNS)


@compiled
def _find_redex(trace: Array, start: int, first: int, size: int) -> int:
    """Return the first token, at or after `first`, where a redex of the term at `start` begins; -1 without a redex."""
    for i in range(first, size - 1):
        if trace[start + i] == _APPLICATION and trace[start + i + 1] == _ABSTRACTION:
            return i
    return -1


@compiled
def _beta_step(trace: Array, start: int, redex: int, end: int, size_cap: int, body: Array, marks: Array) -> int:
    r"""Write the term trace[start:end] with (\.M)N at `redex` replaced by M[0 := N] to trace[end:]; return its size.

    Returns -SIZE_CAPPED if the size is over `size_cap`, and -UNRENDERABLE if an index exceeds the largest one. `body`
    and `marks` are scratch arrays. `body` holds M with its free indices lowered. The rows of `marks` are: depths of the
    arguments still to read, positions of the replaced variable in M, the number of abstractions above each of these,
    and positions of the free indices in N.
    """
    waiting_depths, holes, hole_depths, free = marks[0], marks[1], marks[2], marks[3]
    # 1. Read M: lower the indices bound outside the redex, and mark those that N replaces.
    at = redex + 2
    length, depth, waiting, hole_count = 0, 0, 1, 0
    while waiting > 0:
        token = int(trace[at])
        at += 1
        if token >= _FIRST_INDEX:
            index = token - _FIRST_INDEX
            body[length] = token - (index > depth)
            holes[hole_count] = length
            hole_depths[hole_count] = depth
            hole_count += index == depth
            waiting -= 1
            depth = int(waiting_depths[waiting])
        else:
            body[length] = token
            if token == _APPLICATION:
                waiting_depths[waiting] = depth
                waiting += 1
            else:
                depth += 1
        length += 1
    # 2. Read N: find its end and its free indices.
    argument = at
    depth, waiting, free_count = 0, 1, 0
    while waiting > 0:
        token = int(trace[at])
        if token >= _FIRST_INDEX:
            free[free_count] = at - argument
            free_count += token - _FIRST_INDEX >= depth
            waiting -= 1
            depth = int(waiting_depths[waiting])
        elif token == _APPLICATION:
            waiting_depths[waiting] = depth
            waiting += 1
        else:
            depth += 1
        at += 1
    argument_length = at - argument
    prefix, suffix = redex - start, end - at
    size = prefix + length + hole_count * (argument_length - 1) + suffix
    if size > size_cap:
        return -SIZE_CAPPED
    # 3. Write the tokens before the redex, then M with N (its free indices raised) substituted, then the tokens after.
    _copy(trace, start, trace, end, prefix)
    written, read = end + prefix, 0
    for hole in range(hole_count):
        _copy(body, read, trace, written, holes[hole] - read)
        written += holes[hole] - read
        read = holes[hole] + 1
        _copy(trace, argument, trace, written, argument_length)
        raised = hole_depths[hole]
        if raised > 0:
            for i in range(free_count):
                token = int(trace[argument + free[i]]) + raised
                if token >= _INDICES + _FIRST_INDEX:
                    return -UNRENDERABLE
                trace[written + free[i]] = token
        written += argument_length
    _copy(body, read, trace, written, length - read)
    _copy(trace, at, trace, written + length - read, suffix)
    return size


@compiled
def _copy(source: Array, read: int, target: Array, write: int, count: int) -> None:
    start, to = np.uint64(read), np.uint64(write)
    for i in range(np.uint64(count)):
        target[to + i] = source[start + i]


@compiled
def _grown(array: Array, size: int) -> Array:
    """Return a copy of `array` with room for `size` entries or twice its current size, whichever is larger."""
    larger = np.empty(max(size, array.size * 2), dtype=array.dtype)
    _copy(array, 0, larger, 0, array.size)
    return larger
