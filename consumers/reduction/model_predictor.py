"""A span predictor that is asked about terms: encodes them in batches of similar length and answers in characters."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from consumers.reduction.form import MAX_TOKENS, SPECIAL_TOKENS
from consumers.reduction.model import SpanPredictor
from consumers.reduction.predictions import Predictions
from consumers.reduction.tensors import flat_characters, pad_terms
from schema.errors import FeedError

# Tokens to a batch, padding included: enough to keep the cores busy, and some megabytes of activations a layer.
_BATCH_TOKENS = 16_384


class ModelPredictor:
    """Asks a span predictor.

    Args:
        model: put into evaluation mode; on any device.
        bf16: compute in bfloat16 where torch finds it safe.
    """

    def __init__(self, model: SpanPredictor, *, bf16: bool = False) -> None:
        self._model = model.eval()
        self._bf16 = bf16

    def __call__(self, terms: pl.Series) -> Predictions:
        """Return the predictions for terms (N,) Utf8.

        Raises:
            FeedError: a term is longer than the model reads, or holds a foreign character.
        """
        lengths = terms.str.len_bytes().to_numpy().astype(np.int64)
        if lengths.max(initial=0) > MAX_TOKENS - SPECIAL_TOKENS:
            raise FeedError(
                f"a term of {lengths.max():,} characters is longer than the {MAX_TOKENS - SPECIAL_TOKENS:,} that the "
                "model reads: evaluate on smaller terms"
            )
        order = np.argsort(lengths, kind="stable")
        spans, probability = np.empty((len(terms), 2), dtype=np.int64), np.empty(len(terms))
        flat, offsets = flat_characters(terms)
        device = next(self._model.parameters()).device
        mode = torch.autocast(device.type, torch.bfloat16) if self._bf16 else nullcontext()
        with torch.inference_mode(), mode:
            for rows in _batches(order, lengths + SPECIAL_TOKENS):
                tokens, mask = pad_terms(flat, offsets, rows)
                logits = self._model(torch.from_numpy(tokens).to(device), torch.from_numpy(mask).to(device))
                spans[rows] = logits.spans().cpu().numpy()
                probability[rows] = logits.normal_form.double().sigmoid().cpu().numpy()
        # Both ends of a span of tokens lie one ahead, for BOS stands before the first character.
        return Predictions(np.where((spans == 0).all(axis=1)[:, None], 0, spans - 1), probability)


def _batches(order: npt.NDArray[np.int64], tokens: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.int64]]:
    """Cut `order`, in which `tokens` (N,) ascend, into batches that hold at most `_BATCH_TOKENS`, padding included."""
    stop = len(order)
    while stop > 0:
        start = max(0, stop - max(1, _BATCH_TOKENS // int(tokens[order[stop - 1]])))
        yield order[start:stop]
        stop = start
