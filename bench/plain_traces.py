"""The reduction producer's traces in plain Python: recursion on tuples, text and span by string building.

The compiled generator is compared with this one. Initial terms are the producer's own, so both do the same work.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from producers.reduction.recipe import SHAPES, TRACES_PER_CHUNK
from producers.reduction.run import ReductionRun
from producers.reduction.sampling import ABSTRACTION, APPLICATION, FIRST_INDEX, sample_chunks
from schema.reduction.text import INDICES

Term = tuple[Any, ...]


def plain_rows(run: ReductionRun) -> Iterator[tuple[str, int, int, int, int]]:
    """Yield (term, step, steps taken, span start, span end) of the run's first `count` examples, in order."""
    # A term nests at most as deep as it has nodes.
    sys.setrecursionlimit(max(sys.getrecursionlimit(), 20 * run.size_cap))
    # Every trace gives at least one example, so this many traces are enough.
    chunks = -(-run.count // TRACES_PER_CHUNK)
    tokens, offsets = sample_chunks(SHAPES, run.seed, 0, chunks, TRACES_PER_CHUNK)
    left = run.count
    for start in offsets[:-1]:
        for row in _trace(_term(tokens, int(start))[0], run):
            if left == 0:
                return
            yield row
            left -= 1


def _trace(term: Term, run: ReductionRun) -> list[tuple[str, int, int, int, int]]:
    terms = [term]
    reached = False
    while len(terms) <= run.fuel:
        after = _step(terms[-1])
        if after is None:
            reached = True
            break
        if _size(after) > run.size_cap:
            terms.append(after)
            break
        terms.append(after)
    steps = len(terms) - 1
    if not reached:
        terms.pop()
    chosen = list(range(len(terms)))
    if len(terms) > run.examples_per_trace:
        parts = run.examples_per_trace - 1
        chosen = [(2 * part * (len(terms) - 1) + parts) // (2 * parts) for part in range(parts + 1)]
    rows = []
    for step in chosen:
        start, end = _span(terms[step], "body") or (0, 0)
        rows.append((_show(terms[step], "body"), step, steps, start, end))
    return rows


def _term(tokens: Any, at: int) -> tuple[Term, int]:
    token = int(tokens[at])
    if token == APPLICATION:
        function, at = _term(tokens, at + 1)
        argument, at = _term(tokens, at)
        return ("app", function, argument), at
    if token == ABSTRACTION:
        body, at = _term(tokens, at + 1)
        return ("abs", body), at
    return ("var", token - FIRST_INDEX), at + 1


def _show(term: Term, place: str) -> str:
    if term[0] == "var":
        return chr(INDICES[term[1]])
    if term[0] == "abs":
        text = "\\." + _show(term[1], "body")
        return text if place == "body" else f"({text})"
    text = _show(term[1], "function") + _show(term[2], "argument")
    return f"({text})" if place == "argument" else text


def _span(term: Term, place: str) -> tuple[int, int] | None:
    if term[0] == "var":
        return None
    if term[0] == "abs":
        return _moved(_span(term[1], "body"), 2 if place == "body" else 3)
    inside = int(place == "argument")
    if term[1][0] == "abs":
        return inside, len(_show(term, place)) - inside
    span = _span(term[1], "function")
    if span is None:
        span = _moved(_span(term[2], "argument"), len(_show(term[1], "function")))
    return _moved(span, inside)


def _moved(span: tuple[int, int] | None, by: int) -> tuple[int, int] | None:
    return None if span is None else (span[0] + by, span[1] + by)


def _step(term: Term) -> Term | None:
    if term[0] == "var":
        return None
    if term[0] == "abs":
        body = _step(term[1])
        return None if body is None else ("abs", body)
    if term[1][0] == "abs":
        return _substituted(term[1][1], 0, term[2])
    function = _step(term[1])
    if function is not None:
        return ("app", function, term[2])
    argument = _step(term[2])
    return None if argument is None else ("app", term[1], argument)


def _substituted(term: Term, depth: int, value: Term) -> Term:
    if term[0] == "var":
        if term[1] == depth:
            return _raised(value, depth, 0)
        return ("var", term[1] - (term[1] > depth))
    if term[0] == "abs":
        return ("abs", _substituted(term[1], depth + 1, value))
    return ("app", _substituted(term[1], depth, value), _substituted(term[2], depth, value))


def _raised(term: Term, by: int, bound: int) -> Term:
    if by == 0:
        return term
    if term[0] == "var":
        return ("var", term[1] + by) if term[1] >= bound else term
    if term[0] == "abs":
        return ("abs", _raised(term[1], by, bound + 1))
    return ("app", _raised(term[1], by, bound), _raised(term[2], by, bound))


def _size(term: Term) -> int:
    return 1 if term[0] == "var" else 1 + sum(_size(child) for child in term[1:])
