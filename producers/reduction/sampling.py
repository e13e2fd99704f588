"""Sample closed terms of a given class, size and depth, each with the same probability.

A term is written as preorder tokens, one byte each: `APPLICATION`, `ABSTRACTION`, or `FIRST_INDEX` + index. A trace's
term depends only on (seed, chunk, trace), and a cell's term only on (seed, row number): each has its own SplitMix64
stream.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from producers.reduction.counting import EVERY, Counts, SizeGrammar, count_terms
from schema.compiled import compiled
from schema.splitmix import GOLDEN, mix_word

Array = npt.NDArray[Any]

APPLICATION, ABSTRACTION, FIRST_INDEX = 0, 1, 2

_UNIT = 2.0**-53
# Separates the streams of cells from those of traces of the same seed.
_CELLS = np.uint64(0xD1B54A32D192ED03)


@dataclass(frozen=True, eq=False)
class Cells:
    """The shapes of C cells, S in all; every shape holds at least one term.

    Attributes:
        grammar: the grammar of the shapes' classes.
        exact, within: the grammar's tables, as `count_terms` returns them.
        shapes: (S, 3) nodes, depth and class.
        upto: (S,) the cumulative weights of the shapes within their cell.
        bounds: (C + 1,) cell c has the shapes bounds[c] <= s < bounds[c + 1].
    """

    grammar: SizeGrammar
    exact: Counts
    within: Counts
    shapes: Array
    upto: Array
    bounds: Array


def sample_chunks(shapes: Array, seed: int, first_chunk: int, chunks: int, traces: int) -> tuple[Array, Array]:
    """Return (tokens, offsets) of `chunks` * `traces` terms: term i is tokens[offsets[i]:offsets[i + 1]].

    Chunk c uses row c mod len(shapes) of `shapes`, (depth, smallest size, largest size). Its terms have exactly that
    depth, and a size drawn uniformly between the two.
    """
    exact, within = count_terms(EVERY, int(shapes[:, 2].max()), int(shapes[:, 0].max()))
    grammar = EVERY.bodies, EVERY.pairs
    return _sample_chunks(exact, within, *grammar, shapes, seed, first_chunk, chunks, traces)  # type: ignore[no-any-return]


def sample_cells(cells: Cells, chosen: Array, seed: int, first: int) -> tuple[Array, Array]:
    """Return (tokens, offsets) of one term for each of the cell indices `chosen` (N,); row i has number `first` + i.

    A shape of the cell is drawn by its weight, then a term of that shape.
    """
    tables = cells.exact, cells.within, cells.grammar.bodies, cells.grammar.pairs
    return _sample_cells(*tables, cells.shapes, cells.upto, cells.bounds, chosen, seed, first)  # type: ignore[no-any-return]


@compiled
def _uniform(state: Array) -> float:
    """Return the next number of the stream in [0, 1), a multiple of 2^-53."""
    state[0] += GOLDEN
    return float(mix_word(state[0]) >> np.uint64(11)) * _UNIT


@compiled
def _sample_chunks(
    exact: Array,
    within: Array,
    bodies: Array,
    pairs: Array,
    shapes: Array,
    seed: int,
    first_chunk: int,
    chunks: int,
    traces: int,
) -> tuple[Array, Array]:
    """Compiled part of `sample_chunks`, with the tables of `count_terms`."""
    offsets = np.empty(chunks * traces + 1, dtype=np.int64)
    offsets[0] = 0
    largest = exact.shape[3] - 1
    tokens = np.empty(chunks * traces * largest, dtype=np.uint8)
    frames = np.empty((largest + 1, 5), dtype=np.int64)
    state = np.empty(1, dtype=np.uint64)
    for row in range(chunks * traces):
        chunk = first_chunk + row // traces
        cycle = chunk % shapes.shape[0]
        state[0] = mix_word(mix_word(mix_word(np.uint64(seed) + GOLDEN) + np.uint64(chunk)) + np.uint64(row % traces))
        low, high = shapes[cycle, 1], shapes[cycle, 2]
        frames[0, 0] = low + int(_uniform(state) * (high - low + 1))
        frames[0, 1], frames[0, 2] = shapes[cycle, 0], 0
        offsets[row + 1] = _sample_term(exact, within, bodies, pairs, state, frames, tokens, offsets[row])
    return tokens, offsets


@compiled
def _sample_cells(
    exact: Array,
    within: Array,
    bodies: Array,
    pairs: Array,
    shapes: Array,
    upto: Array,
    bounds: Array,
    chosen: Array,
    seed: int,
    first: int,
) -> tuple[Array, Array]:
    """Compiled part of `sample_cells`."""
    offsets = np.empty(chosen.size + 1, dtype=np.int64)
    offsets[0] = 0
    largest = exact.shape[3] - 1
    tokens = np.empty(chosen.size * largest, dtype=np.uint8)
    frames = np.empty((largest + 1, 5), dtype=np.int64)
    state = np.empty(1, dtype=np.uint64)
    for row in range(chosen.size):
        state[0] = mix_word(mix_word(np.uint64(seed) + _CELLS) + np.uint64(first + row))
        low, high = bounds[chosen[row]], bounds[chosen[row] + 1] - 1
        wanted = _uniform(state) * upto[high]
        while low < high:
            middle = (low + high) // 2
            if upto[middle] > wanted:
                high = middle
            else:
                low = middle + 1
        frames[0, 0], frames[0, 1], frames[0, 2] = shapes[low, 0], shapes[low, 1], shapes[low, 2]
        offsets[row + 1] = _sample_term(exact, within, bodies, pairs, state, frames, tokens, offsets[row])
    return tokens, offsets


@compiled
def _sample_term(
    exact: Array, within: Array, bodies: Array, pairs: Array, state: Array, frames: Array, tokens: Array, at: int
) -> int:
    """Write a closed term of exactly the shape in frames[0] to tokens[at:] and return its end.

    A frame is a subterm still to draw: (nodes, depth, class, bound indices, 1 if the depth is exact or 0 if a maximum).
    """
    frames[0, 3], frames[0, 4] = 0, 1
    level = 0
    while level >= 0:
        nodes, deepest, name = frames[level, 0], frames[level, 1], frames[level, 2]
        bound, is_exact = frames[level, 3], frames[level, 4]
        if nodes == 1:
            tokens[at] = FIRST_INDEX + int(_uniform(state) * bound)
            at += 1
            level -= 1
            continue
        left_over = _uniform(state) * (exact if is_exact else within)[name, deepest, bound, nodes]
        body = bodies[name]
        if body >= 0:
            left_over -= (exact if is_exact else within)[body, deepest - 1, bound + 1, nodes - 1]
        # If rounding leaves a rest after the last alternative, the last possible alternative is used.
        function_size, function_exact, argument_exact, pair = 0, 0, 0, 0
        for way in range(2):
            function, argument = pairs[name, way, 0], pairs[name, way, 1]
            if left_over < 0 or function < 0:
                break
            any_depth = within[argument, deepest - 1, bound]
            if is_exact == 0:
                same = within[function, deepest - 1, bound]
                for i in range(1, nodes - 1):
                    ways = same[i] * any_depth[nodes - 1 - i]
                    if ways > 0:
                        function_size, pair = i, way
                        left_over -= ways
                        if left_over < 0:
                            break
                continue
            same = exact[function, deepest - 1, bound]
            shallow = within[function, max(deepest - 2, 0), bound]
            exact_depth = exact[argument, deepest - 1, bound]
            for i in range(1, nodes - 1):
                ways = same[i] * any_depth[nodes - 1 - i]
                if ways > 0:
                    function_size, function_exact, argument_exact, pair = i, 1, 0, way
                    left_over -= ways
                    if left_over < 0:
                        break
                ways = shallow[i] * exact_depth[nodes - 1 - i]
                if ways > 0 and deepest >= 2:
                    function_size, function_exact, argument_exact, pair = i, 0, 1, way
                    left_over -= ways
                    if left_over < 0:
                        break
        if function_size == 0:
            tokens[at] = ABSTRACTION
            at += 1
            frames[level, 0], frames[level, 1] = nodes - 1, deepest - 1
            frames[level, 2], frames[level, 3] = body, bound + 1
            continue
        tokens[at] = APPLICATION
        at += 1
        # The argument waits below the function on the stack. If only the argument has the exact depth, the function's
        # maximum is one lower.
        frames[level, 0], frames[level, 1] = nodes - 1 - function_size, deepest - 1
        frames[level, 2], frames[level, 4] = pairs[name, pair, 1], argument_exact
        level += 1
        frames[level, 0], frames[level, 1] = function_size, deepest - 1 - argument_exact
        frames[level, 2], frames[level, 3], frames[level, 4] = pairs[name, pair, 0], bound, function_exact
    return at
