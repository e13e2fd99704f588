"""Additions as tensors. Every text has the same width, so no row is padded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
import torch

from consumers.batches import ORIGIN, Batch, Stamp, shared_fields
from consumers.tensor_form import Indices
from schema.buffers import strings
from tests.family_template.declaration import WIDTH


@dataclass(frozen=True, eq=False, kw_only=True)
class AdditionBatch(Batch):
    """A batch of additions: `tokens` (B, 7) int64, the bytes of the text; `total` (B,) int64."""

    tokens: torch.Tensor
    total: torch.Tensor


class EncodedAdditions:
    """A window of additions as flat arrays."""

    def __init__(self, rows: pl.DataFrame, topics: tuple[str, ...]) -> None:
        self._topics = topics
        self._tokens = strings(rows["text"].rechunk())[0][: rows.height * WIDTH].reshape(rows.height, WIDTH)
        ids = rows["example_id"].to_numpy().view(np.int64)
        lineage = (rows[name].to_numpy().astype(np.int64) for name in ORIGIN[1:])
        self._numbers = np.stack([rows["total"].to_numpy().astype(np.int64), ids, *lineage])

    def batch(self, rows: Indices, stamp: Stamp) -> AdditionBatch:
        """Return the window's rows with these indices (B,) as a batch."""
        tokens = torch.from_numpy(self._tokens[rows].astype(np.int64))
        total, *origin = torch.from_numpy(self._numbers[:, rows])
        return AdditionBatch(
            tokens=tokens,
            total=total,
            **shared_fields(np.ones(tokens.shape, dtype=np.bool_), origin, self._topics, stamp),
        )
