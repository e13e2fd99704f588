"""The first reading of the sources: which files give documents, and the group of each. No text is kept.

1. Walk the sources (`producers.source_code.walking`).
2. Read each file; one that gives no document is counted by reason.
3. Sketch the texts of the others, some files at a time.
4. Join near duplicates into components, and give each document its final group.

A survey takes some 600 bytes of memory a file. Texts are read again when rows are made, so that few are in memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import polars as pl

from producers.source_code.components import SLOTS, final_groups, sketch_documents
from producers.source_code.documents import FileToRead, Origin, read_file
from producers.source_code.sources import Source
from producers.source_code.walking import Entry, WalkRules, walk

# Called with the number of files seen so far.
OnFiles = Callable[[int], None]
_BATCH_CHARACTERS = 4_000_000
# A repository with a larger share of the files would put nearly all of them into one split.
_LARGEST_REPOSITORY = 0.5


@dataclass(frozen=True)
class Survey:
    """The files that give documents, in the order of the walk, and counts by name.

    `counts` has the skipped files by reason (`SKIP_REASONS`), and `files_seen`, `sources`, `shallow_clones`,
    `without_commits` and `near_duplicates`, the documents that are in a component with another one.
    """

    files: list[FileToRead]
    counts: Counter[str]


def survey(sources: Sequence[Source], rules: WalkRules, on_files: OnFiles | None = None) -> Survey:
    """Read all files below the sources once; memory grows with their number, and not with their sizes."""
    counts: Counter[str] = Counter()
    origins: dict[Source, Origin] = {}
    files: list[FileToRead] = []
    sketches = _Sketches()
    for entry in walk(sources, rules):
        counts["files_seen"] += 1
        if on_files:
            on_files(counts["files_seen"])
        source = entry.source
        if source not in origins:
            origins[source] = Origin(source.top, source.repository, source.license, source.commit)
        if entry.skipped:
            counts[entry.skipped] += 1
            continue
        file = _to_read(entry, origins[source])
        text = read_file(file, rules)
        if isinstance(text, str):
            counts[text] += 1
            continue
        sketches.add(text.text)
        files.append(file)
    counts["sources"] = len(origins)
    counts["shallow_clones"] = sum(source.shallow for source in origins)
    counts["without_commits"] = sum(source.git and source.commit is None for source in origins)
    return Survey(_grouped(files, sketches.all(), rules, counts), counts)


@dataclass
class _Sketches:
    """Sketches texts, some at a time, so that few are in memory."""

    done: list[npt.NDArray[np.uint8]] = field(default_factory=lambda: [np.empty((0, SLOTS), dtype=np.uint8)])
    waiting: list[str] = field(default_factory=list)
    characters: int = 0

    def add(self, text: str) -> None:
        self.waiting.append(text)
        self.characters += len(text)
        if self.characters > _BATCH_CHARACTERS:
            self._sketch()

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


def _grouped(
    files: list[FileToRead], sketches: npt.NDArray[np.uint8], rules: WalkRules, counts: Counter[str]
) -> list[FileToRead]:
    """Return the files with their final groups: by repository if no repository holds most of them, else by file."""
    if not files:
        return files
    largest = max(Counter(file.origin.repository for file in files).values())
    by_repository = largest <= _LARGEST_REPOSITORY * len(files)
    default = [file.origin.repository if by_repository else f"{file.origin.repository}/{file.path}" for file in files]

    def text(number: int) -> str | None:
        read = read_file(files[number], rules)
        return None if isinstance(read, str) else read.text

    grouping = final_groups(sketches, pl.Series(default), text, by_repository=by_repository)
    _, sizes = np.unique(grouping.components, return_counts=True)
    counts["near_duplicates"] = int(sizes[sizes > 1].sum())
    return [replace(file, group=group) for file, group in zip(files, grouping.groups.to_list(), strict=True)]
