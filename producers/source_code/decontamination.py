"""Decontamination: find documents that share 13 consecutive words with a text of an evaluation set.

13 words are the usual width ("Language Models are Few-Shot Learners", Brown et al., 2020, appendix C). Words are those
of `schema.shingles`: runs of letters and digits, in any case, so that layout and punctuation do not matter.

Every string of every object of a JSONL file is a text, at any depth: prompts, solutions, tests, whatever their names
are. A string of fewer than 13 words is not compared, because such texts (names, ids, one-line answers) are in many
documents by chance.

The runs of the evaluation sets are kept as hashes in one table, which takes 16 to 32 bytes for each different run, in
each process that makes documents. At most `MOST_RUNS` different runs are accepted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from producers.ingest.text import read_text
from schema.compiled import compiled
from schema.errors import RecordError, UsageError
from schema.json_rows import document
from schema.shingles import shingles
from schema.splitmix import GOLDEN

WORDS = 13
_TEXTS = ("text", "before", "after")
# A table of 512 MiB, and half as much while it grows.
MOST_RUNS = 1 << 25
_LINE_LIMIT_BYTES = 64 * 1024 * 1024
# Texts of this many characters are hashed at once.
_BATCH_CHARACTERS = 4_000_000
# Marks a free slot; the hash 0 is left out.
_FREE = np.uint64(0)
_START_SLOTS = 1 << 12


class EvaluationRuns(NamedTuple):
    """The runs of 13 words of evaluation sets.

    Attributes:
        slots: (H,) uint64, an open-addressing table of hashes, H a power of two; 0 is free.
        runs: the number of different runs.
        texts: the number of texts that have runs.
        short_texts: the number of strings of fewer than 13 words, which are not compared.
    """

    slots: NDArray[np.uint64]
    runs: int
    texts: int
    short_texts: int


def read_evaluation_sets(paths: Iterable[Path]) -> EvaluationRuns:
    """Return the runs of 13 words of all strings in JSONL files (objects on lines, or one array of objects).

    Raises:
        UsageError: a file cannot be read, has a line that is not a JSON object, or has no string of 13 words; or the
            files have over `MOST_RUNS` different runs.
    """
    found = runs_of(pl.Series([], dtype=pl.String))
    for path in paths:
        before = found.texts
        for texts in _batches(path):
            found = runs_of(texts, found)
            if found.runs > MOST_RUNS:
                raise UsageError(
                    f"--decontaminate {path.name}: there are over {MOST_RUNS:,} different runs of {WORDS} words: "
                    "give fewer files"
                )
        if found.texts == before:
            raise UsageError(
                f"--decontaminate {path.name}: no string has {WORDS} words or more: give a JSONL file of tasks"
            )
    return found


def runs_of(texts: pl.Series, known: EvaluationRuns | None = None) -> EvaluationRuns:
    """Return the runs of `texts` (N,) String and those of `known`, whose table may be changed.

    >>> runs = runs_of(pl.Series(["Write a function that returns the sum of all even numbers in a list."]))
    >>> code = "# write a function that returns the sum of all even numbers in a list"
    >>> is_contaminated(pl.Series([code, "def total(): pass"]), runs).to_list()
    [True, False]
    """
    known = EvaluationRuns(np.zeros(_START_SLOTS, dtype=np.uint64), 0, 0, 0) if known is None else known
    lengths = np.diff(shingles(texts, 1)[1])
    long = texts.filter(pl.Series(lengths >= WORDS))
    hashes = np.unique(shingles(long, WORDS)[0])
    slots = known.slots
    if 2 * (known.runs + len(hashes)) > slots.size:
        slots = np.zeros(1 << (2 * (known.runs + len(hashes)) - 1).bit_length(), dtype=np.uint64)
        _insert(slots, known.slots)
    added = _insert(slots, hashes)
    return EvaluationRuns(
        slots, known.runs + added, known.texts + len(long), known.short_texts + len(texts) - len(long)
    )


@lru_cache(maxsize=1)
def evaluation_runs(paths: tuple[str, ...]) -> EvaluationRuns:
    """Return `read_evaluation_sets` of these paths; a process reads the files once."""
    return read_evaluation_sets(map(Path, paths))


def contaminated_documents(documents: Sequence[Mapping[str, Any]], evaluation: EvaluationRuns) -> list[bool]:
    """Return for each document whether one of its texts shares a run of 13 words with the evaluation sets.

    The texts of a document are `text`, and of an evolution also `before` and `after`, because its `text` is a diff.
    """
    found = np.zeros(len(documents), dtype=np.bool_)
    for name in _TEXTS:
        texts = pl.Series([document.get(name) for document in documents], dtype=pl.String)
        found |= is_contaminated(texts, evaluation).to_numpy()
    return found.tolist()


def is_contaminated(texts: pl.Series, evaluation: EvaluationRuns) -> pl.Series:
    """Return whether each text (N,) shares a run of 13 words with the evaluation sets (Boolean; false for null)."""
    return pl.Series(texts.name, _have_any(*shingles(texts, WORDS), evaluation.slots), dtype=pl.Boolean)


def _batches(path: Path) -> Iterator[pl.Series]:
    """Yield the strings of a file, some at a time."""
    waiting: list[str] = []
    characters = 0
    try:
        with path.open("rb") as stream:
            for rows in read_text(stream, _LINE_LIMIT_BYTES):
                for number, line in rows:
                    for text in _strings(_object(path, number, line)):
                        waiting.append(text)
                        characters += len(text)
                        if characters >= _BATCH_CHARACTERS:
                            yield pl.Series(waiting, dtype=pl.String)
                            waiting, characters = [], 0
    except OSError as error:
        raise UsageError(f"--decontaminate {path.name} cannot be read ({error.strerror}): give a JSONL file") from None
    yield pl.Series(waiting, dtype=pl.String)


def _object(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        return document(line)
    except RecordError as error:
        raise UsageError(
            f"--decontaminate {path.name}: line {number} is {error}: correct or remove this line"
        ) from None


def _strings(value: Any) -> Iterator[str]:
    """Yield the strings in a JSON value, except names of members; a lone surrogate becomes "?"."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            yield item.encode("utf-8", "replace").decode()
        elif isinstance(item, dict):
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)


@compiled
def _slot_of(slots, value):  # type: ignore[no-untyped-def] # pragma: no cover
    """The slot that holds `value`, or the free one where it belongs (Fibonacci hashing, linear probing)."""
    mask = np.uint64(slots.size - 1)
    slot = (value * GOLDEN) >> np.uint64(20) & mask
    while slots[slot] != _FREE and slots[slot] != value:
        slot = (slot + np.uint64(1)) & mask
    return slot


@compiled
def _insert(slots, values):  # type: ignore[no-untyped-def] # pragma: no cover
    """Put hashes into the table; return how many were not in it."""
    added = 0
    for value in values:
        if value != _FREE:
            slot = _slot_of(slots, value)
            added += slots[slot] == _FREE
            slots[slot] = value
    return added


@compiled
def _have_any(hashes, offsets, slots):  # type: ignore[no-untyped-def] # pragma: no cover
    rows = offsets.size - 1
    found = np.zeros(rows, dtype=np.bool_)
    for row in range(rows):
        for place in range(offsets[row], offsets[row + 1]):
            value = hashes[place]
            if value != _FREE and slots[_slot_of(slots, value)] == value:
                found[row] = True
                break
    return found
