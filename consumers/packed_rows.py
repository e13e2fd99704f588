"""Packed rows: several sequences in each row of a batch, and the attention mask that keeps the sequences apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from consumers.tensor_form import Indices
from schema.compiled import compiled


@dataclass(frozen=True, eq=False)
class RowLayout:
    """Where the S sequences of a batch are written in its B rows of T tokens.

    Attributes:
        row: (S,) the row of each sequence.
        start: (S,) the column of its first token.
        length: (S,) its number of tokens.
        shape: (B, T).
    """

    row: Indices
    start: Indices
    length: npt.NDArray[np.int64]
    shape: tuple[int, int]

    @classmethod
    def one_each(cls, length: npt.NDArray[np.int64], least_tokens: int) -> RowLayout:
        """Return the layout with a row for each sequence; T is the longest length, or `least_tokens` if longer."""
        rows = len(length)
        numbers = np.arange(rows, dtype=np.int64)
        return cls(numbers, np.zeros_like(numbers), length, (rows, int(length.max(initial=least_tokens))))

    @classmethod
    def of(cls, row: Indices, length: npt.NDArray[np.int64], row_tokens: int) -> RowLayout:
        """Return the layout of sequences one after the other in their rows.

        Args:
            row: (S,) the row of each sequence, ascending from 0, without a gap.
            length: (S,) its number of tokens.
            row_tokens: the length of every row, T.
        """
        before = np.cumsum(length) - length
        first = np.searchsorted(row, row)
        rows = int(row[-1]) + 1 if len(row) else 0
        return cls(row, before - before[first], length, (rows, row_tokens))

    def fields(self) -> dict[str, torch.Tensor]:
        """Return the fields of a packed `Batch`: segment_ids, position_ids, sequence_row, sequence_start."""
        segments, positions = np.zeros(self.shape, dtype=np.int64), np.zeros(self.shape, dtype=np.int64)
        _write_segments(self.row, self.start, self.length, segments, positions)
        return {
            "segment_ids": torch.from_numpy(segments),
            "position_ids": torch.from_numpy(positions),
            "sequence_row": torch.from_numpy(self.row),
            "sequence_start": torch.from_numpy(self.start),
        }


def block_diagonal_mask(segment_ids: torch.Tensor, *, causal: bool = False) -> torch.Tensor:
    """Return (B, 1, T, T) bool, true where a token (third axis) may attend to another one (fourth axis).

    Tokens attend to tokens of their own sequence only. Padding attends to padding, so that no row of the mask is all
    false, which would make a softmax NaN.

    Args:
        segment_ids: (B, T), as in a packed `Batch`.
        causal: tokens attend to themselves and earlier tokens only.

    Example::

        logits = model(
            input_ids=batch.tokens,
            position_ids=batch.position_ids,
            attention_mask=block_diagonal_mask(batch.segment_ids, causal=True),
        ).logits
    """
    mask = segment_ids[:, None, :, None] == segment_ids[:, None, None, :]
    return mask.tril() if causal else mask


@compiled
def _write_segments(
    row: Indices,
    start: Indices,
    length: npt.NDArray[np.int64],
    segments: npt.NDArray[np.int64],
    positions: npt.NDArray[np.int64],
) -> None:
    """Write each sequence's number in its row, from 1, and its tokens' positions over arrays (B, T) of zeros."""
    segment = 0
    for sequence in range(len(row)):
        segment = 1 if sequence == 0 or row[sequence] != row[sequence - 1] else segment + 1
        for place in range(length[sequence]):
            segments[row[sequence], start[sequence] + place] = segment
            positions[row[sequence], start[sequence] + place] = place
