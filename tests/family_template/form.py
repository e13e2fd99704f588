"""The template family's tensor form: one token per character of the text. Part `tensor_form`; no torch here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from consumers.tensor_form import TensorForm
from tests.family_template.declaration import WIDTH

if TYPE_CHECKING:
    from tests.family_template.tensors import EncodedAdditions


def _encode(rows: pl.DataFrame, topics: tuple[str, ...]) -> EncodedAdditions:
    from tests.family_template.tensors import EncodedAdditions

    return EncodedAdditions(rows, topics)


FORM = TensorForm(
    columns=("text", "total"),
    tokens=pl.col("text").str.len_bytes().cast(pl.Int64),
    encode=_encode,
    max_tokens=WIDTH,
)
