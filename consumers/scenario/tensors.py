"""Scenario rows as tensors: one token per byte of their texts, special tokens between them, numbers and the cell.

Compiled code writes a batch's tokens straight from the window's bytes, in the batch's order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from consumers.batches import ORIGIN, Batch, Stamp, shared_fields
from consumers.packed_rows import RowLayout
from consumers.scenario.byte_tokens import BOS, EOS, FIRST_BYTE, PAD, SEP, SPECIAL_TOKENS, TEXTS, token_count
from consumers.tensor_form import Indices
from schema.buffers import strings
from schema.compiled import compiled
from schema.errors import FeedError
from schema.family import axis_codes, cell_codes
from schema.scenario import FAMILY

_AMOUNTS = ("authenticity_score", "effective_capacity", "support_needed")

Texts = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]


@dataclass(frozen=True, eq=False, kw_only=True)
class ScenarioBatch(Batch):
    """A batch of scenarios; B rows, T tokens in the longest row, S scenarios (S equals B unless the batch is packed).

    Attributes:
        tokens: (B, T) int64: BOS, the context's bytes, SEP, the request's, SEP, the response's, EOS, then PAD; a packed
            row holds several scenarios before the PAD. A byte's token is the byte + `FIRST_BYTE`.
        response_mask: (B, T) bool, true on the response's bytes and the EOS after them: the tokens that a language
            model learns to predict from the context and the request.
        authenticity_score: (S,) float32, 0 to 1.
        capacity: (S,) float32, the effective capacity, points out of 10.
        support_needed: (S,) float32, points out of 10.
        cell: (S,) int64, the index of the row's cell in `FAMILY.cells()`, whose order is row-major over the cell axes;
            -1 if a label is not one of its axis, which happens only in unvalidated data.
    """

    tokens: torch.Tensor
    response_mask: torch.Tensor
    authenticity_score: torch.Tensor
    capacity: torch.Tensor
    support_needed: torch.Tensor
    cell: torch.Tensor


class EncodedScenarios:
    """A window of scenario rows as flat arrays.

    Args:
        rows: rows with the columns of the tensor form, `example_id` and lineage.
        topics: names of the topics, for the lineage.

    Raises:
        FeedError: a text or a number is null.
    """

    def __init__(self, rows: pl.DataFrame, topics: tuple[str, ...]) -> None:
        for name in (*TEXTS, *_AMOUNTS):
            if rows[name].null_count():
                raise FeedError(f"a clean scenario row has no {name}: only the refine stage may write that topic")
        self._topics = topics
        self._texts: list[Texts] = [strings(rows[name].rechunk()) for name in TEXTS]
        self._lengths: Indices = rows.select(token_count().alias("tokens"))["tokens"].to_numpy()
        # Row-major, so that a batch's rows are picked in one call.
        self._amounts = rows.select(pl.col(_AMOUNTS).cast(pl.Float32)).to_numpy(order="c")
        self._numbers = np.empty((rows.height, 1 + len(ORIGIN)), dtype=np.int64)
        self._numbers[:, 0] = cell_codes(axis_codes(rows, map(FAMILY.axis, FAMILY.cell_axes)), FAMILY)
        for index, name in enumerate(ORIGIN, 1):
            column = rows[name].to_numpy()
            self._numbers[:, index] = column.view(np.int64) if column.dtype == np.uint64 else column

    def batch(self, rows: Indices, stamp: Stamp) -> ScenarioBatch:
        """Return the window's rows with these indices (B,) as a batch that shares no memory with the window."""
        layout = stamp.layout or RowLayout.one_each(self._lengths[rows], SPECIAL_TOKENS)
        shape = layout.shape
        tokens = np.full(shape, PAD, dtype=np.int64)
        mask, response_mask = np.zeros(shape, dtype=np.bool_), np.zeros(shape, dtype=np.bool_)
        context, request, response = self._texts
        _write_rows(*context, *request, *response, rows, layout.row, layout.start, tokens, mask, response_mask)
        # Transposed copies, so that each column is contiguous.
        amounts = torch.from_numpy(np.ascontiguousarray(np.take(self._amounts, rows, axis=0).T))
        cell, *origin = torch.from_numpy(np.ascontiguousarray(np.take(self._numbers, rows, axis=0).T))
        return ScenarioBatch(
            tokens=torch.from_numpy(tokens),
            response_mask=torch.from_numpy(response_mask),
            authenticity_score=amounts[0],
            capacity=amounts[1],
            support_needed=amounts[2],
            cell=cell,
            **shared_fields(mask, origin, self._topics, stamp),
        )


def decode_tokens(tokens: torch.Tensor) -> tuple[str, str, str]:
    """Return (context, request, response) of one row of token ids (T,)."""
    ids = tokens.numpy()
    first, second, end = np.flatnonzero((ids == SEP) | (ids == EOS)).tolist()
    context, request, response = (
        (ids[begin + 1 : stop] - FIRST_BYTE).astype(np.uint8).tobytes().decode()
        for begin, stop in ((0, first), (first, second), (second, end))
    )
    return context, request, response


@compiled
def _write_rows(
    context: npt.NDArray[np.uint8],
    context_bounds: npt.NDArray[np.int64],
    request: npt.NDArray[np.uint8],
    request_bounds: npt.NDArray[np.int64],
    response: npt.NDArray[np.uint8],
    response_bounds: npt.NDArray[np.int64],
    rows: Indices,
    row_of: Indices,
    start_of: Indices,
    tokens: npt.NDArray[np.int64],
    mask: npt.NDArray[np.bool_],
    response_mask: npt.NDArray[np.bool_],
) -> None:
    """Write the tokens and masks of `rows` (S,) over arrays (B, T) of PAD and false.

    Sequence s goes to row row_of[s], from column start_of[s] on.
    """
    for sequence in range(len(rows)):
        number, row, first = rows[sequence], row_of[sequence], start_of[sequence]
        tokens[row, first] = BOS
        column = first + 1
        for place in range(context_bounds[number], context_bounds[number + 1]):
            tokens[row, column] = FIRST_BYTE + context[place]
            column += 1
        tokens[row, column] = SEP
        column += 1
        for place in range(request_bounds[number], request_bounds[number + 1]):
            tokens[row, column] = FIRST_BYTE + request[place]
            column += 1
        tokens[row, column] = SEP
        column += 1
        begin = column
        for place in range(response_bounds[number], response_bounds[number + 1]):
            tokens[row, column] = FIRST_BYTE + response[place]
            column += 1
        tokens[row, column] = EOS
        column += 1
        mask[row, first:column] = True
        response_mask[row, begin:column] = True
