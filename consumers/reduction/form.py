"""The reduction family's alphabet, and its tensor form: one token per character, `BOS` before and `EOS` after."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from consumers.tensor_form import TensorForm

if TYPE_CHECKING:
    from consumers.reduction.tensors import EncodedReductions

PAD, BOS, EOS = range(3)
ALPHABET = "\\.()0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
VOCABULARY_SIZE = 3 + len(ALPHABET)
# BOS and EOS.
SPECIAL_TOKENS = 2
# Terms of up to 2,048 characters.
MAX_TOKENS = 2048 + SPECIAL_TOKENS


def _encode(rows: pl.DataFrame, topics: tuple[str, ...]) -> EncodedReductions:
    from consumers.reduction.tensors import EncodedReductions

    return EncodedReductions(rows, topics)


FORM = TensorForm(
    columns=("term", "span_start", "span_end", "step_k", "steps_total", "size", "depth"),
    tokens=pl.col("term").str.len_bytes().cast(pl.Int64) + SPECIAL_TOKENS,
    encode=_encode,
    max_tokens=MAX_TOKENS,
)
