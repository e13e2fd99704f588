"""Reduction rows as tensors: one token per character, `BOS` before and `EOS` after.

A token's index is therefore its character's offset plus one, at both ends of a half-open span. Encoding works on the
terms' flat bytes: one table look-up per window, and one scatter into the padded matrix per batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from consumers.batches import Batch, Position, TensorForm
from schema.errors import FeedError

PAD, BOS, EOS = range(3)
ALPHABET = "\\.()0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
VOCABULARY_SIZE = 3 + len(ALPHABET)
# BOS and EOS
SPECIAL_TOKENS = 2
# Terms of up to 2,048 characters.
MAX_TOKENS = 2048 + SPECIAL_TOKENS

_UNKNOWN = 255
_TOKEN_OF_BYTE = np.full(256, _UNKNOWN, dtype=np.uint8)
_TOKEN_OF_BYTE[np.frombuffer(ALPHABET.encode(), dtype=np.uint8)] = np.arange(3, VOCABULARY_SIZE, dtype=np.uint8)


@dataclass(frozen=True, eq=False, kw_only=True)
class ReductionBatch(Batch):
    """A batch of terms with the redex that normal order takes next; B rows, T tokens of the longest of them.

    Attributes:
        tokens: (B, T) int64: BOS, the characters, EOS, then PAD.
        span: (B, 2) int64, the redex as half-open token positions: characters [s, e) are tokens [s + 1, e + 1);
            (0, 0) in normal forms.
        is_normal_form: (B,) bool, true where there is no redex.
    """

    tokens: torch.Tensor
    span: torch.Tensor
    is_normal_form: torch.Tensor


def flat_tokens(terms: pl.Series) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return the terms' tokens without special ones, end to end (N,) uint8, and where each term starts (R + 1,) int64.

    Raises:
        FeedError: a term is null or holds a character outside the reduction alphabet.
    """
    if terms.null_count():
        raise FeedError("a clean reduction row has no term: only the refine stage may write that topic")
    array = terms.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
    _, offset_buffer, data_buffer = array.buffers()
    offsets = np.frombuffer(offset_buffer, dtype=np.int64)[array.offset : array.offset + len(array) + 1]
    data = np.frombuffer(data_buffer or b"", dtype=np.uint8)[offsets[0] : offsets[-1]]
    flat = _TOKEN_OF_BYTE[data]
    if (flat == _UNKNOWN).any():
        raise FeedError("a clean reduction term holds a foreign character: only the refine stage may write that topic")
    return flat, offsets - offsets[0]


def pad_tokens(
    flat: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Return (tokens (B, T) int64, mask (B, T) bool) of B terms, T being the longest term's length plus two.

    `flat[offsets[0]:offsets[B]]` are their characters' tokens; rows read BOS, characters, EOS, PAD.
    """
    lengths = np.diff(offsets)
    rows, width = len(lengths), int(lengths.max(initial=0)) + SPECIAL_TOKENS
    # int32 halves the traffic of the comparisons below, which are most of the cost.
    column = np.arange(width, dtype=np.int32)
    last = lengths.astype(np.int32)[:, None]
    inside = column <= last
    inside[:, 0] = False
    padded = np.zeros((rows, width), dtype=np.uint8)
    # Row by row, true places come in the order of the flat tokens.
    padded[inside] = flat[offsets[0] : offsets[-1]]
    padded[:, 0] = BOS
    padded[np.arange(rows), lengths + 1] = EOS
    return padded.astype(np.int64), column < last + SPECIAL_TOKENS


class EncodedReductions:
    """A window of reduction rows as flat arrays, in the order in which their batches take them.

    Args:
        rows: with the columns of `FORM`, `example_id` and lineage.
        topic: for the lineage.
    """

    def __init__(self, rows: pl.DataFrame, topic: str) -> None:
        self._flat, self._offsets = flat_tokens(rows["term"])
        span = rows.select(pl.col("span_start", "span_end").cast(pl.Int64)).to_numpy()
        normal = (span == 0).all(axis=1)
        self._span = torch.from_numpy(np.where(normal[:, None], 0, span + 1))
        self._normal = torch.from_numpy(normal)
        self._ids = torch.from_numpy(rows["example_id"].to_numpy().view(np.int64).copy())
        self._position = Position.of(rows, topic)

    def batch(self, start: int, stop: int, too_long: int) -> ReductionBatch:
        """Return rows [start, stop) as a batch that shares no memory with the window."""
        tokens, mask = pad_tokens(self._flat, self._offsets[start : stop + 1])
        return ReductionBatch(
            tokens=torch.from_numpy(tokens),
            attention_mask=torch.from_numpy(mask),
            span=self._span[start:stop].clone(),
            is_normal_form=self._normal[start:stop].clone(),
            example_id=self._ids[start:stop].clone(),
            position=self._position.rows(start, stop),
            too_long=too_long,
        )


def decode_tokens(tokens: torch.Tensor) -> str:
    """Return the term of one row of token ids (T,), special tokens left out."""
    return "".join(ALPHABET[token - 3] for token in tokens.tolist() if token >= 3)


FORM = TensorForm(
    columns=("term", "span_start", "span_end"),
    tokens=pl.col("term").str.len_bytes().cast(pl.Int64) + SPECIAL_TOKENS,
    encode=EncodedReductions,
    max_tokens=MAX_TOKENS,
)
