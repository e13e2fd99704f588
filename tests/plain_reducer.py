"""The lambda-calculus in plain Python, with recursion on tuples, for comparison with compiled code.

This module shares no code with the product. A term is ("var", index), ("abs", body) or ("app", function, argument).
"""

from __future__ import annotations

import sys
from typing import Any

Term = tuple[Any, ...]

INDICES = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

# A term can be nested as deep as its number of nodes.
sys.setrecursionlimit(20_000)


def show(term: Term, place: str = "body") -> str:
    kind = term[0]
    if kind == "var":
        return INDICES[term[1]]
    if kind == "abs":
        text = "\\." + show(term[1])
        return text if place == "body" else f"({text})"
    text = show(term[1], "function") + show(term[2], "argument")
    return f"({text})" if place == "argument" else text


def read(text: str) -> Term:
    """Parse a text, also with redundant parentheses or without those around a last abstraction."""
    term, end = _read_term(text, 0)
    if end != len(text):
        raise ValueError(f"unexpected text at {end}")
    return term


def _read_term(text: str, at: int) -> tuple[Term, int]:
    term = None
    while at < len(text) and text[at] != ")":
        if text[at] == "\\":
            if text[at + 1 : at + 2] != ".":
                raise ValueError(f"no dot at {at + 1}")
            body, at = _read_term(text, at + 2)
            item: Term = ("abs", body)
        elif text[at] == "(":
            item, at = _read_term(text, at + 1)
            if text[at : at + 1] != ")":
                raise ValueError(f"not closed at {at}")
            at += 1
        elif text[at] in INDICES:
            item = ("var", INDICES.index(text[at]))
            at += 1
        else:
            raise ValueError(f"unknown character {text[at]!r}")
        term = item if term is None else ("app", term, item)
    if term is None:
        raise ValueError(f"no term at {at}")
    return term, at


def is_canonical(text: str) -> bool:
    """Return whether a text is the text that `show` writes for its term."""
    try:
        return show(read(text)) == text
    except ValueError:
        return False


def redex_span(term: Term, place: str = "body") -> tuple[int, int] | None:
    """Return the leftmost-outermost redex as character offsets, without parentheses around it; None without a redex."""
    kind = term[0]
    if kind == "var":
        return None
    opened = 1 if (kind == "abs" and place != "body") or (kind == "app" and place == "argument") else 0
    if kind == "abs":
        return _moved(redex_span(term[1]), opened + 2)
    if term[1][0] == "abs":
        return opened, opened + len(show(term))
    span = _moved(redex_span(term[1], "function"), opened)
    if span is None:
        span = _moved(redex_span(term[2], "argument"), opened + len(show(term[1], "function")))
    return span


def _moved(span: tuple[int, int] | None, by: int) -> tuple[int, int] | None:
    return None if span is None else (span[0] + by, span[1] + by)


def redex_depth(term: Term) -> int | None:
    if term[0] == "var":
        return None
    if term[0] == "app" and term[1][0] == "abs":
        return 0
    for child in term[1:]:
        inner = redex_depth(child)
        if inner is not None:
            return inner + 1
    return None


def step(term: Term) -> Term | None:
    """Return the term after one normal-order beta step; None for a normal form."""
    if term[0] == "var":
        return None
    if term[0] == "abs":
        body = step(term[1])
        return None if body is None else ("abs", body)
    if term[1][0] == "abs":
        return shift(substitute(term[1][1], 0, shift(term[2], 1, 0)), -1, 0)
    function = step(term[1])
    if function is not None:
        return ("app", function, term[2])
    argument = step(term[2])
    return None if argument is None else ("app", term[1], argument)


def shift(term: Term, by: int, cutoff: int) -> Term:
    if term[0] == "var":
        return ("var", term[1] + by) if term[1] >= cutoff else term
    if term[0] == "abs":
        return ("abs", shift(term[1], by, cutoff + 1))
    return ("app", shift(term[1], by, cutoff), shift(term[2], by, cutoff))


def substitute(term: Term, index: int, value: Term) -> Term:
    if term[0] == "var":
        return value if term[1] == index else term
    if term[0] == "abs":
        return ("abs", substitute(term[1], index + 1, shift(value, 1, 0)))
    return ("app", substitute(term[1], index, value), substitute(term[2], index, value))


def size(term: Term) -> int:
    return 1 if term[0] == "var" else 1 + sum(size(child) for child in term[1:])


def depth(term: Term) -> int:
    return 0 if term[0] == "var" else 1 + max(depth(child) for child in term[1:])


def leading(term: Term) -> int:
    return 1 + leading(term[1]) if term[0] == "abs" else 0


def largest_index(term: Term) -> int:
    return int(term[1]) if term[0] == "var" else max(largest_index(child) for child in term[1:])


def terms(nodes: int, bound: int) -> list[Term]:
    """Return every term of `nodes` nodes whose free indices are under `bound`."""
    if nodes == 1:
        return [("var", index) for index in range(bound)]
    every: list[Term] = [("abs", body) for body in terms(nodes - 1, bound + 1)] if nodes > 1 else []
    for left in range(1, nodes - 1):
        arguments = terms(nodes - 1 - left, bound)
        every.extend(("app", function, argument) for function in terms(left, bound) for argument in arguments)
    return every
