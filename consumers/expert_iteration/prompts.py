"""Choose prompts: beginnings of functions that are in the topic, and whose own bodies compile.

A function that needs other parts of its crate compiles with no body, so it would measure nothing. Prompts of the split
train are for training. Held-out prompts are of the splits val and test, and their functions share no 13 consecutive
words with a row of the split train, so that a model cannot have learned them by heart.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from broker.clients import Connection
from consumers.code_evaluation.samples import CodeSample
from consumers.train_rows import clean_rows, train_rows
from schema.shingles import shingles
from schema.source_code import FAMILY
from schema.source_code.columns import SNAPSHOT
from schema.source_code.functions import functions_of, names_others

if TYPE_CHECKING:
    from consumers.code_evaluation.verdicts import CodeVerdict

# The usual width of decontamination (Brown et al., 2020, appendix C).
OVERLAP_WORDS = 13
_COLUMNS = ("text", "language", "kind", "repository", "path", "license", "group")
_TEXTS = ("text", "before", "after")
# Functions that are kept in memory, at most about 6 kB each.
_MOST_CANDIDATES = 50_000
# Functions that are judged before it is looked whether they are enough.
_JUDGED_AT_ONCE = 64

Fits = Callable[[str], bool]
Judge = Callable[[Iterable[CodeSample]], Iterator["CodeVerdict"]]


@dataclass(frozen=True)
class FunctionPrompt:
    """The beginning of a function in a document of the topic.

    Attributes:
        task_id: the document's `example_id` and the function's line.
        prompt: the text to complete.
        body: what people wrote after it.
        split: of the document.
        language, repository, path, license, group: of the document.
    """

    task_id: str
    prompt: str
    body: str
    split: str
    language: str
    repository: str
    path: str
    license: str | None
    group: str


@dataclass(frozen=True)
class PromptSets:
    """The prompts of a run.

    Attributes:
        training, held_out: see the module.
        found: functions of the topic by set that seem to need nothing else: {"training": n, "held_out": n}.
        overlapping: held-out functions that share 13 words with the split train.
        judged: functions that were compiled by set.
    """

    training: Sequence[FunctionPrompt]
    held_out: Sequence[FunctionPrompt]
    found: dict[str, int]
    overlapping: int
    judged: dict[str, int]


def choose_prompts(
    connection: Connection,
    language: str,
    judge: Judge,
    *,
    training: int,
    held_out: int,
    fits: Fits,
    seed: int,
) -> PromptSets:
    """Return at most `training` and `held_out` prompts, drawn at random.

    Args:
        connection: the broker.
        language: rust or python.
        judge: gives the verdict on each sample, in order.
        training, held_out: how many.
        fits: says whether a prompt leaves the model room for a completion.
        seed: of the draw.

    Raises:
        BrokerError: there is no clean topic, or the broker cannot be read.
        ReplayError: a record cannot be read.
    """
    training_set = _drawn(connection, language, fits, seed, is_training=True)
    known = {each.prompt for each in training_set}
    held_out_set = [
        each for each in _drawn(connection, language, fits, seed, is_training=False) if each.prompt not in known
    ]
    apart = without_overlap(held_out_set, _train_texts(connection))
    chosen, judged = {}, {}
    for name, prompts, count in (("training", training_set, training), ("held_out", apart, held_out)):
        chosen[name], judged[name] = _compiling(prompts, count, judge)
    found = {"training": len(training_set), "held_out": len(held_out_set)}
    return PromptSets(chosen["training"], chosen["held_out"], found, len(held_out_set) - len(apart), judged)


def without_overlap(prompts: Sequence[FunctionPrompt], texts: Iterable[pl.Series]) -> list[FunctionPrompt]:
    """Return the prompts whose function shares no 13 consecutive words with a text.

    A function of fewer words is left out if a text has exactly its words in a row; see `schema.shingles`.

    Args:
        prompts: with their bodies.
        texts: String, in any number of parts.
    """
    hashes, offsets = shingles(pl.Series([each.prompt + each.body for each in prompts], dtype=pl.String), OVERLAP_WORDS)
    wanted = np.unique(hashes)
    shared = np.zeros(len(wanted), dtype=np.bool_)
    for part in texts:
        found = np.unique(shingles(part, OVERLAP_WORDS)[0])
        shared |= np.isin(wanted, found, assume_unique=True)
    bad = np.isin(hashes, wanted[shared])
    return [
        each for each, begin, end in zip(prompts, offsets[:-1], offsets[1:], strict=True) if not bad[begin:end].any()
    ]


def _train_texts(connection: Connection) -> Iterator[pl.Series]:
    for rows in train_rows(connection, FAMILY, _TEXTS):
        yield from (rows[name] for name in _TEXTS)


def _functions(connection: Connection, language: str) -> Iterator[FunctionPrompt]:
    """Yield the functions of the topic's snapshots of a language."""
    wanted = (pl.col("language") == language) & (pl.col("kind") == SNAPSHOT)
    for rows in clean_rows(connection, FAMILY, _COLUMNS):
        for row in rows.filter(wanted).iter_rows(named=True):
            for function in functions_of(row["text"], language):
                yield FunctionPrompt(
                    task_id=f"{row['example_id']:016x}:{function.line}",
                    prompt=function.prompt,
                    body=function.body,
                    **{name: row[name] for name in ("split", "language", "repository", "path", "license", "group")},
                )


def _drawn(connection: Connection, language: str, fits: Fits, seed: int, *, is_training: bool) -> list[FunctionPrompt]:
    """Return functions in an order that depends on the seed alone, the first of those with the same prompt."""

    def place(prompt: FunctionPrompt) -> bytes:
        return hashlib.blake2b(f"{seed} {prompt.task_id}".encode(), digest_size=16).digest()

    fitting = (
        each
        for each in _functions(connection, language)
        if (each.split == "train") == is_training and not names_others(each.prompt, language) and fits(each.prompt)
    )
    drawn = heapq.nsmallest(_MOST_CANDIDATES, fitting, key=place)
    return list({each.prompt: each for each in reversed(drawn)}.values())[::-1]


def _compiling(prompts: Sequence[FunctionPrompt], count: int, judge: Judge) -> tuple[list[FunctionPrompt], int]:
    """Return the first `count` prompts whose own bodies compile, and how many were judged for that."""
    kept: list[FunctionPrompt] = []
    judged = 0
    waiting = iter(prompts)
    while len(kept) < count and (some := list(islice(waiting, _JUDGED_AT_ONCE))):
        samples = (CodeSample(each.task_id, each.language, each.prompt + each.body, each.body) for each in some)
        verdicts = judge(samples)
        judged += len(some)
        kept.extend(
            each
            for each, verdict in zip(some, verdicts, strict=True)
            if verdict.judged is not None and verdict.judged.compiled
        )
    return kept[:count], judged
