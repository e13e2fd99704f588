"""A source: one repository, crate, package or folder on disk, with the provenance that its rows state.

- name: from the git remote `origin` (owner/name), else from Cargo.toml, else from pyproject.toml, else the folder's
  name. A row never has an absolute path of the machine.
- commit: the commit of HEAD for files that are the same there; null for changed and untracked files. A published crate
  states its commit in .cargo_vcs_info.json, which holds for all its files.
- A folder inside a repository belongs to that repository, unless git ignores the folder there.
"""

from __future__ import annotations

import json
import os
import re
import stat
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from producers.source_code.git_objects import ObjectError
from producers.source_code.git_repository import LARGEST_COMMIT_BYTES, Repository
from producers.source_code.gitignore import IGNORE_FILE, IgnoreRules, ignore_rules, is_ignored
from producers.source_code.licenses import repository_license
from producers.source_code.regular_files import text_of
from schema.errors import UsageError

GIT = ".git"
# A folder with one of these, in a folder that is no repository or package itself, is a source of its own.
MARKERS = frozenset((GIT, "Cargo.toml", "pyproject.toml", "setup.py"))
PACKAGES = ("site-packages", "dist-packages")
# A folder with 100,000 files takes 4 MB.
_LARGEST_TREE_BYTES = 16 << 20
# Trees made on purpose can hold each other without end.
_MOST_TREES = 200_000
_COMMIT = re.compile("[0-9a-f]{40,64}")


@dataclass(frozen=True)
class Origin:
    """What the documents of a source have in common: the folder to read from, and provenance for rows."""

    top: Path
    repository: str
    license: str | None
    commit: str | None


@dataclass(frozen=True, eq=False)
class Source:
    """A repository, crate, package or folder.

    Attributes:
        top: its folder, an absolute path without links.
        inside: the folder to read, relative to `top`: "" or ending in "/".
        repository: its name in rows.
        license: an SPDX expression, or None if it states none.
        commit: HEAD, or the commit that a published crate states; None if there is no commit.
        marked: whether it is a repository or package, so that no folder in it is a source of its own.
        git: whether `top` has a repository whose ignore files hold.
        bare: whether `top` is a bare repository, which has a history and no files.
        rules: the ignore rules that hold for `inside`, from the folders above it.
        shallow: whether the repository is a shallow clone; its files are all there, and its history is not.
        blobs: {path: blob id} of HEAD below `inside`, in bytes; None if `commit` holds for all files.
    """

    top: Path
    inside: str
    repository: str
    license: str | None
    commit: str | None
    marked: bool
    git: bool
    bare: bool = False
    rules: tuple[IgnoreRules, ...] = ()
    shallow: bool = False
    blobs: Mapping[bytes, bytes] | None = field(default=None, repr=False)

    @property
    def origin(self) -> Origin:
        """What its documents have in common."""
        return Origin(self.top, self.repository, self.license, self.commit)

    @property
    def has_history(self) -> bool:
        """Whether there is a repository whose commits can be read."""
        return self.git or self.bare


def given_folders(paths: Iterable[str], *, bare: bool = False) -> list[Path]:
    """Return the folders of the paths as absolute paths without links, in order, without repetitions.

    Args:
        bare: accept a bare repository; it has no files, and a history.

    Raises:
        UsageError: a path does not exist, is not a folder or cannot be read, or is a bare repository.
    """
    folders = {}
    for path in paths:
        folder = Path(os.path.realpath(path))
        if not os.path.lexists(folder):
            raise UsageError(f"{path} does not exist: give folders of source code")
        if not folder.is_dir():
            raise UsageError(f"{path} is not a folder: give the folder that it is in")
        try:
            next(folder.iterdir(), None)
        except OSError as error:
            raise UsageError(f"{path} cannot be read ({error.strerror}): allow it, or leave it out") from error
        if is_bare(folder) and not bare:
            raise UsageError(f"{path} is a bare repository, which has no files: clone it, or add --git-history")
        folders[folder] = path
    return list(folders)


def is_bare(folder: Path) -> bool:
    """Return whether a folder is a bare repository, or the .git folder of a repository."""
    return (folder / "HEAD").is_file() and (folder / "objects").is_dir() and (folder / "refs").is_dir()


def open_source(folder: Path) -> Source:
    """Return the source that a folder (an absolute path without links) belongs to.

    A repository that cannot be read, e.g. with SHA-256 ids, is read as a folder without git.
    """
    if is_bare(folder):
        return _bare_source(folder)
    for top in (folder, *folder.parents):
        if not os.path.lexists(top / GIT):
            continue
        try:
            with Repository(top) as repository:
                inside = "" if top == folder else f"{folder.relative_to(top)}/"
                rules = _rules_above(repository, inside)
                if rules is None:
                    break
                return _git_source(repository, inside, rules)
        except UsageError:
            continue
    return _plain_source(folder)


def _rules_above(repository: Repository, inside: str) -> tuple[IgnoreRules, ...] | None:
    """Return the rules that hold in `inside`, without its own ignore file; None if git ignores the folder."""
    rules = ignore_rules(repository.common / "info" / "exclude")
    folder = ""
    for name in inside.split("/")[:-1]:
        rules += ignore_rules(repository.path / folder / IGNORE_FILE, folder)
        if is_ignored(rules, f"{folder}{name}", is_folder=True):
            return None
        folder += f"{name}/"
    return rules


def _git_source(repository: Repository, inside: str, rules: tuple[IgnoreRules, ...]) -> Source:
    top = repository.path
    commit, blobs = _head(repository, os.fsencode(inside))
    cargo, project = _cargo(top), _project(top)
    return Source(
        top=top,
        inside=inside,
        repository=_origin_name(repository) or _name(top, cargo, project),
        license=repository_license(top, cargo, project),
        commit=commit,
        marked=True,
        git=True,
        rules=rules,
        shallow=bool(repository.shallow_boundary()),
        blobs=blobs,
    )


def _bare_source(folder: Path) -> Source:
    with Repository(folder) as repository:
        head = repository.head()
        return Source(
            top=folder,
            inside="",
            repository=_origin_name(repository) or _name(folder.with_suffix(""), {}, {}),
            license=None,
            commit=None if head is None else head.decode(),
            marked=True,
            git=False,
            bare=True,
            shallow=bool(repository.shallow_boundary()),
        )


def _plain_source(folder: Path) -> Source:
    cargo, project = _cargo(folder), _project(folder)
    return Source(
        top=folder,
        inside="",
        repository=_name(folder, cargo, project),
        license=repository_license(folder, cargo, project),
        commit=_published_commit(folder),
        marked=any(os.path.lexists(folder / name) for name in MARKERS | {"__init__.py"}),
        git=False,
    )


def _head(repository: Repository, inside: bytes) -> tuple[str | None, dict[bytes, bytes]]:
    """Return the commit of HEAD and {path: blob id} of its files below a folder; (None, {}) without a commit.

    A damaged repository, a partial clone that lacks the trees of HEAD, and one of over 200,000 folders count as ones
    without a commit.
    """
    head = repository.head()
    blobs: dict[bytes, bytes] = {}
    try:
        if head is None:
            return None, {}
        trees = [(b"", repository.objects.commit(head, LARGEST_COMMIT_BYTES).tree)]
        for _ in range(_MOST_TREES):
            if not trees:
                return head.decode(), blobs
            folder, tree = trees.pop()
            for entry in repository.objects.tree(tree, _LARGEST_TREE_BYTES).items():
                path = folder + entry.path
                if stat.S_ISDIR(entry.mode) and (path + b"/").startswith(inside[: len(path) + 1]):
                    trees.append((path + b"/", entry.sha))
                elif stat.S_ISREG(entry.mode) and path.startswith(inside):
                    blobs[path] = entry.sha
    except ObjectError:
        pass
    return None, {}


def _origin_name(repository: Repository) -> str | None:
    """Return the name in the remote `origin` of the repository's own configuration, without the files it includes."""
    config = text_of(repository.common / "config") or ""
    section = re.search(r'^[ \t]*\[remote "origin"\](.*?)(?=^[ \t]*\[|\Z)', config, re.MULTILINE | re.DOTALL)
    url = re.search(r"^[ \t]*url[ \t]*=[ \t]*(.+?)[ \t]*$", section[1], re.MULTILINE) if section else None
    return remote_name(url[1].strip('"')) if url else None


def remote_name(url: str) -> str | None:
    """Return the name of a repository from the URL of its remote, without host and credentials.

    Example::

        remote_name("git@example.org:owner/name.git")  # 'owner/name'
        remote_name("/srv/git/name.git")  # 'name'
    """
    remote = re.fullmatch(r"(?:(?!file:)[a-z+]+://[^/]*/|(?:[^/:@]+@)?[^/:@]{2,}:(?!//))(.+)", url)
    named = remote[1] if remote else url
    if remote or "://" in url:
        # Credentials can also be in the query, or before an "@" that is not where it belongs.
        named = re.sub(r"[^/]*@([^/:]*:)?", "", re.split(r"[?#]", named)[0])
    parts = [part for part in re.split(r"[/\\]", named) if part not in ("", ".", "..", GIT)]
    kept = parts[-2:] if remote else parts[-1:]
    return "/".join(kept).removesuffix(GIT) or None


def _name(folder: Path, cargo: Mapping[str, Any], project: Mapping[str, Any]) -> str:
    for stated in (cargo.get("name"), project.get("name")):
        if isinstance(stated, str) and (name := stated.strip().rpartition("/")[2]):
            return name
    return os.fsencode(folder.name).decode(errors="replace") or "unnamed"


def _cargo(folder: Path) -> Mapping[str, Any]:
    """Return the table `package` of Cargo.toml, with what it takes from `workspace.package`."""
    document = _toml(folder, "Cargo.toml")
    workspace = _table(_table(document, "workspace"), "package")
    package = _table(document, "package")
    return {**workspace, **{key: value for key, value in package.items() if not _inherited(value)}}


def _inherited(value: Any) -> bool:
    return isinstance(value, dict) and value.get("workspace") is True


def _project(folder: Path) -> Mapping[str, Any]:
    return _table(_toml(folder, "pyproject.toml"), "project")


def _toml(folder: Path, name: str) -> Mapping[str, Any]:
    try:
        return tomllib.loads(text_of(folder / name) or "")
    except (ValueError, RecursionError):
        return {}


def _table(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    table = document.get(name)
    return table if isinstance(table, dict) else {}


def _published_commit(folder: Path) -> str | None:
    """Return the commit that a published crate states, if it was published from a clean working tree."""
    try:
        git = json.loads(text_of(folder / ".cargo_vcs_info.json") or "{}")["git"]
        commit = git["sha1"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    known = isinstance(commit, str) and _COMMIT.fullmatch(commit) and not git.get("dirty")
    return commit if known else None
