"""Git repositories made of given contents, for tests: each commit is a mapping of paths to files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from dulwich.index import commit_tree
from dulwich.objects import Blob, Commit
from dulwich.repo import Repo

FILE, EXECUTABLE, SYMLINK, SUBMODULE = 0o100644, 0o100755, 0o120000, 0o160000
# A file's content, or its mode and content; the content of a submodule is the id of a commit.
Content = bytes | tuple[int, bytes]
AUTHOR = b"Ada Lovelace <ada@analytical-engines.com>"
FIRST_TIME_S = 1_700_000_000


class MadeHistory:
    """A repository on disk to which commits are added."""

    def __init__(self, path: Path, *, bare: bool = False) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.repo = Repo.init_bare(path) if bare else Repo.init(path)
        self.objects = Path(self.repo.controldir()) / "objects"
        self._number = 0
        self._last: list[bytes] = []

    def commit(
        self,
        files: Mapping[str | bytes, Content],
        message: bytes = b"Change files",
        *,
        parents: Sequence[bytes] | None = None,
        encoding: bytes | None = None,
        author_time: int | None = None,
    ) -> bytes:
        """Add a commit with exactly these files, by default on top of the last one, and return its id."""
        entries = []
        for path, content in files.items():
            mode, data = content if isinstance(content, tuple) else (FILE, content)
            name = path.encode() if isinstance(path, str) else path
            if mode == SUBMODULE:
                entries.append((name, data, mode))
                continue
            blob = Blob.from_string(data)
            self.repo.object_store.add_object(blob)
            entries.append((name, blob.id, mode))
        return self.commit_tree(
            commit_tree(self.repo.object_store, entries),
            message,
            parents=parents,
            encoding=encoding,
            author_time=author_time,
        )

    def commit_tree(
        self,
        tree: bytes,
        message: bytes = b"Change files",
        *,
        parents: Sequence[bytes] | None = None,
        encoding: bytes | None = None,
        author_time: int | None = None,
    ) -> bytes:
        """Add a commit of a tree that is stored already, and return its id."""
        made = Commit()
        made.tree = tree
        made.parents = self._last if parents is None else list(parents)
        made.author = made.committer = AUTHOR
        made.commit_time = FIRST_TIME_S + self._number
        made.author_time = made.commit_time if author_time is None else author_time
        made.author_timezone = made.commit_timezone = 0
        made.encoding = encoding
        made.message = message
        self._number += 1
        self.repo.object_store.add_object(made)
        self.repo.refs[b"HEAD"] = made.id
        self._last = [bytes(made.id)]
        return bytes(made.id)
