"""Predict spans for terms with a span predictor, in batches of similar length; spans are in characters."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from consumers.reduction.alphabet import MAX_TOKENS, SPECIAL_TOKENS
from consumers.reduction.model import SpanPredictor
from consumers.reduction.predictions import Predictions
from consumers.reduction.tensors import flat_characters, pad_terms
from schema.errors import FeedError

# Tokens in a batch, padding included: enough to keep the cores busy, with some megabytes of activations per layer.
_BATCH_TOKENS = 16_384


class ModelPredictor:
    """A span predictor as a `Predict` function.

    Args:
        model: on any device; it is put into evaluation mode.
        bf16: compute in bfloat16 where torch's autocast allows it.
    """

    def __init__(self, model: SpanPredictor, *, bf16: bool = False) -> None:
        self._model = model.eval()
        self._bf16 = bf16

    def __call__(self, terms: pl.Series) -> Predictions:
        """Return the predictions for terms (N,) Utf8.

        Raises:
            FeedError: a term is longer than the model's limit, or holds a character outside the alphabet.
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
        # Token positions are character offsets plus 1, because BOS comes first.
        return Predictions(np.where((spans == 0).all(axis=1)[:, None], 0, spans - 1), probability)


def _batches(order: npt.NDArray[np.int64], tokens: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.int64]]:
    """Cut `order`, in which `tokens` (N,) ascend, into batches of at most `_BATCH_TOKENS` tokens with padding."""
    stop = len(order)
    while stop > 0:
        start = max(0, stop - max(1, _BATCH_TOKENS // int(tokens[order[stop - 1]])))
        yield order[start:stop]
        stop = start
