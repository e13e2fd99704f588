"""A git repository on disk: its folders, the commit of HEAD, and the commits of its history in a fixed order.

Nothing of the repository is executed. Its configuration is not read, so filters, aliases, includes and hooks have no
effect. A working tree, a linked worktree, a submodule and a bare repository can be opened.
"""

from __future__ import annotations

import heapq
import os
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from producers.source_code.git_objects import DAMAGE, GitObjects, ObjectError, open_regular, read_small
from schema.errors import UsageError

# git never writes so large a commit; a signature and a long message take some kilobytes.
LARGEST_COMMIT_BYTES = 1 << 20
_ID = re.compile(rb"[0-9a-f]{40}")
_SHA256_ID = re.compile(rb"[0-9a-f]{64}")
_LONGEST_REF_CHAIN = 5
_MOST_PACKED_REFS = 1_000_000
_MOST_SHALLOW_BYTES = 16 << 20


class Commits(NamedTuple):
    """The commits of a history that have one parent at most, and the others counted by reason.

    Attributes:
        ids: in order: parents come first, and unrelated commits follow their commit time, then their id.
        skipped: `commit_merge`, `commit_shallow_boundary`, `commit_missing`, `commit_damaged`, `commit_too_large` or
            `commit_beyond_limit` -> number of commits.
    """

    ids: Sequence[bytes]
    skipped: Counter[str]


class Repository:
    """A repository opened for reading; a context manager.

    Args:
        path: the folder of a working tree (with `.git`), or a bare repository.

    Attributes:
        common: the folder that the working trees of a repository share, with its objects, configuration and excludes.

    Raises:
        UsageError: the path holds no repository, or one of a form that cannot be read.
    """

    def __init__(self, path: Path) -> None:
        control = control_folder(path)
        if control is None:
            raise UsageError(f"{path} is no git repository: give a folder that has .git in it, or a bare repository")
        self.path = path
        self._control = control
        self.common = control
        with suppress(OSError):
            self.common = control / os.fsdecode(read_small(control / "commondir").strip())
        if (self.common / "reftable").is_dir():
            raise UsageError(f"{path} stores its branches as reftable: run `git refs migrate --ref-format=files` first")
        try:
            self.objects = GitObjects(self.common / "objects")
        except (OSError, ValueError) as error:
            raise UsageError(f"the objects of {path} cannot be read ({error}): clone it again") from error

    def __enter__(self) -> Repository:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.objects.close()

    def head(self) -> bytes | None:
        """Return the id of the commit of HEAD, or None if there is no commit yet.

        Raises:
            UsageError: HEAD is damaged, or its ids are SHA-256.
        """
        value = b"ref: HEAD"
        for _ in range(_LONGEST_REF_CHAIN):
            if not value.startswith(b"ref:"):
                break
            name = value[4:].strip()
            found = self._ref(name)
            if found is None:
                if name == b"HEAD":
                    raise UsageError(
                        f"HEAD of {self.path} is missing or damaged: check out a branch, or clone it again"
                    )
                return None
            value = found
        if _SHA256_ID.fullmatch(value):
            raise UsageError(f"{self.path} has SHA-256 ids, which are not supported: give a repository with SHA-1 ids")
        if not _ID.fullmatch(value):
            raise UsageError(f"HEAD of {self.path} is {value[:80]!r}, which is no commit: check out a branch")
        return value

    def shallow_boundary(self) -> frozenset[bytes]:
        """Return the ids of the commits whose parents a shallow clone left out."""
        try:
            return frozenset(read_small(self.common / "shallow", _MOST_SHALLOW_BYTES).split())
        except OSError:
            return frozenset()

    def commits(self, most: int) -> Commits:
        """Return the commits of the history of HEAD; of more than `most` usable ones, the last `most` in order."""
        skipped: Counter[str] = Counter()
        parents: dict[bytes, Sequence[bytes]] = {}
        times: dict[bytes, int] = {}
        boundary = self.shallow_boundary()
        head = self.head()
        todo = [] if head is None else [head]
        while todo:
            each = todo.pop()
            if each in parents:
                continue
            parents[each] = ()
            times[each] = 0
            try:
                commit = self.objects.commit(each, LARGEST_COMMIT_BYTES)
            except ObjectError as error:
                skipped[f"commit_{error.reason}"] += 1
                times[each] = -1
                continue
            with suppress(*DAMAGE):
                times[each] = max(int(commit.commit_time), 0)
            if each in boundary:
                skipped["commit_shallow_boundary"] += 1
                times[each] = -1
                continue
            parents[each] = tuple(map(bytes, commit.parents))
            todo += parents[each]
        ids = []
        for each in _in_order(parents, times):
            if len(parents[each]) > 1:
                skipped["commit_merge"] += 1
            elif times[each] >= 0:
                ids.append(each)
        if len(ids) > most:
            skipped["commit_beyond_limit"] += len(ids) - most
            ids = ids[len(ids) - most :]
        return Commits(ids, skipped)

    def _ref(self, name: bytes) -> bytes | None:
        """Return what a reference contains, or None if it does not exist."""
        parts = name.split(b"/")
        if name != b"HEAD" and (parts[0] != b"refs" or b".." in parts or b"\0" in name or b"" in parts):
            return None
        for folder in (self._control, self.common):
            with suppress(OSError):
                return read_small(folder / os.fsdecode(name)).strip()
        with suppress(OSError), open_regular(self.common / "packed-refs") as file:
            for _ in range(_MOST_PACKED_REFS):
                line = file.readline(8192)
                if not line:
                    break
                object_id, _, packed = line.strip().partition(b" ")
                if packed == name:
                    return object_id
        return None


def control_folder(path: Path) -> Path | None:
    """Return the folder with the data of the repository at `path`, or None if there is no repository.

    It is `.git`, the folder that a file `.git` names (as in a linked worktree or a submodule), or a bare repository.
    """
    inside = path / ".git"
    if inside.is_dir():
        return inside
    with suppress(OSError):
        if inside.is_file() and (line := read_small(inside)).startswith(b"gitdir:"):
            named = path / os.fsdecode(line[7:].strip().replace(b"\0", b""))
            return named if named.is_dir() else None
    bare = (path / "HEAD").is_file() and (path / "objects").is_dir() and (path / "refs").is_dir()
    return path if bare else None


def _in_order(parents: dict[bytes, Sequence[bytes]], times: dict[bytes, int]) -> list[bytes]:
    children: dict[bytes, list[bytes]] = {}
    waiting = dict.fromkeys(parents, 0)
    for each, above in parents.items():
        # A damaged commit can name one parent twice.
        for parent in set(above):
            children.setdefault(parent, []).append(each)
            waiting[each] += 1
    ready = [(times[each], each) for each, number in waiting.items() if not number]
    heapq.heapify(ready)
    order = []
    while ready:
        each = heapq.heappop(ready)[1]
        order.append(each)
        for child in children.get(each, ()):
            waiting[child] -= 1
            if not waiting[child]:
                heapq.heappush(ready, (times[child], child))
    return order
