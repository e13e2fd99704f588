r"""Texts: the canonical text of terms in preorder tokens, with what is known only while writing it.

An abstraction in function or argument position and an application in argument position are parenthesised, nothing else
is. Written in one pass without recursion: what follows a subterm (the closing parentheses, then the argument of the
innermost application still open) waits on a stack.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from schema.compiled import compiled
from schema.reduction.text import INDICES

Array = npt.NDArray[Any]

_APPLICATION, _ABSTRACTION = 0, 1
_OPEN, _CLOSE, _DOT = b"()."
# The character of each token; an application has none, and its place is written over.
GLYPHS = np.frombuffer(b"?\\" + INDICES, dtype=np.uint8)
# What each token adds to the text, parentheses apart.
WIDTHS = np.array([0, 2] + [1] * len(INDICES), dtype=np.int64)
# `\.` in parentheses; applications share the parentheses of at most one each.
_CHARACTERS_PER_TOKEN = 4
# Closing parentheses are written this many at a time, wanted or not.
_CLOSERS = 4
_LOW_HALF = 0xFFFFFFFF

# Columns of the table of facts, one row each.
SPAN_START, SPAN_END, REDEX_DEPTH, DEPTH = range(4)


@compiled
def render_terms(
    tokens: Array, offsets: Array, redexes: Array, glyphs: Array, widths: Array
) -> tuple[Array, Array, Array]:
    """Return (text, text offsets, facts) of the terms tokens[offsets[i]:offsets[i + 1]].

    `redexes` holds the token at which each one's redex begins, or -1. Term i is the ASCII bytes
    text[text offsets[i]:text offsets[i + 1]]; facts[i] = (span start, span end, redex depth, depth), zeros and -1 for
    the first three without a redex.
    """
    rows = offsets.size - 1
    text = np.empty(offsets[rows] * _CHARACTERS_PER_TOKEN + 2 * _CLOSERS, dtype=np.uint8)
    text_offsets = np.zeros(rows + 1, dtype=np.int64)
    facts = np.zeros((rows, 4), dtype=np.int32)
    longest = 0
    for row in range(rows):
        longest = max(longest, offsets[row + 1] - offsets[row])
    waiting = np.empty(longest + 2, dtype=np.int64)
    at = np.uint64(0)
    for row in range(rows):
        text_start = at
        # `place`: 0 the root or a body, 1 a function, 2 an argument.
        place, closers, depth, deepest, level = 0, 0, 0, 0, np.uint64(1)
        redex, redex_level = redexes[row], np.uint64(0)
        span_start, span_end, redex_closers, redex_depth = at, at, 0, -1
        for i in range(offsets[row], offsets[row + 1]):
            token = np.int64(tokens[np.uint64(i)])
            is_application, is_abstraction = token == _APPLICATION, token == _ABSTRACTION
            is_index = token > _ABSTRACTION
            in_parentheses = (is_abstraction & (place > 0)) | (is_application & (place == 2))
            text[at] = _OPEN
            at += np.uint64(in_parentheses)
            closers += in_parentheses
            if i - offsets[row] == redex:
                span_start, redex_level, redex_closers, redex_depth = at, level, closers, depth
            text[at] = glyphs[token]
            text[at + np.uint64(1)] = _DOT
            at += np.uint64(widths[token])
            deepest = max(deepest, depth)
            for k in range(_CLOSERS):
                text[at + np.uint64(k)] = _CLOSE
            if is_index & (closers > _CLOSERS):
                for k in range(_CLOSERS, closers):
                    text[at + np.uint64(k)] = _CLOSE
            at += np.uint64(closers) if is_index else np.uint64(0)
            # An application leaves its argument waiting, under the parentheses that close after it.
            depth += 1
            waiting[level] = (closers << 32) | depth
            level += np.uint64(is_application)
            level -= np.uint64(is_index)
            resumed = waiting[level]
            closers = 0 if is_application else closers
            closers = resumed >> 32 if is_index else closers
            depth = resumed & _LOW_HALF if is_index else depth
            place = 2 if is_index else int(is_application)
            if level < redex_level:
                span_end, redex_level = at - np.uint64(redex_closers), np.uint64(0)
        text_offsets[row + 1] = at
        facts[row, SPAN_START] = span_start - text_start
        facts[row, SPAN_END] = span_end - text_start
        facts[row, REDEX_DEPTH] = redex_depth
        facts[row, DEPTH] = deepest
    return text[:at], text_offsets, facts
