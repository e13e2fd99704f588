r"""Classes of terms by the depth of their leftmost-outermost redex.

Let r be the number of edges from the root to that redex. Every term is either normal or reducible at one r. ::

    any          =  index  |  \. any               |  any any
    normal       =  index  |  \. normal            |  neutral normal
    neutral      =  index                          |  neutral normal        normal, and no abstraction
    function     =            \. any
    reducible 0  =                                    function any
    reducible r  =            \. reducible r-1     |  spine r-1 any  |  neutral reducible r-1
    spine 0      =                                    function any
    spine r      =                                    spine r-1 any  |  neutral reducible r-1

A spine is reducible at r and is not an abstraction. The function of an application must be a spine, because an
application of an abstraction is itself the redex. The redex is in the argument only if the function is neutral. No term
has two derivations.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from producers.reduction.counting import NO_CLASS, SizeGrammar

ANY, NORMAL, NEUTRAL, FUNCTION = range(4)
# The largest redex depth of a term of 19 nodes and depth 16 or more; enough for any depth up to 16.
DEEPEST_REDEX = 15
CLASSES = 4 + 2 * (DEEPEST_REDEX + 1)


def reducible(redex_depth: int) -> int:
    """Return the class of terms whose leftmost-outermost redex is `redex_depth` edges below the root."""
    return 4 + 2 * redex_depth


def spine(redex_depth: int) -> int:
    """Return the class of terms of `reducible(redex_depth)` that are not abstractions."""
    return 5 + 2 * redex_depth


def _by_redex() -> SizeGrammar:
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
    return SizeGrammar(leaves, bodies, pairs)


BY_REDEX = _by_redex()
