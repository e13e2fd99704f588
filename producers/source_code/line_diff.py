"""Unified diffs of two texts, in bounded time.

The time of `difflib` grows with the cube of the length for some inputs, and it has no mark for a last line without a
newline. Here the lines between two texts are matched in three steps: common beginnings and ends, then lines that are
in both texts exactly once (patience), then Myers' algorithm with a limit on the number of edits. Blocks beyond the
limit are replaced as a whole.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise

# Edits that Myers' algorithm looks for: its time and memory grow with their square.
_MOST_EDITS = 400
_CONTEXT_LINES = 3
_NO_NEWLINE = "\\ No newline at end of file\n"
_HUNK = re.compile(r"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")

# Half-open ranges of lines, (begin, end) in the first text and (begin, end) in the second.
Block = tuple[int, int, int, int]


def unified_diff(before: str, after: str, old_path: str, new_path: str) -> str:
    """Return the unified diff that makes `after` of `before`, with three lines of context; empty if they are equal.

    >>> print(unified_diff("a\\nb\\n", "a\\nc\\n", "f.py", "f.py"), end="")
    --- a/f.py
    +++ b/f.py
    @@ -1,2 +1,2 @@
     a
    -b
    +c
    """
    old, new = _lines(before), _lines(after)
    blocks = changed_blocks(old, new)
    if not blocks:
        return ""
    parts = [f"--- a/{old_path}\n+++ b/{new_path}\n"]
    for hunk in _hunks(blocks):
        first, last = hunk[0], hunk[-1]
        lead = min(_CONTEXT_LINES, first[0])
        tail = min(_CONTEXT_LINES, len(old) - last[1])
        parts.append(
            f"@@ -{_range(first[0] - lead, last[1] + tail)} +{_range(first[2] - lead, last[3] + tail)} @@\n",
        )
        at = first[0] - lead
        for begin, end, new_begin, new_end in hunk:
            parts += _marked(" ", old[at:begin])
            parts += _marked("-", old[begin:end])
            parts += _marked("+", new[new_begin:new_end])
            at = end
        parts += _marked(" ", old[at : at + tail])
    return "".join(parts)


def patched(before: str, diff: str) -> str:
    """Return the text that a diff of `unified_diff` makes of `before`.

    Raises:
        ValueError: the diff is not for this text.
    """
    old, new, at = _lines(before), list[str](), 0
    lines = _lines(diff)[2:]
    for number, line in enumerate(lines):
        if match := _HUNK.match(line):
            begin = int(match[1]) - (match[2] != "0")
            new += old[at:begin]
            at = begin
            continue
        if line == _NO_NEWLINE:
            continue
        bare = lines[number + 1 : number + 2] == [_NO_NEWLINE]
        content = line[1:-1] if bare else line[1:]
        if line[0] in " -":
            if at >= len(old) or old[at] != content:
                raise ValueError(f"line {at + 1} of the text is not the line of the diff: {content[:80]!r}")
            at += 1
        if line[0] in " +":
            new.append(content)
    return "".join(new + old[at:])


def changed_blocks(old: Sequence[str], new: Sequence[str]) -> list[Block]:
    """Return the blocks of lines that differ, in order; all other lines are common to both."""
    todo: list[Block] = [(0, len(old), 0, len(new))]
    found: list[Block] = []
    while todo:
        begin, end, new_begin, new_end = todo.pop()
        while begin < end and new_begin < new_end and old[begin] == new[new_begin]:
            begin, new_begin = begin + 1, new_begin + 1
        while begin < end and new_begin < new_end and old[end - 1] == new[new_end - 1]:
            end, new_end = end - 1, new_end - 1
        if begin == end or new_begin == new_end:
            if begin < end or new_begin < new_end:
                found.append((begin, end, new_begin, new_end))
            continue
        anchors = _anchors(old[begin:end], new[new_begin:new_end])
        if not anchors:
            found += (
                (begin + a, begin + b, new_begin + c, new_begin + d)
                for a, b, c, d in _shortest_edit(old[begin:end], new[new_begin:new_end])
            )
            continue
        edges = [(-1, -1), *anchors, (end - begin, new_end - new_begin)]
        todo += (
            (begin + left[0] + 1, begin + right[0], new_begin + left[1] + 1, new_begin + right[1])
            for left, right in pairwise(edges)
        )
    return _joined(sorted(found))


def _joined(blocks: Sequence[Block]) -> list[Block]:
    """Return the blocks with those that touch in both texts made one."""
    joined: list[Block] = []
    for block in blocks:
        if joined and joined[-1][1] == block[0] and joined[-1][3] == block[2]:
            block = (joined[-1][0], block[1], joined[-1][2], block[3])
            joined.pop()
        joined.append(block)
    return joined


def _anchors(old: Sequence[str], new: Sequence[str]) -> list[tuple[int, int]]:
    """Return the longest ascending sequence of pairs of lines that are in both texts exactly once."""
    often, often_new = Counter(old), Counter(new)
    place = {line: number for number, line in enumerate(new) if often_new[line] == 1}
    pairs = [(number, place[line]) for number, line in enumerate(old) if often[line] == 1 and line in place]
    tops: list[int] = []
    ends: list[int] = []
    before: list[int] = []
    for index, (_, number) in enumerate(pairs):
        at = bisect_left(tops, number)
        before.append(ends[at - 1] if at else -1)
        tops[at : at + 1] = [number]
        ends[at : at + 1] = [index]
    chain: list[tuple[int, int]] = []
    index = ends[-1] if ends else -1
    while index >= 0:
        chain.append(pairs[index])
        index = before[index]
    return chain[::-1]


def _shortest_edit(old: Sequence[str], new: Sequence[str]) -> list[Block]:
    """Return the changed blocks by Myers' greedy algorithm, or one block if there are too many edits.

    Source: E. Myers, An O(ND) Difference Algorithm and Its Variations, 1986.
    """
    size, new_size = len(old), len(new)
    reach = {1: 0}
    history: list[dict[int, int]] = []
    for edits in range(min(size + new_size, _MOST_EDITS) + 1):
        history.append(dict(reach))
        for diagonal in range(-edits, edits + 1, 2):
            down = diagonal == -edits or (diagonal != edits and reach[diagonal - 1] < reach[diagonal + 1])
            at = reach[diagonal + 1] if down else reach[diagonal - 1] + 1
            while at < size and at - diagonal < new_size and old[at] == new[at - diagonal]:
                at += 1
            reach[diagonal] = at
            if at >= size and at - diagonal >= new_size:
                return _traced(history, size, new_size)
    return [(0, size, 0, new_size)]


def _traced(history: Sequence[dict[int, int]], at: int, new_at: int) -> list[Block]:
    blocks: list[Block] = []
    for edits in range(len(history) - 1, 0, -1):
        reach, diagonal = history[edits], at - new_at
        down = diagonal == -edits or (diagonal != edits and reach[diagonal - 1] < reach[diagonal + 1])
        diagonal += 1 if down else -1
        at = reach[diagonal]
        new_at = at - diagonal
        blocks.append((at, at + (not down), new_at, new_at + down))
    return _joined(blocks[::-1])


def _hunks(blocks: Sequence[Block]) -> Iterator[list[Block]]:
    hunk = [blocks[0]]
    for block in blocks[1:]:
        if block[0] - hunk[-1][1] > 2 * _CONTEXT_LINES:
            yield hunk
            hunk = []
        hunk.append(block)
    yield hunk


def _range(begin: int, end: int) -> str:
    # An empty range is named by the line before it.
    length = end - begin
    first = begin + (length > 0)
    return f"{first}" if length == 1 else f"{first},{length}"


def _lines(text: str) -> list[str]:
    """Return the lines with their newlines; no other character ends a line."""
    lines = [f"{line}\n" for line in text.split("\n")]
    lines[-1] = lines[-1][:-1]
    return lines if lines[-1] else lines[:-1]


def _marked(mark: str, lines: Sequence[str]) -> Iterator[str]:
    for line in lines:
        yield mark + line if line.endswith("\n") else f"{mark}{line}\n{_NO_NEWLINE}"
