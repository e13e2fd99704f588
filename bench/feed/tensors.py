"""The tensors of every contender, the encoders of the peers, and sums that compare tensors with stored rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from torch.nn.utils.rnn import pad_sequence

from consumers.reduction.alphabet import ALPHABET, BOS, EOS, PAD

# The tensors are made from these columns.
COLUMNS = ("term", "span_start", "span_end", "size", "depth", "example_id")

_TOKEN_OF_BYTE = np.zeros(256, dtype=np.int64)
_TOKEN_OF_BYTE[np.frombuffer(ALPHABET.encode(), dtype=np.uint8)] = np.arange(3, 3 + len(ALPHABET))


class Tensors(NamedTuple):
    """One batch of B rows, padded to T tokens.

    Attributes:
        tokens: (B, T) int64.
        mask: (B, T) bool, true on real tokens.
        span: (B, 2) int64, token positions of the redex; (0, 0) in normal forms.
        is_normal_form: (B,) bool.
        size: (B,) int64.
        depth: (B,) int64.
        example_id: (B,) int64, the bits of the uint64 id.
    """

    tokens: torch.Tensor
    mask: torch.Tensor
    span: torch.Tensor
    is_normal_form: torch.Tensor
    size: torch.Tensor
    depth: torch.Tensor
    example_id: torch.Tensor


class TensorSums(NamedTuple):
    """Sums over rows that depend neither on the order of the rows nor on the width of a batch.

    Attributes:
        rows: number of rows.
        tokens: number of real tokens.
        placed_tokens: sum of token times column (from 1), which changes if a token is in the wrong column.
        spans: sum of start plus twice the end, in token positions; normal forms add nothing.
        normal_forms: number of normal forms.
        shapes: sum of size plus 1,000 times depth.
        ids: sum of ids modulo 2^64, as int64.
    """

    rows: int
    tokens: int
    placed_tokens: int
    spans: int
    normal_forms: int
    shapes: int
    ids: int


def pad_terms(terms: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (tokens (B, T) int64, mask (B, T) bool): BOS, a token per character, EOS, padding.

    It needs one table look-up and one masked assignment for the batch. A look-up per term with `pad_sequence` takes
    twice as long.
    """
    lengths = np.array([len(term) for term in terms])
    column = np.arange(lengths.max() + 2)
    inside = column <= lengths[:, None]
    inside[:, 0] = False
    tokens = np.zeros((len(terms), len(column)), dtype=np.int64)
    tokens[inside] = _TOKEN_OF_BYTE[np.frombuffer("".join(terms).encode(), dtype=np.uint8)]
    tokens[:, 0] = BOS
    tokens[np.arange(len(terms)), lengths + 1] = EOS
    return torch.from_numpy(tokens), torch.from_numpy(column < lengths[:, None] + 2)


def batch_of(terms: Sequence[str], *numbers: Sequence[int]) -> Tensors:
    """Return a batch from Python values; `numbers` are the other `COLUMNS`, with unsigned ids."""
    return _tensors(*pad_terms(terms), *numbers)


def row_of(term: str, *numbers: int) -> tuple[torch.Tensor, tuple[int, ...]]:
    """Return (tokens (T,) int64, `numbers` unchanged) of one row."""
    tokens = np.empty(len(term) + 2, dtype=np.int64)
    tokens[0], tokens[-1] = BOS, EOS
    tokens[1:-1] = _TOKEN_OF_BYTE[np.frombuffer(term.encode(), dtype=np.uint8)]
    return torch.from_numpy(tokens), numbers


def stacked(rows: Sequence[tuple[torch.Tensor, tuple[int, ...]]]) -> Tensors:
    """Return the rows of `row_of` as a padded batch; no token of a term equals the padding."""
    tokens, numbers = zip(*rows, strict=True)
    padded = pad_sequence(list(tokens), batch_first=True, padding_value=PAD)
    return _tensors(padded, padded != PAD, *zip(*numbers, strict=True))


def _tensors(tokens: torch.Tensor, mask: torch.Tensor, *numbers: Sequence[int]) -> Tensors:
    start, end, size, depth, ids = numbers
    # Some libraries give numbers of 32 bits.
    span, sizes = (torch.tensor(pair, dtype=torch.int64) for pair in ([start, end], [size, depth]))
    span = span.T
    is_normal_form = ~span.any(dim=1)
    span = torch.where(is_normal_form[:, None], 0, span + 1)
    signed = torch.from_numpy(np.array(ids, dtype=np.uint64).view(np.int64))
    return Tensors(tokens, mask, span, is_normal_form, sizes[0], sizes[1], signed)


def tally_of_batches(batches: Iterable[Tensors]) -> tuple[TensorSums, float]:
    """Return the sums over the batches, and the share of their tokens that is padding.

    Raises:
        TypeError: a tensor has the wrong dtype.
    """
    total = np.zeros(len(TensorSums._fields), dtype=np.int64)
    places = 0
    for batch in batches:
        for name, tensor in zip(Tensors._fields, batch, strict=True):
            wanted = torch.bool if name in ("mask", "is_normal_form") else torch.int64
            if tensor.dtype != wanted:
                raise TypeError(f"{name} has dtype {tensor.dtype}, not {wanted}")
        column = torch.arange(1, batch.tokens.shape[1] + 1)
        sums = (
            batch.mask.sum(),
            (batch.tokens * column).sum(),
            (batch.span * torch.tensor([1, 2])).sum(),
            batch.is_normal_form.sum(),
            (batch.size + 1000 * batch.depth).sum(),
            batch.example_id.sum(),
        )
        total += np.array([len(batch.tokens), *(int(each) for each in sums)])
        places += batch.tokens.numel()
    return TensorSums(*total.tolist()), 1 - int(total[1]) / places


def tally_of_rows(rows: pl.DataFrame) -> TensorSums:
    """Return the sums that the tensors of `rows`, a frame with `COLUMNS`, must have."""
    lengths = rows["term"].str.len_bytes().to_numpy().astype(np.int64)
    flat = _TOKEN_OF_BYTE[np.frombuffer("".join(rows["term"]).encode(), dtype=np.uint8)]
    starts = np.cumsum(lengths) - lengths
    # The first character is in column 2, after BOS in column 1; EOS comes after the last.
    column = np.arange(len(flat)) - np.repeat(starts, lengths) + 2
    placed = int((flat * column).sum()) + BOS * rows.height + int((EOS * (lengths + 2)).sum())
    start, end, size, depth = (
        rows[name].to_numpy().astype(np.int64) for name in ("span_start", "span_end", "size", "depth")
    )
    reducible = (start != 0) | (end != 0)
    return TensorSums(
        rows=rows.height,
        tokens=int(lengths.sum()) + 2 * rows.height,
        placed_tokens=placed,
        spans=int(((start + 1) + 2 * (end + 1))[reducible].sum()),
        normal_forms=int((~reducible).sum()),
        shapes=int((size + 1000 * depth).sum()),
        ids=int(rows["example_id"].to_numpy().view(np.int64).sum()),
    )
