"""Walks sources: yields every file below them once, with the reason if its path is enough to skip it.

Rules, in this order, for each entry of a folder:

1. A FIFO, socket or device is never opened. A symbolic link is never followed.
2. A name that is not UTF-8 is skipped, because a row could not state it.
3. What git ignores is skipped; `.git` itself is neither read nor counted.
4. A repository inside a repository is a submodule and skipped. A repository or package inside a plain folder is a
   source of its own. A folder that is itself a given path is read there only.
5. Excluded folders and files are skipped (`producers.source_code.exclusions`).
6. Files of binary and of unknown kinds, and files over the limit, are skipped.

All files below a skipped folder are counted under its reason, so that the counts add up to the files on disk. Entries
come in the order of their names, files before folders, so the order depends only on the tree. The memory that a walk
takes is that of the names of one folder and of the folders above it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from producers.source_code.exclusions import Exclusions
from producers.source_code.gitignore import IGNORE_FILE, IgnoreRules, ignore_rules, is_ignored
from producers.source_code.sources import GIT, MARKERS, PACKAGES, Source, is_bare, open_source
from schema.source_code.languages import language_of

BINARY_EXTENSIONS = frozenset(
    (
        *(
            "a",
            "bin",
            "bmp",
            "bz2",
            "class",
            "dat",
            "db",
            "dll",
            "dylib",
            "eot",
            "exe",
            "gif",
            "gz",
            "ico",
            "jar",
            "jpeg",
        ),
        *("jpg", "lib", "mo", "mp3", "mp4", "npy", "npz", "o", "obj", "otf", "parquet", "pdf", "pickle", "pkl", "png"),
        *(
            "pyc",
            "pyd",
            "pyo",
            "rlib",
            "so",
            "sqlite",
            "tar",
            "tgz",
            "tiff",
            "ttf",
            "wasm",
            "wav",
            "webp",
            "whl",
            "woff",
        ),
        *("woff2", "xz", "zip", "zst"),
    )
)


@dataclass(frozen=True)
class WalkRules:
    """What a walk leaves out: excluded paths, and files of more than `file_limit_bytes`; with `scrub`, also secrets."""

    exclusions: Exclusions
    file_limit_bytes: int
    scrub: bool = False


class Entry(NamedTuple):
    """A file: its path relative to the top of its source, its size in bytes, and the reason if it is skipped."""

    source: Source
    path: str
    size: int
    skipped: str | None


@dataclass
class _Folder:
    """A folder to read: its path relative to the top of its source ("" or ending in "/")."""

    source: Source
    path: str
    rules: tuple[IgnoreRules, ...]
    skipped: str | None = None


def walk(sources: Sequence[Source], rules: WalkRules) -> Iterator[Entry]:
    """Yield every file below the sources once, in the order of the sources and of the names."""
    given = {source.top / source.inside for source in sources}
    for source in sources:
        if source.bare:
            continue
        yield from _Walk(rules, given - {source.top / source.inside}).files(source)


class _Walk:
    def __init__(self, rules: WalkRules, others: set[Path]) -> None:
        self._rules = rules
        self._others = others

    def files(self, source: Source) -> Iterator[Entry]:
        # A stack of its own, because trees can be deeper than Python's recursion limit.
        skipped = None if _is_utf8(source.inside) else "name_not_utf8"
        waiting = [_Folder(source, source.inside, source.rules, skipped)]
        while waiting:
            inner: list[_Folder] = []
            yield from self._folder(waiting.pop(), inner)
            waiting += reversed(inner)

    def _folder(self, folder: _Folder, inner: list[_Folder]) -> Iterator[Entry]:
        """Yield the files of a folder and append its folders to `inner`."""
        source = folder.source
        place = source.top / folder.path
        if place in self._others:
            return
        try:
            with os.scandir(place) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError:
            yield Entry(source, folder.path, 0, folder.skipped or "unreadable")
            return
        names = {entry.name for entry in entries}
        if not folder.skipped and folder.path != source.inside:
            if source.git and GIT in names:
                folder.skipped = "submodule"
            elif is_bare(place):
                folder.skipped = "bare_repository"
            elif not source.git and self._begins_source(folder, names):
                source = open_source(place)
                folder = _Folder(source, source.inside, source.rules)
        if source.git and not folder.skipped:
            folder.rules += ignore_rules(place / IGNORE_FILE, folder.path)
        for entry in entries:
            if entry.name == GIT:
                continue
            path = f"{folder.path}{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                inner.append(_Folder(source, f"{path}/", folder.rules, folder.skipped or self._of_folder(folder, path)))
                continue
            size, unreadable = (0, None) if folder.skipped else _size(entry)
            yield Entry(source, path, size, folder.skipped or unreadable or self._of_file(folder, entry, path, size))

    @staticmethod
    def _begins_source(folder: _Folder, names: set[str]) -> bool:
        if folder.source.marked:
            return False
        top_level = folder.path.count("/") == 1 and folder.source.top.name in PACKAGES
        return bool(names & MARKERS) or (top_level and "__init__.py" in names)

    def _of_folder(self, folder: _Folder, path: str) -> str | None:
        name = path.rpartition("/")[2]
        if not _is_utf8(name):
            return "name_not_utf8"
        if folder.source.git and is_ignored(folder.rules, path, is_folder=True):
            return "git_ignored"
        return self._rules.exclusions.of_folder(name)

    def _of_file(self, folder: _Folder, entry: os.DirEntry[str], path: str, size: int) -> str | None:
        if entry.is_symlink():
            return _link_reason(folder.source, entry.path)
        if not entry.is_file(follow_symlinks=False):
            return "special_file"
        if not _is_utf8(entry.name):
            return "name_not_utf8"
        if folder.source.git and is_ignored(folder.rules, path, is_folder=False):
            return "git_ignored"
        if reason := self._rules.exclusions.of_file(entry.name):
            return reason
        if entry.name.rpartition(".")[2].lower() in BINARY_EXTENSIONS:
            return "binary"
        if language_of(path) is None:
            return "unknown_language"
        return "too_large" if size > self._rules.file_limit_bytes else None


def _size(entry: os.DirEntry[str]) -> tuple[int, str | None]:
    """Return the size of a file, and the reason if it cannot even be looked at."""
    try:
        return entry.stat(follow_symlinks=False).st_size, None
    except OSError:
        return 0, "unreadable"


def _is_utf8(name: str) -> bool:
    # Python decodes other bytes of a name to lone surrogates.
    return name.isascii() or not any("\ud800" <= character <= "\udfff" for character in name)


def _link_reason(source: Source, link: str) -> str:
    try:
        target = Path(os.path.realpath(link, strict=True))
    except OSError as error:
        return "link_loop" if error.errno == errno.ELOOP else "link_broken"
    if not target.is_relative_to(source.top / source.inside):
        return "link_out_of_tree"
    return "link_loop" if Path(link).is_relative_to(target) else "link"
