"""Augmentation of source code: whole Python and Rust files with other names, comments or whitespace.

Each snapshot gets up to four copies for each round of four:

1. `renamed`: local variables and parameters have other names (`python_names`, `rust_names`, `new_names`);
2. `comments`: comments are removed, or added above functions (`comments`);
3. `reformatted`: other indentation and spaces (`whitespace`);
4. `renamed` again, with other names.

A row's id decides with which of the four its copy 0 begins, so a rate below 4 gives all kinds alike. Names, style
and the direction of `comments` are drawn from (`example_id`, `copy`). The result does not depend on the machine. The
only exception is a Python file that needs a newer version of Python: it is `not_parsed` by an older one.

A copy is left out, and counted by reason in the log:

- `not_source_code`: the row is an evolution, an augmentation, or in another language than Python and Rust;
- `too_large`: the text has more than `LARGEST_BYTES`;
- `not_parsed`: the original has a syntax error;
- `unchanged`: the augmentation changes nothing;
- `repeated`: an earlier copy of the same row has the same text;
- `check_failed`: the result does not parse, or a Python file has another syntax tree, renamed variables aside.
"""

from __future__ import annotations

import gc
import logging
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import polars as pl

from schema.source_code import FAMILY
from schema.source_code.columns import SNAPSHOT
from schema.source_code.languages import FIRST_CLASS
from schema.source_code.scores import scored
from schema.splitmix import mix, nth
from streams.augmentation.source_code.documents import Document, LeftOut

# A file of this size takes about a second for four copies; hand-written files are smaller.
LARGEST_BYTES = 1_000_000
ROUND = ("renamed", "comments", "reformatted", "renamed")

_log = logging.getLogger(__name__)


def augment(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the augmented rows of `augmented_documents`, and log how many were left out, by reason."""
    made, left_out = augmented_documents(rows)
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(left_out.items()))
    _log.info("augmented code: %d of %d copies made; left out: %s", made.height, rows.height, reasons or "none")
    return made


def augmented_documents(rows: pl.DataFrame) -> tuple[pl.DataFrame, Counter[str]]:
    """Return (an augmented row for each of `rows` that can be augmented, in order; left out copies by reason).

    Args:
        rows: valid rows of the family's wire columns, with their `record` (UInt32) and `copy` (UInt32, the number of
            this copy of its row, from 0). Copies of one row follow each other. Each result depends only on its row and
            (`example_id`, `copy`).

    Returns:
        The wire columns and `record`, with new computed columns; `augmented_from` is the origin's id, `example_id` and
        `split` are null.
    """
    left_out: Counter[str] = Counter()
    texts, kinds = _texts(rows, left_out)
    made = rows.with_columns(
        text=pl.Series(texts, dtype=pl.String),
        kind=pl.Series(kinds, dtype=pl.String),
        augmented_from=pl.col("example_id"),
        example_id=pl.lit(None, dtype=pl.UInt64),
        split=pl.lit(None, dtype=pl.String),
    ).drop_nulls("text")
    different = made.unique(["augmented_from", "text"], keep="first", maintain_order=True)
    parsed = scored(different).filter("parses")
    left_out += Counter(repeated=made.height - different.height, check_failed=different.height - parsed.height)
    return parsed.select(*FAMILY.wire, "record"), +left_out


def _texts(rows: pl.DataFrame, left_out: Counter[str]) -> tuple[list[str | None], list[str]]:
    """Return (the text of each copy, None for one that is left out; the kind of each copy)."""
    ids = rows["example_id"].to_numpy().astype(np.uint64)
    copies = rows["copy"].to_numpy().astype(np.uint64)
    kinds = [ROUND[place] for place in ((mix(ids) + copies) % np.uint64(len(ROUND))).tolist()]
    seeds = nth(ids, copies + np.uint64(1)).tolist()
    eligible = rows.select(
        ok=(pl.col("kind") == SNAPSHOT)
        & pl.col("augmented_from").is_null()
        & pl.col("language").is_in(FIRST_CLASS)
        & pl.col("text").is_not_null()
    )["ok"].to_list()
    texts: list[str | None] = []
    last: tuple[str, str] | None = None
    document: Document | LeftOut = LeftOut("not_parsed")
    with _parsing():
        columns = rows["text"], rows["language"], rows["parses"]
        for may, text, language, parses, kind, seed in zip(eligible, *columns, kinds, seeds, strict=True):
            if not may:
                left_out["not_source_code"] += 1
                texts.append(None)
                continue
            if last != (text, language):
                # Only a text that parsed in the process for parsing is parsed in this one: others may crash it.
                last, document = (text, language), _document(text, language) if parses else LeftOut("not_parsed")
            try:
                if isinstance(document, LeftOut):
                    raise document
                texts.append(document.augmented(kind, seed))
            except LeftOut as reason:
                left_out[str(reason)] += 1
                texts.append(None)
    return texts, kinds


def _document(text: str, language: str) -> Document | LeftOut:
    if len(text) > LARGEST_BYTES or len(text.encode()) > LARGEST_BYTES:
        return LeftOut("too_large")
    try:
        return Document(text, language)
    except LeftOut as reason:
        return reason


@contextmanager
def _parsing() -> Iterator[None]:
    """Parse without warnings about valid code, e.g. an invalid escape in a string, and without garbage collection.

    Each syntax tree is freed when it is no longer used, and collections during its construction take half of the time.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        if collects:
            gc.enable()
