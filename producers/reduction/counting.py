"""Count the terms of each class, size and depth: the tables that sampling draws from.

Let n be the number of nodes, d the depth (edges on the longest path) and k the number of indices bound outside the
term. E(n, d, k) counts the terms of depth exactly d, and L(n, d, k) those of depth at most d. An index is a term of one
node and depth 0, in k ways. For larger terms ::

    E(n, d, k) = E(n - 1, d - 1, k + 1)                                        an abstraction
               + sum over i + j = n - 1 of   E(i, d - 1, k) L(j, d - 1, k)     an application: the function deepest,
                                           + L(i, d - 2, k) E(j, d - 1, k)     or only the argument

This is the counting ("recursive") method of Nijenhuis and Wilf. For the classes of a grammar, each count on the right
is that of the class of the body, the function or the argument. The tables count derivations; these are terms if no term
has two derivations. Counts exceed 2^53, so they are float64. Only non-negative numbers are added and multiplied, so
nothing cancels and the relative error is about 1e-13.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64]

NO_CLASS = -1


@dataclass(frozen=True, eq=False)
class SizeGrammar:
    """A grammar of C classes of terms; a class is an index into these arrays, and NO_CLASS marks a missing entry.

    Attributes:
        leaves: (C,) 1 if an index is a term of the class, else 0.
        bodies: (C,) the class of an abstraction's body.
        pairs: (C, 2, 2) the classes of an application's function and argument, for up to two alternatives.
    """

    leaves: Numbers
    bodies: Numbers
    pairs: Numbers

    def __post_init__(self) -> None:
        for table in (self.leaves, self.bodies, self.pairs):
            table.setflags(write=False)


# A single class that contains all terms.
EVERY = SizeGrammar(
    leaves=np.ones(1, dtype=np.int64),
    bodies=np.zeros(1, dtype=np.int64),
    pairs=np.array([[[0, 0], [NO_CLASS, NO_CLASS]]], dtype=np.int64),
)


@lru_cache(maxsize=4)
def count_terms(grammar: SizeGrammar, largest: int, deepest: int) -> tuple[Counts, Counts]:
    """Return (E, L), indexed [class, d, k, n] for n <= largest, d <= deepest and k <= deepest - d; other entries are 0.

    Both arrays are read-only and contiguous. Takes 10 ms for one class, 200 nodes and depth 15.
    """
    classes = grammar.leaves.size
    exact = np.zeros((classes, deepest + 1, deepest + 1, largest + 1))
    within = np.zeros_like(exact)
    exact[:, 0, :, 1] = within[:, 0, :, 1] = grammar.leaves[:, None] * np.arange(deepest + 1)
    pairs = [[(int(f), int(a)) for f, a in ways if f != NO_CLASS] for ways in grammar.pairs]
    for depth in range(1, deepest + 1):
        for bound in range(deepest - depth + 1):
            applications = {}
            for function, argument in {pair for ways in pairs for pair in ways}:
                sums = np.convolve(exact[function, depth - 1, bound], within[argument, depth - 1, bound])[:largest]
                if depth >= 2:
                    sums += np.convolve(within[function, depth - 2, bound], exact[argument, depth - 1, bound])[:largest]
                applications[function, argument] = sums
            for name, ways in enumerate(pairs):
                counted = exact[name, depth, bound]
                if grammar.bodies[name] != NO_CLASS:
                    counted[1:] += exact[grammar.bodies[name], depth - 1, bound + 1, :-1]
                for pair in ways:
                    counted[1:] += applications[pair]
                within[name, depth, bound] = within[name, depth - 1, bound] + counted
    for table in (exact, within):
        table.setflags(write=False)
    return exact, within
