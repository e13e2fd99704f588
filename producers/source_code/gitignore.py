"""Which files git ignores in a working tree: nested .gitignore files and .git/info/exclude, as `git check-ignore` says.

The ignore file of the user (`core.excludesFile`) is not read, so that the documents do not depend on the machine. The
patterns are those of dulwich. A path that git tracks although a pattern matches it is ignored here, too.

An ignore file can be hostile. One over a megabyte has no effect, and only 10,000 patterns of a file count. A pattern
that could make Python's regular expressions backtrack for hours is matched by those of Polars in linear time.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import polars as pl
from dulwich.ignore import Pattern, read_ignore_patterns, translate
from dulwich.wildmatch import MalformedPattern

from producers.source_code.regular_files import read_regular

IGNORE_FILE = ".gitignore"
_LIMIT_BYTES = 1 << 20
_MOST_PATTERNS = 10_000
_BOM = b"\xef\xbb\xbf"
_STARS = re.compile(rb"\*+")
# Python matches a name of 255 characters with so many stars in some milliseconds at worst.
_MOST_STARS = 2


@dataclass(frozen=True, eq=False)
class IgnoreRules:
    """The patterns of one ignore file, last one first, and the folder that they are relative to ("" or "a/b/")."""

    folder: bytes
    patterns: tuple[Pattern, ...]


class _SlowPattern(Pattern):
    """A pattern with many stars, matched in linear time."""

    def __init__(self, pattern: bytes) -> None:
        super().__init__(pattern)
        bare = pattern.removeprefix(b"!").rstrip(b"/")
        self._expression = translate(bare).decode(errors="replace").removesuffix("\\Z") + r"\z"

    def matches(self, name: bytes, is_dir: bool) -> bool:
        """Return whether the pattern decides an entry, as `Pattern.matches`."""
        if self.is_empty or (self.is_directory_only and not is_dir):
            return False
        text = pl.Series([name.decode(errors="replace")])
        try:
            return bool(text.str.contains(f"^{self._expression}").item())
        except pl.exceptions.ComputeError:
            # The expression is too large, or uses what Polars cannot match.
            return False


def ignore_rules(path: Path, folder: str = "") -> tuple[IgnoreRules, ...]:
    """Return the rules of an ignore file, none if it is missing, unreadable, over a megabyte or has no pattern.

    Args:
        path: the file.
        folder: the folder that its patterns are relative to, itself relative to the repository: "" or ending in "/".
    """
    try:
        data = read_regular(path, _LIMIT_BYTES)
    except OSError:
        return ()
    patterns = []
    for line in read_ignore_patterns(BytesIO((data or b"").removeprefix(_BOM))):
        try:
            patterns.append(_SlowPattern(line) if len(_STARS.findall(line)) > _MOST_STARS else Pattern(line))
        except MalformedPattern:
            # Git leaves out such a pattern, too.
            continue
        if len(patterns) == _MOST_PATTERNS:
            break
    return (IgnoreRules(os.fsencode(folder), tuple(reversed(patterns))),) if patterns else ()


def is_ignored(rules: Sequence[IgnoreRules], path: str, *, is_folder: bool) -> bool:
    """Return whether git ignores a path whose folders are not ignored.

    Args:
        rules: those of the folders above the path, outermost first; the last pattern that matches decides.
        path: relative to the repository, with "/".
    """
    name = os.fsencode(path)
    for one in reversed(rules):
        inside = name[len(one.folder) :]
        for pattern in one.patterns:
            if pattern.matches(inside, is_folder):
                return bool(pattern.is_exclude)
    return False
