r"""Render terms in preorder tokens as canonical text, together with redex spans and depths.

Abstractions in function or argument position and applications in argument position are parenthesised, and nothing else
is. The text is written in one pass without recursion: a stack holds the closing parentheses and the argument that
follow each open subterm.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from schema.compiled import compiled
from schema.reduction.text import INDICES

Array = npt.NDArray[Any]

_ABSTRACTION = 1
_OPEN, _CLOSE, _LAMBDA, _DOT = b"()\\."
# The character of each index token.
GLYPHS = np.frombuffer(b"??" + INDICES, dtype=np.uint8)
# An abstraction `\.` in parentheses is 4 characters; an application has one pair of parentheses at most.
_CHARACTERS_PER_TOKEN = 4
# Closing parentheses are written this many at a time; surplus ones are overwritten.
_CLOSERS = 4
_LOW_HALF = 0xFFFFFFFF
_ONE, _TWO = np.uint64(1), np.uint64(2)

# Columns of the table of facts; each term is one row.
SPAN_START, SPAN_END, REDEX_DEPTH, DEPTH = range(4)


@compiled
def render_terms(tokens: Array, offsets: Array, redexes: Array, glyphs: Array) -> tuple[Array, Array, Array]:
    """Return (text, text offsets, facts) of the terms tokens[offsets[i]:offsets[i + 1]].

    `redexes` holds the token at which each term's redex begins, or -1. The text of term i is the ASCII bytes
    text[text offsets[i]:text offsets[i + 1]]. facts[i] = (span start, span end, redex depth, depth); without a redex
    the first three are 0, 0 and -1.
    """
    rows = offsets.size - 1
    text = np.empty(offsets[rows] * _CHARACTERS_PER_TOKEN + 2 * _CLOSERS, dtype=np.uint8)
    text_offsets = np.zeros(rows + 1, dtype=np.int64)
    facts = np.zeros((rows, 4), dtype=np.int32)
    longest = 0
    for row in range(rows):
        longest = max(longest, offsets[row + 1] - offsets[row])
    waiting = np.empty(longest + 1, dtype=np.int64)
    at = np.uint64(0)
    for row in range(rows):
        text_start = at
        # `place`: 0 is the root or a body, 1 a function, 2 an argument. `level`: the number of waiting arguments.
        place, closers, depth, deepest, level = 0, 0, 0, 0, 0
        redex = offsets[row] + redexes[row] if redexes[row] >= 0 else -1
        span_start, span_end, redex_level, redex_closers, redex_depth = at, at, -1, 0, -1
        for i in range(offsets[row], offsets[row + 1]):
            token = tokens[np.uint64(i)]
            if token > _ABSTRACTION:
                text[at] = glyphs[token]
                at += _ONE
                deepest = max(deepest, depth)
                for k in range(_CLOSERS):
                    text[at + np.uint64(k)] = _CLOSE
                if closers > _CLOSERS:
                    for k in range(_CLOSERS, closers):
                        text[at + np.uint64(k)] = _CLOSE
                at += np.uint64(closers)
                if level == redex_level:
                    span_end, redex_level = at - np.uint64(redex_closers), -1
                # After the root's last token no argument waits, and the entry read at level 0 is not used.
                level -= 1
                resumed = waiting[np.uint64(max(level, 0))]
                closers, depth, place = resumed >> 32, resumed & _LOW_HALF, 2
            elif token == _ABSTRACTION:
                in_parentheses = place > 0
                text[at] = _OPEN
                at += np.uint64(in_parentheses)
                closers += in_parentheses
                text[at] = _LAMBDA
                text[at + _ONE] = _DOT
                at += _TWO
                depth += 1
                place = 0
            else:
                in_parentheses = place == 2
                text[at] = _OPEN
                at += np.uint64(in_parentheses)
                closers += in_parentheses
                if i == redex:
                    span_start, redex_level, redex_closers, redex_depth = at, level, closers, depth
                # The argument waits on the stack with the number of parentheses that close after it.
                depth += 1
                waiting[np.uint64(level)] = (closers << 32) | depth
                level += 1
                closers, place = 0, 1
        text_offsets[row + 1] = at
        facts[row, SPAN_START] = span_start - text_start
        facts[row, SPAN_END] = span_end - text_start
        facts[row, REDEX_DEPTH] = redex_depth
        facts[row, DEPTH] = deepest
    return text[:at], text_offsets, facts
