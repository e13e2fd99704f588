"""New names for local variables: words of a fixed list, in the style of the old name, that occur nowhere in the file.

A file gets one new name for each old name. The new names differ from each other and from every word of the file, so a
renamed variable can neither hide nor become another variable.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import numpy as np

from schema.splitmix import nth

# Single words, for names of one word, and the last words of longer names.
_NOUNS = (
    *("value", "item", "entry", "part", "piece", "unit", "block", "chunk", "cell", "point", "mark", "token", "record"),
    *("field", "source", "target", "origin", "result", "outcome", "output", "amount", "total", "number", "count"),
    *("length", "width", "limit", "bound", "offset", "position", "place", "level", "depth", "step", "stage", "round"),
    *("state", "status", "content", "body", "head", "tail", "front", "rest", "left", "right", "group", "batch"),
    *("bundle", "series", "sequence", "table", "mapping", "lookup", "label", "title", "phrase", "word", "line"),
    *("path", "route", "link", "edge", "node", "branch", "leaf", "root", "parent", "child", "owner", "holder", "slot"),
    *("buffer", "store", "cache", "pool", "queue", "stack", "signal", "event", "action", "task", "job", "request"),
    *("reply", "answer", "message", "packet", "frame", "view", "window", "region", "range", "span", "segment"),
)
# First words of names of several words.
_QUALIFIERS = (
    *("first", "last", "next", "current", "previous", "initial", "final", "inner", "outer", "local", "main", "extra"),
    *("given", "known", "found", "chosen", "active", "pending", "raw", "plain", "partial", "whole", "single", "shared"),
    *("base", "new", "old", "known", "common", "actual", "expected", "input", "temporary", "simple", "short", "full"),
)
_LETTERS = tuple("abcdefghijkmnpqrstuvwxyz")
_WORD = re.compile(rb"[A-Za-z_][A-Za-z0-9_]*")


def words_of(source: bytes) -> set[str]:
    """Return every word of a text that could be a name, in code, strings and comments."""
    return {word.decode() for word in set(_WORD.findall(source))}


def new_names(names: Iterable[str], taken: set[str], seed: int) -> dict[str, str]:
    """Return a new name for each of `names`: it keeps leading underscores, capitals, and whether it is one letter.

    Args:
        names: the old names, without duplicates.
        taken: names that no new name may equal: every word of the file and the language's reserved words.
        seed: below 2**64; another seed gives other names.
    """
    chosen: dict[str, str] = {}
    used = set(taken)
    for old in sorted(names):
        chosen[old] = next(name for name in _candidates(old, seed + len(chosen)) if name not in used)
        used.add(chosen[old])
    return chosen


def _candidates(old: str, seed: int) -> Iterator[str]:
    """Yield possible new names without end; the last ones have numbers."""
    bare = old.lstrip("_")
    lead = old[: len(old) - len(bare)]
    first, second = (int(word) for word in nth(np.array([seed % 2**64], dtype=np.uint64), np.array([1, 2])))
    for attempt in range(len(_NOUNS)):
        if len(bare) == 1:
            # Letters run out early; words follow.
            word = _LETTERS[(first + attempt) % len(_LETTERS)] if attempt < len(_LETTERS) else _noun(first, attempt)
        elif "_" in bare:
            word = f"{_QUALIFIERS[(second + attempt // 7) % len(_QUALIFIERS)]}_{_noun(first, attempt)}"
        else:
            word = _noun(first, attempt)
        yield lead + (word.upper() if bare.isupper() else word)
    number = 2
    while True:
        word = f"{_noun(first, number)}_{number}"
        yield lead + (word.upper() if bare.isupper() else word)
        number += 1


def _noun(first: int, attempt: int) -> str:
    return _NOUNS[(first + attempt) % len(_NOUNS)]
