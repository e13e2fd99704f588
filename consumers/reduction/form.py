"""The reduction family's tensor form: one token per character, `BOS` before and `EOS` after."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from consumers.reduction.alphabet import MAX_TOKENS, SPECIAL_TOKENS
from consumers.tensor_form import TensorForm

if TYPE_CHECKING:
    from consumers.reduction.tensors import EncodedReductions


def _encode(rows: pl.DataFrame, topics: tuple[str, ...]) -> EncodedReductions:
    from consumers.reduction.tensors import EncodedReductions

    return EncodedReductions(rows, topics)


FORM = TensorForm(
    columns=("term", "span_start", "span_end", "step_k", "steps_total", "size", "depth"),
    tokens=pl.col("term").str.len_bytes().cast(pl.Int64) + SPECIAL_TOKENS,
    encode=_encode,
    max_tokens=MAX_TOKENS,
)
