"""The marks of one document: what its syntax tree shows of style, documentation, nesting and branches.

The parser can crash on invalid text, so `isolated_marks` calls this in a child process.
"""

from __future__ import annotations

from typing import NamedTuple

from tree_sitter import Node, QueryCursor

from schema.source_code.grammar import marks_query, parse


class Marks(NamedTuple):
    """What the syntax tree of one document shows."""

    idiomatic: int
    low_quality: int
    documented: bool
    nesting: int
    branches: int
    parses: bool


NO_MARKS = Marks(0, 0, False, 0, 0, True)
UNPARSABLE = Marks(0, 0, False, 0, 0, False)
# Nodes further down are not looked at: the time for a node grows with its depth. Ordinary code has fewer levels.
_DEEPEST_LEVEL = 256


def marks_of(source: bytes, language: str | None) -> Marks:
    """Return the marks of UTF-8 source code; `NO_MARKS` for a language without grammar.

    They are `UNPARSABLE` for source code beyond the budget of `grammar.parse`.

    >>> marks_of(b"def double(x: int):\\n    return 2 * x  # TODO\\n", "python")
    Marks(idiomatic=1, low_quality=1, documented=False, nesting=1, branches=0, parses=True)
    """
    query = marks_query(language) if language else None
    if language is None or query is None:
        return NO_MARKS
    tree = parse(source, language)
    if tree is None:
        return UNPARSABLE
    cursor = QueryCursor(query)
    cursor.set_max_start_depth(_DEEPEST_LEVEL)
    found = cursor.captures(tree.root_node)
    return Marks(
        idiomatic=sum(name.startswith("idiom.") for name in found),
        low_quality=sum(name.startswith("low.") for name in found),
        documented="documented" in found,
        nesting=_nesting(found.get("block", [])),
        branches=len(found.get("branch", [])),
        parses=not tree.root_node.has_error,
    )


def _nesting(blocks: list[Node]) -> int:
    """Return the most blocks within one another."""
    deepest = 0
    ends: list[int] = []
    for begin, end in sorted((block.start_byte, -block.end_byte) for block in blocks):
        while ends and ends[-1] <= begin:
            ends.pop()
        ends.append(-end)
        deepest = max(deepest, len(ends))
    return deepest
