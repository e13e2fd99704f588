"""The code producer's run: files of about a megabyte, or some commits, as work units, and the documents of a unit.

1. The plan reads all sources once (`producers.source_code.survey`), because a document's group depends on all others.
2. A unit names its files, or some commits. A worker process reads them again and makes their rows.
3. What the survey skipped travels with the first unit, so the counts of all units add up to the files on disk.

A file that changes between the two readings keeps its group. If it gives no document any more, it is counted by reason.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import polars as pl

from producers.run import ProducerRun, UnitRows
from producers.source_code.documents import FileToRead, document_rows, function_documents, read_file, snapshot
from producers.source_code.exclusions import Exclusions
from producers.source_code.regular_files import read_regular
from producers.source_code.sources import Origin, given_folders, open_source
from producers.source_code.walking import WalkRules
from schema.errors import UsageError
from schema.family import Family
from schema.source_code import FAMILY

if TYPE_CHECKING:
    from producers.source_code.history import Portion

# Three times the characters that the gate allows by default, so that the gate counts what is only somewhat too long. A
# row of this size fits in a record.
FILE_LIMIT_BYTES = 600_000
_UNIT_BYTES = 1_000_000
# Called with the number of files seen so far.
OnFiles = Callable[[int], None]


@dataclass(frozen=True)
class Done:
    """How far a run is after a unit: files and bytes that were read of all that give documents, and commits."""

    files: int
    files_total: int
    bytes: int
    bytes_total: int
    commits: int
    commits_total: int


@dataclass(frozen=True)
class CodeUnit:
    """Files or commits to read, what was counted before them, and how far the run is when they are done."""

    files: tuple[FileToRead, ...]
    portion: Portion | None
    counts: Mapping[str, int]
    done: Done


@dataclass(frozen=True)
class CodeRun(ProducerRun[CodeUnit]):
    """The parameters of a run. The rows depend on the files, `exclusions` and `file_limit_bytes`; `seed` is not used.

    Attributes:
        paths: folders: repositories, crates, packages, or folders of them.
        exclusions: paths that are left out.
        file_limit_bytes: larger files are skipped.
        decontaminate: JSONL files of evaluation tasks; documents that share 13 consecutive words with one are left out
            (`producers.source_code.decontamination`).
        signatures: give each file the signatures of what it imports from its repository.
        scrub: replace secrets and e-mail addresses in files (`producers.source_code.secrets`); in changes of histories
            they are always replaced.
        git_history: make documents of the changes in git histories, too.
        functions: make a completion of each function of a file, too (`schema.source_code.functions`).
        on_files: called by `plan` with the number of files seen so far.

    Raises:
        UsageError: a value is out of range, or `paths` is empty.
    """

    family: ClassVar[Family] = FAMILY
    finite: ClassVar[bool] = True
    count: int | None = None
    seed: int = 0
    paths: Sequence[str] = field(default=(), kw_only=True)
    exclusions: Exclusions = field(default=Exclusions(), kw_only=True)
    file_limit_bytes: int = field(default=FILE_LIMIT_BYTES, kw_only=True)
    decontaminate: Sequence[str] = field(default=(), kw_only=True)
    signatures: bool = field(default=False, kw_only=True)
    scrub: bool = field(default=False, kw_only=True)
    git_history: bool = field(default=False, kw_only=True)
    functions: bool = field(default=False, kw_only=True)
    on_files: OnFiles | None = field(default=None, kw_only=True, compare=False, repr=False)

    def __post_init__(self) -> None:
        paths = (self.paths,) if isinstance(self.paths, str | os.PathLike) else self.paths
        object.__setattr__(self, "paths", tuple(os.fspath(path) for path in paths))
        object.__setattr__(self, "decontaminate", tuple(os.fspath(path) for path in self.decontaminate))
        if not self.paths:
            raise UsageError("paths is empty: give at least one folder of source code")
        if not self.run:
            object.__setattr__(self, "run", _run_name(self.paths))
        super().__post_init__()
        self.require_at_least(file_limit_bytes=1)

    def __getstate__(self) -> dict[str, Any]:
        # A callback stays in the process that plans; it cannot be sent to worker processes.
        return {**self.__dict__, "on_files": None}

    @property
    def rules(self) -> WalkRules:
        """What the walk leaves out."""
        return WalkRules(self.exclusions, self.file_limit_bytes, self.scrub)

    def check_paths(self) -> None:
        """Check that the paths and the files of evaluation tasks can be read.

        Raises:
            UsageError: a path does not exist, is not a folder or cannot be read, or is a bare repository; or as in
                `decontamination.read_evaluation_sets`.
        """
        given_folders(self.paths, bare=self.git_history)
        self._without_contaminated([], Counter(), "documents", "contaminated")

    def plan(self) -> Iterator[CodeUnit]:
        """Read all sources once, then yield their files in units of about a megabyte.

        Raises:
            UsageError: a path does not exist, is not a folder or cannot be read, or is a bare repository.
        """
        # Imported here because it loads compiled code, which a process that only describes a run does not need.
        from producers.source_code.survey import survey

        sources = [open_source(folder) for folder in given_folders(self.paths, bare=self.git_history)]
        found = survey(sources, self.rules, git_history=self.git_history, workers=self.workers, on_files=self.on_files)
        done = Done(
            *(0, len(found.files), 0, sum(file.size for file in found.files)),
            *(0, sum(len(portion.commits) for portion in found.portions)),
        )
        counts: Mapping[str, int] = found.counts
        # Here, because a worker process does not know the other files of a repository.
        wanted = _signed(found.files, self.scrub) if self.signatures else found.files
        for files in _megabytes(wanted):
            read = sum(file.size for file in files)
            done = replace(done, files=done.files + len(files), bytes=done.bytes + read)
            yield CodeUnit(files, None, counts, done)
            counts = {}
        for portion in found.portions:
            done = replace(done, commits=done.commits + len(portion.commits))
            yield CodeUnit((), portion, counts, done)

    def rows(self, unit: CodeUnit) -> pl.DataFrame:
        """Return the documents of a unit."""
        return self.make(unit).frame

    def make(self, unit: CodeUnit) -> UnitRows:
        """Return the documents of a unit, and counts.

        The counts are files that gave no document by reason, `documents`, `crlf_files` and `functions`; of commits,
        `evolutions`, changes that are left out (`change_*`, `commit_*`), and places where a secret was replaced
        (`scrubbed_*`); and rows by split (`split_*`).
        """
        counts = Counter(unit.counts)
        documents: list[dict[str, Any]] = []
        for file in unit.files:
            read = read_file(file, self.rules)
            if isinstance(read, str):
                counts[read] += 1
                continue
            counts["documents"] += 1
            counts["crlf_files"] += read.had_crlf
            counts.update({f"scrubbed_{kind}": number for kind, number in read.scrubbed.items()})
            documents.append(snapshot(file, read))
        rows = self._without_contaminated(documents, counts, "documents", "contaminated")
        if self.functions:
            completions = [completion for document in rows for completion in function_documents(document)]
            counts["functions"] += len(completions)
            rows += completions
        if unit.portion is not None:
            # Imported here because only runs with histories need it.
            from producers.source_code.history import portion_documents

            changes = portion_documents(unit.portion, self.rules, counts)
            rows += self._without_contaminated(changes, counts, "evolutions", "change_contaminated")
        frame = document_rows(rows)
        counts.update({f"split_{split}": number for split, number in frame["split"].value_counts().iter_rows()})
        return UnitRows(frame, counts)

    def _without_contaminated(
        self, documents: list[dict[str, Any]], counts: Counter[str], kept: str, left_out: str
    ) -> list[dict[str, Any]]:
        """Return the documents without text of the evaluation tasks; count the others as `left_out`, not as `kept`."""
        if not self.decontaminate:
            return documents
        from producers.source_code.decontamination import contaminated_documents, evaluation_runs

        found = contaminated_documents(documents, evaluation_runs(tuple(self.decontaminate)))
        counts[left_out] += sum(found)
        counts[kept] -= sum(found)
        return [document for document, is_found in zip(documents, found, strict=True) if not is_found]


def _signed(files: Sequence[FileToRead], scrub: bool) -> Iterator[FileToRead]:
    """Yield the files with their signatures; those of one repository after another need little memory."""
    from producers.source_code.dependencies import Dependencies

    paths: dict[Origin, dict[str, Callable[[], bytes]]] = {}
    for file in files:
        paths.setdefault(file.origin, {})[file.path] = partial(_bytes, file)
    now: tuple[Origin, Dependencies] | None = None
    for file in files:
        if now is None or now[0] != file.origin:
            now = file.origin, Dependencies(paths[file.origin])
        signatures = now[1].signatures(file.path)
        if scrub and signatures:
            from producers.source_code.secrets import scrubbed

            signatures = scrubbed(signatures)[0]
        yield replace(file, signatures=signatures)


def _bytes(file: FileToRead) -> bytes:
    return read_regular(file.origin.top / file.path, file.size) or b""


def _megabytes(files: Iterable[FileToRead]) -> Iterator[tuple[FileToRead, ...]]:
    """Yield the files in order, some of about a megabyte at a time; once, and with none, if there are no files."""
    portion: list[FileToRead] = []
    size = 0
    for file in files:
        if portion and size + file.size > _UNIT_BYTES:
            yield tuple(portion)
            portion, size = [], 0
        portion.append(file)
        size += file.size
    yield tuple(portion)


def _run_name(paths: Sequence[str]) -> str:
    """Return a name made of the name of the first folder, and the number of the others."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(os.path.realpath(paths[0])).name).strip("-") or "tree"
    return f"code-{name}+{len(paths) - 1}" if len(paths) > 1 else f"code-{name}"
