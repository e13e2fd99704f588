"""Code samples of the clean topic: its documents of one language."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from broker.clients import Connection
from consumers.code_evaluation.samples import CodeSample
from consumers.train_rows import clean_rows
from schema.source_code import FAMILY
from schema.source_code.columns import EVOLUTION


def clean_samples(connection: Connection, language: str, split: str | None = None) -> Iterator[CodeSample]:
    """Yield the documents of a language that are not retracted, as samples named by their `example_id`.

    Changes of a git history are left out, because their text is no program.

    Args:
        split: only documents of this split.

    Raises:
        BrokerError: there is no clean topic, or the broker cannot be read.
        ReplayError: a record cannot be read.
    """
    is_chosen = (pl.col("language") == language) & (pl.col("kind") != EVOLUTION)
    if split is not None:
        is_chosen &= pl.col("split") == split
    for rows in clean_rows(connection, FAMILY, {"text", "language", "kind"}):
        for number, text in rows.filter(is_chosen).select("example_id", "text").iter_rows():
            yield CodeSample(f"{number:016x}", language, text, text)
