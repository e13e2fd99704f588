"""Reduction rows as tensors: one token per character, `BOS` before and `EOS` after.

A token's index is therefore its character's offset plus one, at both ends of a half-open span. Encoding works on the
window's flat bytes: compiled code writes a batch's tokens and mask straight from them, in the batch's order.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from consumers.batches import Batch, Position, Stamp
from consumers.reduction.form import ALPHABET, BOS, EOS, PAD, SPECIAL_TOKENS, VOCABULARY_SIZE
from consumers.sequence.lineage import OFFSET, PARTITION, SOURCE
from consumers.tensor_form import Indices
from schema.compiled import compiled
from schema.errors import FeedError

_log = logging.getLogger("feedmill.feed")

# What a loss leaves out: the span of a row that has none to point at and is no normal form either.
NO_SPAN = -100

# Traces that were warned about in this process: each is told once, in whatever window or pass its rows come.
_warned: set[str | None] = set()
_MOST_WARNINGS = 10_000

_UNKNOWN = 255
_TOKEN_OF_BYTE = np.full(256, _UNKNOWN, dtype=np.uint8)
_TOKEN_OF_BYTE[np.frombuffer(ALPHABET.encode(), dtype=np.uint8)] = np.arange(3, VOCABULARY_SIZE, dtype=np.uint8)


@dataclass(frozen=True, eq=False, kw_only=True)
class ReductionBatch(Batch):
    """A batch of terms with the redex that normal order takes next; B rows, T tokens of the longest of them.

    Attributes:
        tokens: (B, T) int64: BOS, the characters, EOS, then PAD.
        span: (B, 2) int64, the redex as half-open token positions: characters [s, e) are tokens [s + 1, e + 1);
            (0, 0) in normal forms, and (`NO_SPAN`, `NO_SPAN`) where the row holds a normal-form marker in the
            middle of its trace, which only unvalidated data does.
        is_normal_form: (B,) bool, true where there is no redex.
        size: (B,) int32, nodes.
        depth: (B,) int32, edges on the longest path.
    """

    tokens: torch.Tensor
    span: torch.Tensor
    is_normal_form: torch.Tensor
    size: torch.Tensor
    depth: torch.Tensor


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
    flat: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], rows: Indices | None = None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Return (tokens (B, T) int64, mask (B, T) bool) of the terms `rows` (B,), T being the longest's length plus two.

    Without `rows`, of all terms.

    Term r's tokens are `flat[offsets[r]:offsets[r + 1]]`; rows read BOS, characters, EOS, PAD.
    """
    if rows is None:
        rows = np.arange(len(offsets) - 1, dtype=np.int64)
    longest = int((offsets[rows + 1] - offsets[rows]).max(initial=0))
    shape = (len(rows), longest + SPECIAL_TOKENS)
    tokens, mask = np.empty(shape, dtype=np.int64), np.empty(shape, dtype=np.bool_)
    _write_rows(flat, offsets, rows, tokens, mask)
    return tokens, mask


@compiled
def _write_rows(
    flat: npt.NDArray[np.uint8],
    offsets: npt.NDArray[np.int64],
    rows: Indices,
    tokens: npt.NDArray[np.int64],
    mask: npt.NDArray[np.bool_],
) -> None:
    width = tokens.shape[1]
    for row in range(len(rows)):
        begin = offsets[rows[row]]
        length = offsets[rows[row] + 1] - begin
        tokens[row, 0] = BOS
        for column in range(length):
            tokens[row, column + 1] = flat[begin + column]
        tokens[row, length + 1] = EOS
        for column in range(length + 2):
            mask[row, column] = True
        for column in range(length + 2, width):
            tokens[row, column] = PAD
            mask[row, column] = False


class EncodedReductions:
    """A window of reduction rows as flat arrays.

    Args:
        rows: with the columns of the tensor form, `example_id` and lineage.
        topics: for the lineage.

    Raises:
        FeedError: a term is null or holds a character outside the reduction alphabet.
    """

    def __init__(self, rows: pl.DataFrame, topics: tuple[str, ...]) -> None:
        self._flat, self._offsets = flat_tokens(rows["term"])
        span = rows.select(pl.col("span_start", "span_end").cast(pl.Int64)).to_numpy()
        marked = (span == 0).all(axis=1)
        normal = marked & (rows["step_k"] == rows["steps_total"]).fill_null(False).to_numpy()
        if (marked & ~normal).any():
            _warn_of_markers(rows.filter(pl.Series(marked & ~normal)), topics)
        self._span = torch.from_numpy(np.where(normal[:, None], 0, np.where(marked[:, None], NO_SPAN, span + 1)))
        self._normal = torch.from_numpy(normal)
        self._size, self._depth = (torch.from_numpy(rows[name].to_numpy().copy()) for name in ("size", "depth"))
        self._ids = torch.from_numpy(rows["example_id"].to_numpy().view(np.int64).copy())
        self._position = Position.of(rows, topics)

    def batch(self, rows: Indices, stamp: Stamp) -> ReductionBatch:
        """Return the window's rows with these indices (B,) as a batch that shares no memory with the window."""
        tokens, mask = pad_tokens(self._flat, self._offsets, rows)
        picked = torch.from_numpy(rows)
        return ReductionBatch(
            tokens=torch.from_numpy(tokens),
            attention_mask=torch.from_numpy(mask),
            span=self._span[picked],
            is_normal_form=self._normal[picked],
            size=self._size[picked],
            depth=self._depth[picked],
            example_id=self._ids[picked],
            position=self._position.at(picked),
            cursor=stamp.cursor,
            global_rows=stamp.global_rows,
            too_long=stamp.too_long,
        )


def _warn_of_markers(rows: pl.DataFrame, topics: tuple[str, ...]) -> None:
    """Say, once per trace, that a marker stands where the trace goes on."""
    for row in rows.unique("trace_id", keep="first", maintain_order=True).iter_rows(named=True):
        if row["trace_id"] in _warned or len(_warned) >= _MOST_WARNINGS:
            continue
        _warned.add(row["trace_id"])
        _log.warning(
            "trace %s: a normal-form marker at step %s of %s (%s/%d offset %d); its term is taken as reducible",
            *(row[name] for name in ("trace_id", "step_k", "steps_total")),
            topics[row[SOURCE]],
            row[PARTITION],
            row[OFFSET],
        )


def decode_tokens(tokens: torch.Tensor) -> str:
    """Return the term of one row of token ids (T,), special tokens left out."""
    return "".join(ALPHABET[token - 3] for token in tokens.tolist() if token >= 3)
