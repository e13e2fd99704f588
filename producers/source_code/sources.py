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

from dulwich.objects import Commit
from dulwich.repo import Repo

from producers.source_code.gitignore import IGNORE_FILE, IgnoreRules, ignore_rules, is_ignored
from producers.source_code.licenses import repository_license
from producers.source_code.regular_files import text_of
from schema.errors import UsageError

GIT = ".git"
# A folder with one of these, in a folder that is no repository or package itself, is a source of its own.
MARKERS = frozenset((GIT, "Cargo.toml", "pyproject.toml", "setup.py"))
PACKAGES = ("site-packages", "dist-packages")
_COMMIT = re.compile("[0-9a-f]{40,64}")


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
    rules: tuple[IgnoreRules, ...] = ()
    shallow: bool = False
    blobs: Mapping[bytes, bytes] | None = field(default=None, repr=False)


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
    """Return the source that a folder (an absolute path without links) belongs to."""
    top = _working_tree(folder)
    if top is not None:
        inside = "" if top == folder else f"{folder.relative_to(top)}/"
        rules = _rules_above(top, inside)
        if rules is not None:
            return _git_source(top, inside, rules)
    return _plain_source(folder)


def _working_tree(folder: Path) -> Path | None:
    """Return the innermost folder at or above `folder` that has a .git which a repository can be opened from."""
    return next((one for one in (folder, *folder.parents) if os.path.lexists(one / GIT) and _opens(one)), None)


def _opens(top: Path) -> bool:
    # dulwich raises errors of many kinds for a broken repository; such a folder is read as one without git.
    try:
        Repo(str(top)).close()
    except Exception:
        return False
    return True


def _rules_above(top: Path, inside: str) -> tuple[IgnoreRules, ...] | None:
    """Return the rules that hold in `inside`, without its own ignore file; None if git ignores the folder."""
    rules = _excludes(top)
    folder = ""
    for name in inside.split("/")[:-1]:
        rules += ignore_rules(top / folder / IGNORE_FILE, folder)
        if is_ignored(rules, f"{folder}{name}", is_folder=True):
            return None
        folder += f"{name}/"
    return rules


def _excludes(top: Path) -> tuple[IgnoreRules, ...]:
    with Repo(str(top)) as repository:
        return ignore_rules(Path(repository.commondir()) / "info" / "exclude")


def _git_source(top: Path, inside: str, rules: tuple[IgnoreRules, ...]) -> Source:
    with Repo(str(top)) as repository:
        commit, blobs = _head(repository, os.fsencode(inside))
        remote = _remote_name(repository)
        shallow = bool(repository.get_shallow())
    cargo, project = _cargo(top), _project(top)
    return Source(
        top=top,
        inside=inside,
        repository=remote or _name(top, cargo, project),
        license=repository_license(top, cargo, project),
        commit=commit,
        marked=True,
        git=True,
        rules=rules,
        shallow=shallow,
        blobs=blobs,
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


def _head(repository: Repo, inside: bytes) -> tuple[str | None, dict[bytes, bytes]]:
    """Return the commit of HEAD and {path: blob id} of its files below a folder; (None, {}) without a commit.

    A partial clone that lacks the trees of HEAD counts as one without a commit.
    """
    try:
        commit = repository[repository.head()]
        if not isinstance(commit, Commit):
            return None, {}
        blobs: dict[bytes, bytes] = {
            entry.path: entry.sha
            for entry in repository.object_store.iter_tree_contents(commit.tree)
            if stat.S_ISREG(entry.mode) and entry.path.startswith(inside)
        }
    except (KeyError, ValueError, OSError):
        return None, {}
    return commit.id.decode(), blobs


def _remote_name(repository: Repo) -> str | None:
    """Return owner/name of the remote `origin`, or only the name if the remote is a path of a machine."""
    try:
        url = repository.get_config().get((b"remote", b"origin"), b"url").decode()
    except (KeyError, ValueError, OSError):
        return None
    return remote_name(url)


def remote_name(url: str) -> str | None:
    """Return the name of a repository from the URL of its remote, without host and credentials.

    Example::

        remote_name("git@example.org:owner/name.git")  # 'owner/name'
        remote_name("/srv/git/name.git")  # 'name'
    """
    remote = re.fullmatch(r"(?:(?!file:)[a-z+]+://[^/]*/|(?:[^/:@]+@)?[^/:@]{2,}:(?!//))(.+)", url)
    parts = [part for part in re.split(r"[/\\]", remote[1] if remote else url) if part not in ("", ".", "..", GIT)]
    kept = parts[-2:] if remote else parts[-1:]
    return "/".join(kept).removesuffix(GIT) or None


def _name(folder: Path, cargo: Mapping[str, Any], project: Mapping[str, Any]) -> str:
    for stated in (cargo.get("name"), project.get("name")):
        if isinstance(stated, str) and stated.strip():
            return stated.strip()
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
    except (tomllib.TOMLDecodeError, RecursionError):
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
