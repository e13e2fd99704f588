"""The scenario family's tensor form: its texts as bytes, `BOS` context `SEP` request `SEP` response `EOS`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from consumers.scenario.byte_tokens import MAX_TOKENS, TEXTS, token_count
from consumers.tensor_form import TensorForm
from schema.scenario import FAMILY

if TYPE_CHECKING:
    from consumers.scenario.tensors import EncodedScenarios


def _encode(rows: pl.DataFrame, topics: tuple[str, ...]) -> EncodedScenarios:
    from consumers.scenario.tensors import EncodedScenarios

    return EncodedScenarios(rows, topics)


FORM = TensorForm(
    columns=(*TEXTS, *FAMILY.cell_axes, "authenticity_score", "effective_capacity", "support_needed"),
    tokens=token_count(),
    encode=_encode,
    max_tokens=MAX_TOKENS,
    packs=True,
)
