r"""Classes of terms by where their leftmost-outermost redex is, and how many terms each class holds.

With r edges from the root to that redex, every term is in one class: it is normal, or reducible at some r. ::

    any          =  index  |  \. any               |  any any
    normal       =  index  |  \. normal            |  neutral normal
    neutral      =  index                          |  neutral normal        normal, and no abstraction
    function     =            \. any
    reducible 0  =                                    function any
    reducible r  =            \. reducible r-1     |  spine r-1 any  |  neutral reducible r-1
    spine 0      =                                    function any
    spine r      =                                    spine r-1 any  |  neutral reducible r-1

A spine is what is reducible there and no abstraction: were the function of an application an abstraction, the redex
would be the application itself; and an argument's redex is the term's only where its function has none. No term is
derived in two ways, so counting derivations counts terms, by the recursion that `counting` describes.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64]

ANY, NORMAL, NEUTRAL, FUNCTION = range(4)
DEEPEST_REDEX = 15
CLASSES = 4 + 2 * (DEEPEST_REDEX + 1)
NO_CLASS = -1


def reducible(redex_depth: int) -> int:
    """Return the class of the terms whose leftmost-outermost redex is that many edges below the root."""
    return 4 + 2 * redex_depth


def spine(redex_depth: int) -> int:
    """Return the class of those of `reducible(redex_depth)` that are no abstraction."""
    return 5 + 2 * redex_depth


def _grammar() -> tuple[Numbers, Numbers, Numbers]:
    leaves = np.zeros(CLASSES, dtype=np.int64)
    bodies = np.full(CLASSES, NO_CLASS, dtype=np.int64)
    pairs = np.full((CLASSES, 2, 2), NO_CLASS, dtype=np.int64)
    leaves[[ANY, NORMAL, NEUTRAL]] = 1
    bodies[[ANY, NORMAL, FUNCTION]] = ANY, NORMAL, ANY
    pairs[ANY, 0] = ANY, ANY
    pairs[[NORMAL, NEUTRAL], 0] = NEUTRAL, NORMAL
    pairs[[reducible(0), spine(0)], 0] = FUNCTION, ANY
    for above, depth in pairwise(range(DEEPEST_REDEX + 1)):
        bodies[reducible(depth)] = reducible(above)
        pairs[[reducible(depth), spine(depth)], 0] = spine(above), ANY
        pairs[[reducible(depth), spine(depth)], 1] = NEUTRAL, reducible(above)
    for table in (leaves, bodies, pairs):
        table.setflags(write=False)
    return leaves, bodies, pairs


# By class: whether an index is one, the class of an abstraction's body, and those of an application's function and
# argument, in up to two ways.
LEAVES, BODIES, PAIRS = _grammar()


@lru_cache(maxsize=2)
def count_classes(largest: int, deepest: int) -> tuple[Counts, Counts]:
    """Return (E, L), each indexed [class, d, k, n]: the terms of n nodes and depth exactly d, and at most d.

    k indices are bound from outside; n <= largest, d <= deepest, k <= deepest - d, zeros beyond that. Both are
    read-only and contiguous. Takes 0.3 s for 249 nodes and depth 20.
    """
    exact = np.zeros((CLASSES, deepest + 1, deepest + 1, largest + 1))
    within = np.zeros_like(exact)
    exact[:, 0, :, 1] = within[:, 0, :, 1] = LEAVES[:, None] * np.arange(deepest + 1)
    ways = sorted({(int(function), int(argument)) for function, argument in PAIRS.reshape(-1, 2) if function >= 0})
    for depth in range(1, deepest + 1):
        for bound in range(deepest - depth + 1):
            applications = {}
            for function, argument in ways:
                made = np.convolve(exact[function, depth - 1, bound], within[argument, depth - 1, bound])[:largest]
                if depth >= 2:
                    made += np.convolve(within[function, depth - 2, bound], exact[argument, depth - 1, bound])[:largest]
                applications[function, argument] = made
            for name in range(CLASSES):
                counted = exact[name, depth, bound]
                if BODIES[name] >= 0:
                    counted[1:] += exact[BODIES[name], depth - 1, bound + 1, :-1]
                for function, argument in PAIRS[name]:
                    if function >= 0:
                        counted[1:] += applications[int(function), int(argument)]
                within[name, depth, bound] = within[name, depth - 1, bound] + counted
    for table in (exact, within):
        table.setflags(write=False)
    return exact, within
