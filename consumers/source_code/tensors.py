"""Windows of code as tensors: tokens, mask, labels if tokens are masked, and where each window is in its document."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from consumers.batches import ORIGIN, Batch, Stamp, shared_fields
from consumers.packed_rows import RowLayout
from consumers.sequence.lineage import TOKENS
from consumers.source_code.document_tokens import PLACES
from consumers.source_code.masking import NO_LABEL
from consumers.tensor_form import PART, Indices
from schema.buffers import lists
from schema.compiled import compiled

Items = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False, kw_only=True)
class CodeBatch(Batch):
    """A batch of windows; B rows, T tokens in the longest row, S windows (S equals B unless the batch is packed).

    Attributes:
        tokens: (B, T) int64, then padding; a packed row holds several windows before it.
        labels: (B, T) int64: the masked tokens, and -100 elsewhere; None without masking.
        part: (S,) int64, the number of the window in its document, from 0.
        char_start, char_end: (S,) int64, the window's characters of the text, half-open.
        line_start, line_end: (S,) int64, the lines of its first and its last character, from 1.
    """

    tokens: torch.Tensor
    labels: torch.Tensor | None
    part: torch.Tensor
    char_start: torch.Tensor
    char_end: torch.Tensor
    line_start: torch.Tensor
    line_end: torch.Tensor


class EncodedWindows:
    """The windows of code that are in memory, as flat arrays.

    Args:
        rows: windows with the columns of the tensor form, `example_id` and lineage.
        topics: names of the topics, for the lineage.
        padding: the padding token.
    """

    def __init__(self, rows: pl.DataFrame, topics: tuple[str, ...], padding: int) -> None:
        self._topics, self._padding = topics, padding
        self._lengths: Indices = rows[TOKENS].to_numpy()
        self._inputs = _flat(rows["input_ids"])
        self._labels = _flat(rows["labels"]) if "labels" in rows.columns else None
        names = (PART, *PLACES, *ORIGIN)
        # Row-major, so that a batch's rows are picked in one call.
        self._numbers = np.empty((rows.height, len(names)), dtype=np.int64)
        for index, name in enumerate(names):
            column = rows[name].to_numpy()
            self._numbers[:, index] = column.view(np.int64) if column.dtype == np.uint64 else column

    def batch(self, rows: Indices, stamp: Stamp) -> CodeBatch:
        """Return the windows with these indices (S,) as a batch that shares no memory with this object."""
        layout = stamp.layout or RowLayout.one_each(self._lengths[rows], 0)
        mask = np.zeros(layout.shape, dtype=np.bool_)
        _mark_rows(layout.row, layout.start, layout.length, mask)
        # Transposed copies, so that each column is contiguous.
        numbers = torch.from_numpy(np.ascontiguousarray(np.take(self._numbers, rows, axis=0).T))
        part, char_start, char_end, line_start, line_end, *origin = numbers
        return CodeBatch(
            tokens=_padded(*self._inputs, rows, layout, self._padding),
            labels=None if self._labels is None else _padded(*self._labels, rows, layout, NO_LABEL),
            part=part,
            char_start=char_start,
            char_end=char_end,
            line_start=line_start,
            line_end=line_end,
            **shared_fields(mask, origin, self._topics, stamp),
        )


def _flat(values: pl.Series) -> tuple[Indices, Items]:
    """Return lists as (bounds, items)."""
    bounds, items = lists(values.rechunk())
    return bounds, items.to_numpy(zero_copy_only=True)


def _padded(bounds: Indices, items: Items, rows: Indices, layout: RowLayout, padding: int) -> torch.Tensor:
    filled = np.full(layout.shape, padding, dtype=np.int64)
    _write_rows(bounds, items, rows, layout.row, layout.start, filled)
    return torch.from_numpy(filled)


@compiled
def _write_rows(
    bounds: Indices, items: Items, rows: Indices, row_of: Indices, start_of: Indices, filled: npt.NDArray[np.int64]
) -> None:
    """Write the lists with the numbers `rows` (S,) over an array (B, T) of padding.

    List s goes to row row_of[s], from column start_of[s] on.
    """
    for sequence in range(len(rows)):
        begin = bounds[rows[sequence]]
        for place in range(bounds[rows[sequence] + 1] - begin):
            filled[row_of[sequence], start_of[sequence] + place] = items[begin + place]


@compiled
def _mark_rows(row_of: Indices, start_of: Indices, lengths: Indices, mask: npt.NDArray[np.bool_]) -> None:
    """Write true over false where the sequences are."""
    for sequence in range(len(row_of)):
        first = start_of[sequence]
        mask[row_of[sequence], first : first + lengths[sequence]] = True
