"""Terms of a class, in preorder tokens as `sampling` writes them: each of the same size and depth equally likely.

What is drawn for a row depends on (seed, number of the row) alone: each row has its own SplitMix64 stream.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from producers.reduction.sampling import ABSTRACTION, APPLICATION, FIRST_INDEX
from schema.compiled import compiled

Array = npt.NDArray[Any]

# SplitMix64, as in `sampling`; compiled code is not shared between files.
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_SHIFT_30, _SHIFT_27, _SHIFT_31, _SHIFT_11 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11)
_UNIT = 2.0**-53
# Another start than `sampling` has, so that a row shares no stream with a trace of the same seed.
_SALT = np.uint64(0xD1B54A32D192ED03)

_NODES, _DEPTH, _CLASS = range(3)


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
def draw_terms(
    exact: Array,
    within: Array,
    bodies: Array,
    pairs: Array,
    shapes: Array,
    upto: Array,
    bounds: Array,
    cells: Array,
    seed: int,
    first: int,
) -> tuple[Array, Array]:
    """Return (tokens, offsets) of one closed term per entry of `cells`: term i is tokens[offsets[i]:offsets[i + 1]].

    Cell c offers the shapes (nodes, depth, class) bounds[c] <= s < bounds[c + 1], none of them empty; `upto` holds the
    sums of their weights within the cell, by which one is drawn. The other tables are those of `classes`.
    """
    rows = cells.size
    offsets = np.empty(rows + 1, dtype=np.int64)
    offsets[0] = 0
    largest = exact.shape[3] - 1
    tokens = np.empty(rows * largest, dtype=np.uint8)
    frames = np.empty((largest + 1, 5), dtype=np.int64)
    state = np.empty(1, dtype=np.uint64)
    for row in range(rows):
        state[0] = _mix(_mix(np.uint64(seed) + _SALT) + np.uint64(first + row))
        low, high = bounds[cells[row]], bounds[cells[row] + 1] - 1
        wanted = _uniform(state) * upto[high]
        while low < high:
            middle = (low + high) // 2
            if upto[middle] > wanted:
                high = middle
            else:
                low = middle + 1
        offsets[row + 1] = _draw_term(exact, within, bodies, pairs, shapes[low], state, frames, tokens, offsets[row])
    return tokens, offsets


@compiled
def _draw_term(
    exact: Array,
    within: Array,
    bodies: Array,
    pairs: Array,
    shape: Array,
    state: Array,
    frames: Array,
    tokens: Array,
    at: int,
) -> int:
    """Write a term of exactly that shape to tokens[at:] and return where it ends.

    A frame is a subterm still to be drawn: (nodes, depth, class, bound indices, whether that depth is exact).
    """
    frames[0, :3] = shape
    frames[0, 3], frames[0, 4] = 0, 1
    level = 0
    while level >= 0:
        nodes, deepest, name, bound, is_exact = frames[level]
        if nodes == 1:
            tokens[at] = FIRST_INDEX + int(_uniform(state) * bound)
            at += 1
            level -= 1
            continue
        left_over = _uniform(state) * (exact if is_exact else within)[name, deepest, bound, nodes]
        body = bodies[name]
        if body >= 0:
            left_over -= (exact if is_exact else within)[body, deepest - 1, bound + 1, nodes - 1]
        # Rounding can leave something after the last way: it goes to the last way there is.
        function_size, function_exact, argument_exact, pair = 0, 0, 0, 0
        if left_over >= 0:
            for way in range(2):
                function, argument = pairs[name, way]
                if function < 0 or left_over < 0:
                    break
                same = (exact if is_exact else within)[function, deepest - 1, bound]
                shallow = within[function, deepest - 2 if is_exact and deepest >= 2 else 0, bound]
                any_depth, exact_depth = within[argument, deepest - 1, bound], exact[argument, deepest - 1, bound]
                for i in range(1, nodes - 1):
                    ways = same[i] * any_depth[nodes - 1 - i]
                    if ways > 0:
                        function_size, function_exact, argument_exact, pair = i, is_exact, 0, way
                        left_over -= ways
                        if left_over < 0:
                            break
                    ways = shallow[i] * exact_depth[nodes - 1 - i]
                    if ways > 0 and is_exact and deepest >= 2:
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
        # The argument waits below the function; where only the argument is of the exact depth, the function is lower.
        frames[level, 0], frames[level, 1] = nodes - 1 - function_size, deepest - 1
        frames[level, 2], frames[level, 3], frames[level, 4] = pairs[name, pair, 1], bound, argument_exact
        level += 1
        frames[level, 0], frames[level, 1] = function_size, deepest - 1 - argument_exact
        frames[level, 2], frames[level, 3], frames[level, 4] = pairs[name, pair, 0], bound, function_exact
    return at
