"""The first reading of the sources: which files and commits give documents, and the group of each. No text is kept.

1. Walk the sources (`producers.source_code.walking`) and read each file; one without a document is counted by reason.
2. With histories: read the changes of all commits, in several processes.
3. Sketch the texts, some at a time.
4. Give each document its final group (`producers.source_code.grouping`).

A survey keeps some 500 bytes for a document, and takes up to 2 kB of memory while the groups are found. Texts are read
again when rows are made, so that few are in memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import polars as pl

from producers.pool import Pool
from producers.source_code.components import SLOTS, sketch_documents
from producers.source_code.documents import FileToRead, read_file
from producers.source_code.grouping import Place, final_groups_of
from producers.source_code.history import Portion, change_text, evolutions_in, portions_of
from producers.source_code.sources import Origin, Source
from producers.source_code.walking import Entry, WalkRules, walk

# Called with the number of files seen so far.
OnFiles = Callable[[int], None]
_BATCH_CHARACTERS = 4_000_000


@dataclass(frozen=True)
class Survey:
    """The files that give documents in the order of the walk, the histories in portions, and counts by name.

    `counts` has the skipped files by reason (`SKIP_REASONS`), commits that are left out by reason (`commit_*`), and
    `files_seen`, `sources`, `shallow_clones`, `without_commits`, and `near_duplicates`, the documents with another one
    that is similar.
    """

    files: list[FileToRead]
    portions: list[Portion]
    counts: Counter[str]


def survey(
    sources: Sequence[Source],
    rules: WalkRules,
    *,
    git_history: bool = False,
    workers: int = 1,
    on_files: OnFiles | None = None,
) -> Survey:
    """Read all files below the sources once, and with `git_history` all commits.

    Args:
        workers: processes that read commits.
        on_files: called with the number of files seen so far.

    Raises:
        UsageError: the history of a source cannot be read.
    """
    counts: Counter[str] = Counter()
    origins = {source: source.origin for source in sources}
    files: list[FileToRead] = []
    sketches = _Sketches()
    for entry in walk(sources, rules):
        counts["files_seen"] += 1
        if on_files:
            on_files(counts["files_seen"])
        origin = origins.setdefault(entry.source, entry.source.origin)
        if entry.skipped:
            counts[entry.skipped] += 1
            continue
        file = _to_read(entry, origin)
        text = read_file(file, rules)
        if isinstance(text, str):
            counts[text] += 1
            continue
        sketches.add([text.text])
        files.append(file)
    counts["sources"] = len(origins)
    counts["shallow_clones"] = sum(source.shallow for source in origins)
    counts["without_commits"] = sum(source.git and source.commit is None for source in origins)
    places = [Place(file.origin.repository, file.path, file.path) for file in files]
    portions: list[Portion] = []
    changes: list[tuple[int, str, str]] = []
    if git_history:
        readable = [source for source in origins if source.has_history]
        portions = [one for source in readable for one in portions_of(origins[source], source.inside, counts)]
        with Pool(_SketchPortion(rules), min(workers, len(portions)) or 1) as pool:
            for number, (found, sketched) in enumerate(pool.results(portions)):
                repository = portions[number].origin.repository
                places += [Place(repository, path, old_path) for _, path, old_path in found]
                changes += [(number, commit, path) for commit, path, _ in found]
                sketches.extend(sketched)

    def text_of(number: int) -> str | None:
        if number >= len(files):
            portion, commit, path = changes[number - len(files)]
            return change_text(portions[portion], commit, path, rules)
        read = read_file(files[number], rules)
        return None if isinstance(read, str) else read.text

    groups = final_groups_of(places, sketches.all(), text_of)
    counts["near_duplicates"] = groups.near_duplicates
    names = iter(groups.names)
    files = [replace(file, group=next(names)) for file in files]
    final: list[dict[tuple[str, str], str]] = [{} for _ in portions]
    for (portion, commit, path), name in zip(changes, names, strict=True):
        final[portion][commit, path] = name
    return Survey(files, [replace(one, groups=each) for one, each in zip(portions, final, strict=True)], counts)


@dataclass(frozen=True)
class _SketchPortion:
    """Finds the changes of a portion, (commit, path, path before), and sketches their texts, in worker processes."""

    rules: WalkRules

    def __call__(self, portion: Portion) -> tuple[list[tuple[str, str, str]], npt.NDArray[np.uint8]]:
        # What is left out is counted when the rows are made.
        found = list(evolutions_in(portion, self.rules, Counter()))
        sketches = _Sketches()
        sketches.add([evolution.text for evolution in found])
        return [(each.commit, each.path, each.old_path) for each in found], sketches.all()


@dataclass
class _Sketches:
    """Sketches texts, some at a time, so that few are in memory."""

    done: list[npt.NDArray[np.uint8]] = field(default_factory=lambda: [np.empty((0, SLOTS), dtype=np.uint8)])
    waiting: list[str] = field(default_factory=list)
    characters: int = 0

    def add(self, texts: Sequence[str]) -> None:
        self.waiting += texts
        self.characters += sum(map(len, texts))
        if self.characters > _BATCH_CHARACTERS:
            self._sketch()

    def extend(self, sketches: npt.NDArray[np.uint8]) -> None:
        self._sketch()
        self.done.append(sketches)

    def all(self) -> npt.NDArray[np.uint8]:
        self._sketch()
        return np.concatenate(self.done)

    def _sketch(self) -> None:
        if self.waiting:
            self.done.append(sketch_documents(pl.Series(self.waiting)))
        self.waiting, self.characters = [], 0


def _to_read(entry: Entry, origin: Origin) -> FileToRead:
    blobs = entry.source.blobs
    blob = None if blobs is None else blobs.get(entry.path.encode(), b"")
    return FileToRead(origin, entry.path, entry.size, blob, "")
