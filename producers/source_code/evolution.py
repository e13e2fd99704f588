"""Evolutions: for each changed file of a git history, the text before, the text after, the diff, the message, the date.

The rules, in the order in which they apply. A commit or a change that a rule leaves out is counted under its name.

1. Commits: `commit_merge` (two or more parents), `commit_shallow_boundary` (a shallow clone lacks its parent),
   `commit_missing`, `commit_damaged`, `commit_too_large`, `commit_parent_missing` and the like, `commit_date_invalid`,
   `commit_message_not_text`, and `commit_too_many_files` (the trees are compared only until the limit is reached). Of
   a very long history the last commits are used (`commit_beyond_limit`).
2. Changes that are no change of a text: `change_submodule`, `change_symlink`, `change_mode_only`, `change_added`,
   `change_deleted`, `change_renamed_only`. A file that was renamed and changed is an evolution. A rename is
   found by equal content, or by lines that make up at least half of the larger file.
3. Paths: `change_path_invalid` (not UTF-8, control characters, a part `..`), `change_language_unknown`,
   `change_path_secret` (a secret or an e-mail address), and the reasons of `EvolutionOptions.skip`.
4. Contents: `change_too_large` (the size is known before the file is read), `change_missing`, `change_damaged`,
   `change_binary` (a NUL), `change_not_utf8`, `change_lfs_pointer`; of the version after the change,
   `change_generated` and `change_minified` (`producers.source_code.file_texts`).
5. What is left to learn: `change_secret_only` (both versions are equal without secrets), `change_formatting_only`,
   `change_too_long` (of message and diff).

Memory is bounded by `EvolutionOptions.max_file_bytes`, the trees of one commit, and some 300 bytes for each commit.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from dulwich.diff_tree import TreeChange, tree_changes
from dulwich.objects import Commit, Tree, TreeEntry

from producers.source_code.file_texts import file_text
from producers.source_code.formatting import differ_in_form_only
from producers.source_code.git_objects import BLOB, DAMAGE, GitObjects, ObjectError
from producers.source_code.git_repository import LARGEST_COMMIT_BYTES, Repository
from producers.source_code.line_diff import unified_diff
from producers.source_code.secrets import has_secret_name, scrubbed_together
from schema.source_code.languages import language_of

# A folder with 100,000 files takes 4 MB.
_LARGEST_TREE_BYTES = 16 << 20
# Trees without files in them could go on for ever.
_MOST_TREES = 2_000
_MOST_COMPARED_RENAMES = 20
_RENAME_SIMILARITY = 0.5
_TYPE_BITS, _FILE, _SYMLINK, _SUBMODULE = 0o170000, 0o100000, 0o120000, 0o160000
_LFS_POINTER = "version https://git-lfs.github.com/spec/"
_CONTROL = re.compile(r"[\x00-\x1f\x7f\u2028\u2029]")
# Other codecs of Python are no encodings of text, or are slow on purpose-made input.
_ENCODING = re.compile(rb"(?i)(iso[-_]?8859[-_]\d{1,2}|latin[-_]?1|cp125\d|windows-125\d|koi8-r|euc-jp|shift_jis|gbk)")
_NO_PARTS = frozenset({"", ".", ".."})
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _skip_nothing(path: str) -> str | None:
    return None


@dataclass(frozen=True)
class EvolutionOptions:
    """What becomes an evolution.

    Attributes:
        max_file_bytes: the largest version of a file that is read.
        max_files: a commit that changes more files is left out.
        max_characters: the longest text (message, empty line, diff).
        max_commits: the last commits of the history that are used.
        keep_formatting_only: whether changes of form only are evolutions, too.
        skip: path -> reason to leave the file out, or None.
    """

    max_file_bytes: int = 200_000
    max_files: int = 500
    max_characters: int = 200_000
    max_commits: int = 100_000
    keep_formatting_only: bool = False
    skip: Callable[[str], str | None] = _skip_nothing


class Evolution(NamedTuple):
    """One changed file of one commit, without secrets and e-mail addresses.

    Attributes:
        commit: the id of the commit, 40 hex digits.
        path: the path after the commit.
        old_path: the path before it, which differs if the file was renamed.
        before, after: both versions of the file.
        diff: the unified diff that makes `after` of `before`.
        message: the message of the commit.
        author_date: ISO 8601, UTC, as in 2024-05-06T07:08:09Z.
        language: of the file, by its path.
        scrubbed: kind of secret -> number of places in message, before and after where one was replaced.
    """

    commit: str
    path: str
    old_path: str
    before: str
    after: str
    diff: str
    message: str
    author_date: str
    language: str
    scrubbed: Counter[str]

    @property
    def text(self) -> str:
        """The document: message, empty line, diff."""
        return f"{self.message}\n\n{self.diff}"


class _LeftOut(Exception):  # noqa: N818  # it is no error
    """A commit or a change is left out; the argument is its reason."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _Header(NamedTuple):
    """What all evolutions of a commit have in common."""

    commit: str
    message: str
    author_date: str


class _Trees:
    """The trees of a commit, read with limits; what `dulwich.diff_tree` asks of an object store."""

    def __init__(self, objects: GitObjects) -> None:
        self._objects = objects
        self._left = _MOST_TREES

    def __getitem__(self, object_id: bytes) -> Tree:
        self._left -= 1
        if self._left < 0:
            raise _LeftOut("commit_too_many_files")
        return self._objects.tree(object_id, _LARGEST_TREE_BYTES)


def evolutions(path: Path, options: EvolutionOptions, counts: Counter[str]) -> Iterator[Evolution]:
    """Yield the evolutions of the history of HEAD, in a fixed order: that of the commits, then of the paths.

    Args:
        path: a working tree or a bare repository.
        counts: gets the number of commits and changes that are left out, by reason.

    Raises:
        UsageError: there is no readable repository.
    """
    with Repository(path) as repository:
        commits = repository.commits(options.max_commits)
        counts.update(commits.skipped)
        yield from evolutions_of(repository, commits.ids, options, counts)


def evolutions_of(
    repository: Repository, commits: Iterable[bytes], options: EvolutionOptions, counts: Counter[str]
) -> Iterator[Evolution]:
    """Yield the evolutions of some commits of `Repository.commits`, so that a history can be divided into units."""
    objects = repository.objects
    for commit_id in commits:
        try:
            commit = objects.commit(commit_id, LARGEST_COMMIT_BYTES)
            header = _Header(commit_id.decode("ascii"), _message(commit), _author_date(commit))
            changes = _changes(objects, commit, options)
        except ObjectError as error:
            counts[f"commit_{error.reason}"] += 1
            continue
        except _LeftOut as left_out:
            counts[left_out.reason] += 1
            continue
        for old, new in _renames_joined(objects, changes, options, counts):
            try:
                yield _evolution(objects, header, old, new, options)
            except ObjectError as error:
                counts[f"change_{error.reason}"] += 1
            except _LeftOut as left_out:
                counts[left_out.reason] += 1


def _changes(objects: GitObjects, commit: Commit, options: EvolutionOptions) -> list[TreeChange]:
    trees = _Trees(objects)
    parent = None
    if commit.parents:
        try:
            parent = objects.commit(commit.parents[0], LARGEST_COMMIT_BYTES).tree
        except ObjectError as error:
            raise _LeftOut(f"commit_parent_{error.reason}") from error
    try:
        found = tree_changes(trees, parent, commit.tree)  # type: ignore[arg-type]  # it uses only __getitem__
        changes = list(islice(found, options.max_files + 1))
    except DAMAGE as error:
        raise _LeftOut("commit_damaged") from error
    if len(changes) > options.max_files:
        raise _LeftOut("commit_too_many_files")
    return changes


def _renames_joined(
    objects: GitObjects, changes: Sequence[TreeChange], options: EvolutionOptions, counts: Counter[str]
) -> Iterator[tuple[TreeEntry, TreeEntry]]:
    """Yield the two versions of each file that changed, renamed files included; count the other changes."""
    removed = [change.old for change in changes if change.new is None and change.old is not None]
    added = [change.new for change in changes if change.old is None and change.new is not None]
    origin: dict[bytes, TreeEntry] = {}
    by_content = {entry.sha: entry for entry in removed if _is_file(entry)}
    for entry in added:
        if _is_file(entry) and (same := by_content.pop(entry.sha, None)) is not None:
            counts["change_renamed_only"] += 1
            removed.remove(same)
            origin[entry.path] = same
    added = [entry for entry in added if entry.path not in origin]
    renamed = _similar(objects, removed, added, options)
    gone = {old.path for old in renamed.values()}
    pairs = [(change.old, change.new) for change in changes if change.old is not None and change.new is not None]
    pairs += [(renamed[entry.path], entry) for entry in added if entry.path in renamed]
    for entries, reason in (
        ([entry for entry in removed if entry.path not in gone], "change_deleted"),
        ([entry for entry in added if entry.path not in renamed], "change_added"),
    ):
        for entry in entries:
            counts[_special(entry) or reason] += 1
    yield from sorted(pairs, key=lambda pair: pair[1].path)


def _similar(
    objects: GitObjects, removed: Sequence[TreeEntry], added: Sequence[TreeEntry], options: EvolutionOptions
) -> dict[bytes, TreeEntry]:
    """Return the origin of each added file that was renamed and changed, by its path."""
    if not removed or not added or max(len(removed), len(added)) > _MOST_COMPARED_RENAMES:
        return {}
    old_lines = [(entry, _line_bytes(objects, entry, options)) for entry in removed]
    new_lines = [(entry, _line_bytes(objects, entry, options)) for entry in added]
    scores = [
        (-_similarity(lines, others), old.path, new.path, old)
        for old, lines in old_lines
        for new, others in new_lines
        if lines and others and _ending(old.path) == _ending(new.path)
    ]
    found: dict[bytes, TreeEntry] = {}
    taken: set[bytes] = set()
    for score, old_path, path, old in sorted(scores, key=lambda each: each[:3]):
        if -score >= _RENAME_SIMILARITY and old_path not in taken and path not in found:
            taken.add(old_path)
            found[path] = old
    return found


def _line_bytes(objects: GitObjects, entry: TreeEntry, options: EvolutionOptions) -> Counter[bytes]:
    """Return the bytes in equal lines of a file, by line; empty if the file cannot be an evolution."""
    if not _is_file(entry):
        return Counter()
    try:
        _usable_path(entry.path, options)
        lines = objects.read(entry.sha, BLOB, options.max_file_bytes).split(b"\n")
    except (ObjectError, _LeftOut):
        return Counter()
    sizes: Counter[bytes] = Counter()
    for line in lines:
        sizes[line] += len(line) + 1
    return sizes


def _similarity(left: Counter[bytes], right: Counter[bytes]) -> float:
    return (left & right).total() / max(left.total(), right.total())


def _ending(path: bytes) -> bytes:
    return path.rpartition(b"/")[2].rpartition(b".")[2]


def _evolution(
    objects: GitObjects, header: _Header, old: TreeEntry, new: TreeEntry, options: EvolutionOptions
) -> Evolution:
    if reason := _special(new) or _special(old):
        raise _LeftOut(reason)
    if old.sha == new.sha:
        raise _LeftOut("change_mode_only")
    path, old_path = _usable_path(new.path, options), _usable_path(old.path, options)
    if (language := language_of(path)) is None:
        raise _LeftOut("change_language_unknown")
    if has_secret_name(path) or has_secret_name(old_path):
        raise _LeftOut("change_path_secret")
    texts = [header.message, *(_text(objects, entry, options) for entry in (old, new))]
    if (kind := file_text(texts[2].encode(), path)) in ("generated", "minified"):
        raise _LeftOut(f"change_{kind}")
    (message, before, after), scrubbed = scrubbed_together(texts)
    if before == after:
        raise _LeftOut("change_secret_only")
    if not options.keep_formatting_only and differ_in_form_only(before, after, language):
        raise _LeftOut("change_formatting_only")
    diff = unified_diff(before, after, old_path, path)
    found = Evolution(
        header.commit, path, old_path, before, after, diff, message, header.author_date, language, scrubbed
    )
    if len(found.text) > options.max_characters:
        raise _LeftOut("change_too_long")
    return found


def _usable_path(path: bytes, options: EvolutionOptions) -> str:
    try:
        text = path.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _LeftOut("change_path_invalid") from error
    if _CONTROL.search(text) or not _NO_PARTS.isdisjoint(text.split("/")):
        raise _LeftOut("change_path_invalid")
    if reason := options.skip(text):
        raise _LeftOut(reason)
    return text


def _text(objects: GitObjects, entry: TreeEntry, options: EvolutionOptions) -> str:
    data = objects.read(entry.sha, BLOB, options.max_file_bytes)
    if b"\0" in data:
        raise _LeftOut("change_binary")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _LeftOut("change_not_utf8") from error
    if text.startswith(_LFS_POINTER):
        raise _LeftOut("change_lfs_pointer")
    return text


def _message(commit: Commit) -> str:
    """Return the message of a commit without the empty lines around it."""
    data = commit.message or b""
    declared = commit.encoding or b""
    encoding = declared.decode("ascii") if _ENCODING.fullmatch(declared) else "utf-8"
    try:
        message = data.decode(encoding)
    except (UnicodeDecodeError, LookupError) as error:
        raise _LeftOut("commit_message_not_text") from error
    if "\0" in message:
        raise _LeftOut("commit_message_not_text")
    return message.strip()


def _author_date(commit: Commit) -> str:
    try:
        date = _EPOCH + timedelta(seconds=int(commit.author_time))
    except DAMAGE as error:
        raise _LeftOut("commit_date_invalid") from error
    if date < _EPOCH:
        raise _LeftOut("commit_date_invalid")
    return date.strftime("%Y-%m-%dT%H:%M:%SZ")


def _is_file(entry: TreeEntry) -> bool:
    return entry.mode & _TYPE_BITS == _FILE


def _special(entry: TreeEntry) -> str | None:
    kind = entry.mode & _TYPE_BITS
    return {_SUBMODULE: "change_submodule", _FILE: None}.get(kind, "change_symlink")
