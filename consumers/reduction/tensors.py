"""Reduction rows as tensors: one token per character, `BOS` before and `EOS` after.

So a token's index is its character's offset plus one, at both ends of a half-open span. Compiled code writes a batch's
tokens straight from the window's bytes, in the batch's order.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from consumers.batches import ORIGIN, Batch, Stamp, shared_fields
from consumers.reduction.alphabet import ALPHABET, SPECIAL_TOKENS
from consumers.reduction.term_tokens import FOREIGN, gather_numbers, longest_term, pick_numbers, write_terms
from consumers.sequence.lineage import OFFSET, PARTITION, ROW, SOURCE
from consumers.tensor_form import Indices
from schema.buffers import strings
from schema.errors import FeedError

_log = logging.getLogger("feedmill.feed")

# Both ends of an unknown span: the row is not a normal form, but has no span. The loss leaves it out.
NO_SPAN = -100

# Ids of the rows that this process has warned about, so that each row is logged once over all windows and passes.
_warned: set[int] = set()
_MOST_WARNINGS = 10_000


@dataclass(frozen=True, eq=False, kw_only=True)
class ReductionBatch(Batch):
    """A batch of terms with the redex that normal order takes next; B rows, T tokens in the longest row.

    Attributes:
        tokens: (B, T) int64: BOS, the characters, EOS, then PAD.
        span: (B, 2) int64, the redex as half-open token positions: characters [s, e) are tokens [s + 1, e + 1);
            (0, 0) in normal forms, and (`NO_SPAN`, `NO_SPAN`) if the row holds a normal-form marker in the
            middle of its trace, which happens only in unvalidated data.
        is_normal_form: (B,) bool, true if the term has no redex.
        size: (B,) int64, nodes.
        depth: (B,) int64, edges on the longest path.
    """

    tokens: torch.Tensor
    span: torch.Tensor
    is_normal_form: torch.Tensor
    size: torch.Tensor
    depth: torch.Tensor


def flat_characters(terms: pl.Series) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return the terms as (bytes, offsets) (`schema.buffers.strings`).

    Raises:
        FeedError: a term is null.
    """
    if terms.null_count():
        raise FeedError("a clean reduction row has no term: only the refine stage may write that topic")
    return strings(terms)


def pad_terms(
    flat: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], rows: Indices | None = None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Return (tokens (B, T) int64, mask (B, T) bool) of the terms `rows` (B,); T is the longest length plus two.

    Term r's characters are `flat[offsets[r]:offsets[r + 1]]`; without `rows` all terms are taken. A row of tokens is
    BOS, characters, EOS, PAD.

    Raises:
        FeedError: a term holds a character outside the reduction alphabet.
    """
    if rows is None:
        rows = np.arange(len(offsets) - 1, dtype=np.int64)
    shape = (len(rows), longest_term(offsets, rows) + SPECIAL_TOKENS)
    tokens, mask = np.empty(shape, dtype=np.int64), np.empty(shape, dtype=np.bool_)
    if write_terms(flat, offsets, rows, tokens, mask) == FOREIGN:
        raise FeedError("a clean reduction term holds a foreign character: only the refine stage may write that topic")
    return tokens, mask


# The numbers of a row, in the order in which a window holds them: int32 columns, then 64-bit ones.
_NARROW = ("span_start", "span_end", "size", "depth")


class EncodedReductions:
    """A window of reduction rows as flat arrays.

    Args:
        rows: rows with the columns of the tensor form, `example_id` and lineage.
        topics: names of the topics, for the lineage.

    Raises:
        FeedError: a term is null or holds a character outside the reduction alphabet.
    """

    def __init__(self, rows: pl.DataFrame, topics: tuple[str, ...]) -> None:
        self._topics = topics
        self._flat, self._offsets = flat_characters(rows["term"])
        # Row-major, so that all numbers of a row are read at once.
        self._numbers = np.empty((rows.height, len(_NARROW) + len(ORIGIN)), dtype=np.int64)
        narrow = tuple(_column(rows, name, np.int32) for name in _NARROW)
        wide = tuple(_column(rows, name, np.int64) for name in ORIGIN)
        ends = rows["step_k"].eq_missing(rows["steps_total"]).to_numpy()
        if gather_numbers(narrow, wide, _read_only(ends), NO_SPAN, self._numbers):
            is_marker = (rows["span_start"] == 0) & (rows["span_end"] == 0)
            _warn_of_markers(rows.filter(is_marker & ~pl.Series(ends)), topics)

    def batch(self, rows: Indices, stamp: Stamp) -> ReductionBatch:
        """Return the window's rows with these indices (B,) as a batch that shares no memory with the window."""
        tokens, mask = pad_terms(self._flat, self._offsets, rows)
        span, is_normal_form = np.empty((len(rows), 2), dtype=np.int64), np.empty(len(rows), dtype=np.bool_)
        columns = np.empty((self._numbers.shape[1] - 2, len(rows)), dtype=np.int64)
        pick_numbers(self._numbers, rows, span, is_normal_form, columns)
        size, depth, *origin = torch.from_numpy(columns)
        return ReductionBatch(
            tokens=torch.from_numpy(tokens),
            span=torch.from_numpy(span),
            is_normal_form=torch.from_numpy(is_normal_form),
            size=size,
            depth=depth,
            **shared_fields(mask, origin, self._topics, stamp),
        )


def _column(rows: pl.DataFrame, name: str, dtype: type[np.int32 | np.int64]) -> npt.NDArray[Any]:
    """Return a column as an array for compiled code: of one type, read-only; unsigned ids keep their bits."""
    values = rows[name].to_numpy()
    return _read_only(values.view(dtype) if values.itemsize == np.dtype(dtype).itemsize else values.astype(dtype))


def _read_only(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    view = values.view()
    view.setflags(write=False)
    return view


def _warn_of_markers(rows: pl.DataFrame, topics: tuple[str, ...]) -> None:
    """Log, once per row, that the row holds a normal-form marker although its trace continues."""
    for row in rows.iter_rows(named=True):
        if row["example_id"] in _warned or len(_warned) >= _MOST_WARNINGS:
            continue
        _warned.add(row["example_id"])
        _log.warning(
            "example %016x: a normal-form marker at step %s of %s (%s/%d offset %d row %d); "
            "its term is treated as reducible",
            *(row[name] for name in ("example_id", "step_k", "steps_total")),
            topics[row[SOURCE]],
            *(row[name] for name in (PARTITION, OFFSET, ROW)),
        )


def decode_tokens(tokens: torch.Tensor) -> str:
    """Return the term of one row of token ids (T,), special tokens left out."""
    return "".join(ALPHABET[token - 3] for token in tokens.tolist() if token >= 3)
