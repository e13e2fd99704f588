"""The scenario family's tensor form: its texts as bytes, `BOS` context `SEP` request `SEP` response `EOS`.

A token per byte of UTF-8 needs no vocabulary file and covers every language.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from consumers.tensor_form import TensorForm
from schema.scenario import FAMILY

if TYPE_CHECKING:
    from consumers.scenario.tensors import EncodedScenarios

PAD, BOS, SEP, EOS = range(4)
# A byte's token is the byte plus this.
FIRST_BYTE = 4
VOCABULARY_SIZE = FIRST_BYTE + 256
TEXTS = ("context", "request", "response")
# BOS, EOS, and a SEP between texts.
SPECIAL_TOKENS = 2 + len(TEXTS) - 1
# About 700 words, several times the length of a scenario.
MAX_TOKENS = 4096


def _encode(rows: pl.DataFrame, topics: tuple[str, ...]) -> EncodedScenarios:
    from consumers.scenario.tensors import EncodedScenarios

    return EncodedScenarios(rows, topics)


FORM = TensorForm(
    columns=(*TEXTS, *FAMILY.cell_axes, "authenticity_score", "effective_capacity", "support_needed"),
    tokens=pl.sum_horizontal(pl.col(name).str.len_bytes().cast(pl.Int64) for name in TEXTS) + SPECIAL_TOKENS,
    encode=_encode,
    max_tokens=MAX_TOKENS,
)
