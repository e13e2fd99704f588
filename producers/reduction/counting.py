"""How many terms there are of a class, size and depth: the tables that sampling draws from.

With n nodes, depth d (edges on the longest path) and k indices bound from outside, let E(n, d, k) count the terms of
depth exactly d and L(n, d, k) those of depth at most d. One index is a term of one node and depth 0, in k ways, and ::

    E(n, d, k) = E(n - 1, d - 1, k + 1)                                        an abstraction
               + sum over i + j = n - 1 of   E(i, d - 1, k) L(j, d - 1, k)     an application: the function deepest,
                                           + L(i, d - 2, k) E(j, d - 1, k)     or only the argument

This is the counting ("recursive") method of Nijenhuis and Wilf. It counts the terms of any class that a grammar names,
each count on the right being that of the body's, the function's or the argument's class; where no term is derived in
two ways, derivations are terms. The counts pass 2^53, so they are float64; only sums and products of non-negative
numbers are taken, so nothing cancels and each is right to some 1e-13 of itself.
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
    """What terms of C classes are made of, a class being its place in these arrays; NO_CLASS where there is none.

    Attributes:
        leaves: (C,) 1 where an index is of the class, else 0.
        bodies: (C,) the class of an abstraction's body.
        pairs: (C, 2, 2) the classes of an application's function and argument, in up to two ways, the first first.
    """

    leaves: Numbers
    bodies: Numbers
    pairs: Numbers

    def __post_init__(self) -> None:
        for table in (self.leaves, self.bodies, self.pairs):
            table.setflags(write=False)


# One class, of all terms.
EVERY = SizeGrammar(
    leaves=np.ones(1, dtype=np.int64),
    bodies=np.zeros(1, dtype=np.int64),
    pairs=np.array([[[0, 0], [NO_CLASS, NO_CLASS]]], dtype=np.int64),
)


@lru_cache(maxsize=4)
def count_terms(grammar: SizeGrammar, largest: int, deepest: int) -> tuple[Counts, Counts]:
    """Return (E, L), each indexed [class, d, k, n] for n <= largest, d <= deepest and k <= deepest - d; zeros beyond.

    Both are read-only and contiguous. Takes 10 ms for one class, 200 nodes and depth 15.
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
                made = np.convolve(exact[function, depth - 1, bound], within[argument, depth - 1, bound])[:largest]
                if depth >= 2:
                    made += np.convolve(within[function, depth - 2, bound], exact[argument, depth - 1, bound])[:largest]
                applications[function, argument] = made
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
