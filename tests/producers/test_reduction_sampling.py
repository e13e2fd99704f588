"""Term counts equal an enumeration, and the sampler draws terms in proportion to the counts."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest

from producers.reduction.counting import EVERY, count_terms
from producers.reduction.recipe import LARGEST_SIZE, SHAPES
from producers.reduction.sampling import sample_chunks
from tests import plain_reducer as plain


def drawn(shape: tuple[int, int, int], seed: int, count: int) -> list[bytes]:
    """Return `count` terms of one shape (depth, smallest, largest) as preorder tokens."""
    shapes = np.array([shape], dtype=np.int64)
    # Read-only like the run's own shapes, because compiled code has one signature.
    shapes.setflags(write=False)
    tokens, offsets = sample_chunks(shapes, seed, 0, 1, count)
    text = tokens.tobytes()
    return [text[start:end] for start, end in itertools.pairwise(offsets)]


def tokens_of(term: plain.Term) -> bytes:
    if term[0] == "var":
        return bytes([2 + term[1]])
    head = b"\0" if term[0] == "app" else b"\1"
    return head + b"".join(tokens_of(child) for child in term[1:])


def term_of(tokens: bytes) -> plain.Term:
    term, rest = _term_of(tokens)
    assert not rest
    return term


def _term_of(tokens: bytes) -> tuple[plain.Term, bytes]:
    if tokens[0] >= 2:
        return ("var", tokens[0] - 2), tokens[1:]
    first, rest = _term_of(tokens[1:])
    if tokens[0] == 1:
        return ("abs", first), rest
    second, rest = _term_of(rest)
    return ("app", first, second), rest


@pytest.mark.parametrize("bound", [0, 1, 2, 3])
def test_counts_equal_those_of_an_enumeration(bound: int) -> None:
    exact, within = (table[0] for table in count_terms(EVERY, 8, 7))
    for nodes in range(1, 8):
        depths = Counter(plain.depth(term) for term in plain.terms(nodes, bound))
        # These tables hold only zeros where depth + bound is over 7.
        for depth in range(8 - bound):
            assert exact[depth, bound, nodes] == depths[depth]
            assert within[depth, bound, nodes] == sum(depths[d] for d in range(depth + 1))


def test_counts_are_finite_and_every_shape_of_the_cycles_exists() -> None:
    exact, within = (table[0] for table in count_terms(EVERY, LARGEST_SIZE, int(SHAPES[:, 0].max())))
    assert np.isfinite(exact).all() and np.isfinite(within).all()
    for depth, smallest, largest in SHAPES:
        assert (exact[depth, 0, smallest : largest + 1] > 0).all()


@pytest.mark.parametrize(("depth", "nodes"), [(3, 7), (4, 8), (5, 8), (2, 5), (6, 9)])
def test_every_closed_term_of_a_shape_is_drawn_equally_often(depth: int, nodes: int) -> None:
    population = {tokens_of(term) for term in plain.terms(nodes, 0) if plain.depth(term) == depth}
    draws = 40 * len(population) + 2000
    seen = Counter(drawn((depth, nodes, nodes), seed=11, count=draws))
    assert set(seen) == population
    expected = draws / len(population)
    chi_square = sum((count - expected) ** 2 / expected for count in seen.values())
    freedom = len(population) - 1
    # Chi-square has mean f and variance 2f: four standard deviations, one seed in tens of thousands.
    assert abs(chi_square - freedom) < 4 * (2 * freedom) ** 0.5 + 4


def test_all_sizes_of_a_range_are_drawn_equally_often() -> None:
    sizes = Counter(len(term) for term in drawn((6, 40, 80), seed=3, count=8200))
    assert set(sizes) == set(range(40, 81))
    assert sum((count - 200) ** 2 / 200 for count in sizes.values()) < 40 + 4 * 80**0.5


@pytest.mark.parametrize("cycle", range(10))
def test_terms_of_a_cycle_are_closed_and_of_exactly_its_shape(cycle: int) -> None:
    depth, smallest, largest = (int(number) for number in SHAPES[cycle])
    for tokens in drawn((depth, smallest, largest), seed=5, count=50):
        term = term_of(tokens)
        assert plain.depth(term) == depth
        assert smallest <= plain.size(term) <= largest
        assert is_closed(term, 0)


def is_closed(term: plain.Term, bound: int) -> bool:
    if term[0] == "var":
        return bool(term[1] < bound)
    return all(is_closed(child, bound + (term[0] == "abs")) for child in term[1:])


def test_traces_of_neighbouring_seeds_and_chunks_are_unrelated() -> None:
    terms = set()
    for seed in range(5):
        tokens, offsets = sample_chunks(SHAPES[6:7], seed, 0, 20, 10)
        terms |= {tokens[a:b].tobytes() for a, b in itertools.pairwise(offsets)}
    assert len(terms) == 5 * 20 * 10
