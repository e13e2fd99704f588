"""Batches made by hand from rows with arbitrary characters."""

from __future__ import annotations

import torch

from consumers.batches import Position
from consumers.reduction.alphabet import BOS, EOS, PAD
from consumers.reduction.tensors import ReductionBatch
from consumers.sequence.cursor import Cursor


def batch_of(
    lengths: list[int], spans: list[list[int]], normal: list[bool], *, width: int | None = None
) -> ReductionBatch:
    """A batch of rows with `lengths` tokens each, padded to `width` or to the longest."""
    rows, longest = len(lengths), max(lengths, default=2)
    column = torch.arange(width or longest)
    length = torch.tensor(lengths, dtype=torch.int64)[:, None]
    mask = column < length
    tokens = torch.full(mask.shape, 3).masked_fill(~mask, PAD)
    tokens[:, 0] = BOS
    tokens = tokens.where(column != length - 1, EOS)
    nowhere = torch.zeros(rows, dtype=torch.int32)
    return ReductionBatch(
        tokens=tokens,
        attention_mask=mask,
        span=torch.tensor(spans, dtype=torch.int64).view(rows, 2),
        is_normal_form=torch.tensor(normal, dtype=torch.bool),
        size=torch.ones(rows, dtype=torch.int32),
        depth=torch.ones(rows, dtype=torch.int32),
        example_id=torch.arange(rows),
        position=Position(("topic",), nowhere.to(torch.uint8), nowhere, nowhere.long(), nowhere),
        cursor=Cursor(),
        global_rows=rows,
        global_tokens=sum(lengths),
        too_long=0,
    )
