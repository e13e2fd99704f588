"""Initial terms: closed terms of exactly a given size and depth, each with the same probability.

A term is written as its preorder tokens, one byte each: `APPLICATION`, `ABSTRACTION`, or `FIRST_INDEX` + index. What is
drawn for a trace depends on (seed, chunk, trace) alone: each trace has its own SplitMix64 stream.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from producers.reduction.counting import count_terms
from schema.compiled import compiled

Array = npt.NDArray[Any]

APPLICATION, ABSTRACTION, FIRST_INDEX = 0, 1, 2

# SplitMix64 (Steele, Lea, Flood 2014): the increment and the two multipliers of its finalizer.
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_SHIFT_30, _SHIFT_27, _SHIFT_31, _SHIFT_11 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11)
_UNIT = 2.0**-53


def sample_chunks(shapes: Array, seed: int, first_chunk: int, chunks: int, traces: int) -> tuple[Array, Array]:
    """Return (tokens, offsets) of `chunks` * `traces` terms: term i is tokens[offsets[i]:offsets[i + 1]].

    Chunk c takes row c mod len(shapes) of `shapes`, (depth, smallest size, largest size): its depth exactly, its size
    uniform between the two.
    """
    exact, within = count_terms(int(shapes[:, 2].max()), int(shapes[:, 0].max()))
    return _sample_terms(exact, within, shapes, seed, first_chunk, chunks, traces)  # type: ignore[no-any-return]


@compiled
def _mix(word: Any) -> Any:
    word = (word ^ (word >> _SHIFT_30)) * _MIX_1
    word = (word ^ (word >> _SHIFT_27)) * _MIX_2
    return word ^ (word >> _SHIFT_31)


@compiled
def _uniform(state: Array) -> float:
    """Return the next number of the stream in [0, 1), a multiple of 2^-53."""
    state[0] += _GOLDEN
    return float(_mix(state[0]) >> _SHIFT_11) * _UNIT


@compiled
def _sample_terms(
    exact: Array, within: Array, shapes: Array, seed: int, first_chunk: int, chunks: int, traces: int
) -> tuple[Array, Array]:
    """Do what `sample_chunks` does with the tables of `count_terms`."""
    offsets = np.empty(chunks * traces + 1, dtype=np.int64)
    offsets[0] = 0
    tokens = np.empty(chunks * traces * (exact.shape[2] - 1), dtype=np.uint8)
    frames = np.empty((exact.shape[2], 4), dtype=np.int64)
    state = np.empty(1, dtype=np.uint64)
    for row in range(chunks * traces):
        chunk = first_chunk + row // traces
        cycle = chunk % shapes.shape[0]
        state[0] = _mix(_mix(_mix(np.uint64(seed) + _GOLDEN) + np.uint64(chunk)) + np.uint64(row % traces))
        smallest, largest = shapes[cycle, 1], shapes[cycle, 2]
        size = smallest + int(_uniform(state) * (largest - smallest + 1))
        offsets[row + 1] = _sample_term(exact, within, size, shapes[cycle, 0], state, frames, tokens, offsets[row])
    return tokens, offsets


@compiled
def _sample_term(
    exact: Array, within: Array, size: int, depth: int, state: Array, frames: Array, tokens: Array, at: int
) -> int:
    """Write a term of exactly `size` and `depth` to tokens[at:] and return where it ends.

    A frame is a subterm still to be drawn: (nodes, depth, bound indices, whether that depth is exact).
    """
    frames[0, 0], frames[0, 1], frames[0, 2], frames[0, 3] = size, depth, 0, 1
    level = 0
    while level >= 0:
        nodes, deepest = frames[level, 0], frames[level, 1]
        bound, is_exact = frames[level, 2], frames[level, 3]
        if nodes == 1:
            tokens[at] = FIRST_INDEX + int(_uniform(state) * bound)
            at += 1
            level -= 1
            continue
        left_over = _uniform(state) * (exact if is_exact else within)[deepest, bound, nodes]
        left_over -= (exact if is_exact else within)[deepest - 1, bound + 1, nodes - 1]
        # Rounding can leave something after the last way: it goes to the last way there is.
        function_size, function_exact, argument_exact = 0, 0, 0
        if left_over >= 0:
            same = (exact if is_exact else within)[deepest - 1, bound]
            shallow = within[deepest - 2 if is_exact and deepest >= 2 else 0, bound]
            any_depth, exact_depth = within[deepest - 1, bound], exact[deepest - 1, bound]
            for i in range(1, nodes - 1):
                ways = same[i] * any_depth[nodes - 1 - i]
                if ways > 0:
                    function_size, function_exact, argument_exact = i, is_exact, 0
                    left_over -= ways
                    if left_over < 0:
                        break
                ways = shallow[i] * exact_depth[nodes - 1 - i]
                if ways > 0 and is_exact and deepest >= 2:
                    function_size, function_exact, argument_exact = i, 0, 1
                    left_over -= ways
                    if left_over < 0:
                        break
        if function_size == 0:
            tokens[at] = ABSTRACTION
            at += 1
            frames[level, 0], frames[level, 1], frames[level, 2] = nodes - 1, deepest - 1, bound + 1
            continue
        tokens[at] = APPLICATION
        at += 1
        # The argument waits below the function; where only the argument is of the exact depth, the function is lower.
        frames[level, 0], frames[level, 1], frames[level, 3] = nodes - 1 - function_size, deepest - 1, argument_exact
        frames[level, 2] = bound
        level += 1
        frames[level, 0], frames[level, 1] = function_size, deepest - 1 - argument_exact
        frames[level, 2], frames[level, 3] = bound, function_exact
    return at
