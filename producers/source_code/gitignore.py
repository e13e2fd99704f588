"""Which files git ignores in a working tree: nested .gitignore files and .git/info/exclude, as `git check-ignore` says.

The ignore file of the user (`core.excludesFile`) is not read, so that the documents do not depend on the machine. The
patterns are those of dulwich. A path that git tracks although a pattern matches it is ignored here, too.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from dulwich.ignore import Pattern, read_ignore_patterns
from dulwich.wildmatch import MalformedPattern

from producers.source_code.regular_files import read_regular

IGNORE_FILE = ".gitignore"
# Git itself reads no larger ignore file.
_LIMIT_BYTES = 100 << 20
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, eq=False)
class IgnoreRules:
    """The patterns of one ignore file, last one first, and the folder that they are relative to ("" or "a/b/")."""

    folder: bytes
    patterns: tuple[Pattern, ...]


def ignore_rules(path: Path, folder: str = "") -> tuple[IgnoreRules, ...]:
    """Return the rules of an ignore file, none if it is missing, unreadable or has no pattern.

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
            patterns.append(Pattern(line))
        except MalformedPattern:
            # Git leaves out such a pattern, too.
            continue
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
