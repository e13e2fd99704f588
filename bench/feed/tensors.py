"""What every contender gives, the encoder that the peers share, and the sums that compare tensors with rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from torch.nn.utils.rnn import pad_sequence

from consumers.reduction.form import ALPHABET, BOS, EOS, PAD

_TOKEN_OF_BYTE = np.zeros(256, dtype=np.int64)
_TOKEN_OF_BYTE[np.frombuffer(ALPHABET.encode(), dtype=np.uint8)] = np.arange(3, 3 + len(ALPHABET))


class Tensors(NamedTuple):
    """One batch of B rows: `tokens` (B, T) int64, `mask` (B, T) bool, `span` (B, 2) and `example_id` (B,) int64."""

    tokens: torch.Tensor
    mask: torch.Tensor
    span: torch.Tensor
    example_id: torch.Tensor


class Tally(NamedTuple):
    """Sums over rows that do not depend on their order, nor on how wide a batch is.

    Attributes:
        rows: how many.
        tokens: real ones.
        placed_tokens: of token times column (from 1), so that a token in the wrong column shows.
        spans: of start plus twice the end, in token positions; normal forms add nothing.
        ids: modulo 2^64, as int64.
    """

    rows: int
    tokens: int
    placed_tokens: int
    spans: int
    ids: int


def pad_terms(terms: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (tokens (B, T) int64, mask (B, T) bool): BOS, a token per character, EOS, padding.

    One table look-up for the batch and one masked assignment: of the ways a user of these libraries would write it the
    fastest that we found (a look-up per term and `pad_sequence` takes twice as long).
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


def token_spans(starts: Sequence[int], ends: Sequence[int]) -> torch.Tensor:
    """Return character spans as token positions (B, 2) int64; (0, 0), which marks normal forms, stays."""
    span = torch.tensor([starts, ends]).T
    return torch.where(span.any(dim=1, keepdim=True), span + 1, 0)


def batch_of(terms: Sequence[str], starts: Sequence[int], ends: Sequence[int], ids: Sequence[int]) -> Tensors:
    """Return a peer's batch of rows that it holds as Python values; ids are unsigned."""
    return Tensors(*pad_terms(terms), token_spans(starts, ends), _signed(ids))


def row_of(term: str, start: int, end: int, example_id: int) -> tuple[torch.Tensor, int, int, int]:
    """Return a row with its tokens made, (T,) int64, and the rest as it is."""
    tokens = np.empty(len(term) + 2, dtype=np.int64)
    tokens[0], tokens[-1] = BOS, EOS
    tokens[1:-1] = _TOKEN_OF_BYTE[np.frombuffer(term.encode(), dtype=np.uint8)]
    return torch.from_numpy(tokens), start, end, example_id


def stacked(rows: Sequence[tuple[torch.Tensor, int, int, int]]) -> Tensors:
    """Return the rows of `row_of` as a batch, padded; no token of a term is padding's."""
    tokens, starts, ends, ids = zip(*rows, strict=True)
    padded = pad_sequence(list(tokens), batch_first=True, padding_value=PAD)
    return Tensors(padded, padded != PAD, token_spans(starts, ends), _signed(ids))


def _signed(ids: Sequence[int]) -> torch.Tensor:
    return torch.from_numpy(np.array(ids, dtype=np.uint64).view(np.int64))


def tally_of_batches(batches: Iterable[Tensors]) -> tuple[Tally, float]:
    """Return what the batches add up to, and the share of their tokens that is padding.

    Raises:
        TypeError: a batch's tokens are not int64.
    """
    total = np.zeros(5, dtype=np.int64)
    places = 0
    for tokens, mask, span, ids in batches:
        if tokens.dtype != torch.int64:
            raise TypeError(f"tokens are {tokens.dtype}, not int64")
        column = torch.arange(1, tokens.shape[1] + 1)
        placed = (tokens * column).sum()
        spans = (span * torch.tensor([1, 2])).sum()
        total += np.array([len(tokens), mask.sum().item(), placed.item(), spans.item(), ids.sum().item()])
        places += tokens.numel()
    return Tally(*total.tolist()), 1 - int(total[1]) / places


def tally_of_rows(rows: pl.DataFrame) -> Tally:
    """Return what the tensors of `rows` (columns term, span_start, span_end, example_id) have to add up to."""
    lengths = rows["term"].str.len_bytes().to_numpy().astype(np.int64)
    flat = _TOKEN_OF_BYTE[np.frombuffer("".join(rows["term"]).encode(), dtype=np.uint8)]
    starts = np.cumsum(lengths) - lengths
    # The first character stands in column 2, after BOS in column 1; EOS stands after the last.
    column = np.arange(len(flat)) - np.repeat(starts, lengths) + 2
    placed = int((flat * column).sum()) + BOS * rows.height + int((EOS * (lengths + 2)).sum())
    start, end = (rows[name].to_numpy().astype(np.int64) for name in ("span_start", "span_end"))
    reducible = (start != 0) | (end != 0)
    spans = int(((start + 1) + 2 * (end + 1))[reducible].sum())
    ids = int(rows["example_id"].to_numpy().view(np.int64).sum())
    return Tally(rows.height, int(lengths.sum()) + 2 * rows.height, placed, spans, ids)
