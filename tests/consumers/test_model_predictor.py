from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from consumers.reduction import model_predictor
from consumers.reduction.alphabet import MAX_TOKENS
from consumers.reduction.model import SpanPredictor, SpanPredictorConfig
from consumers.reduction.model_predictor import ModelPredictor
from consumers.reduction.tensors import flat_characters, pad_terms
from schema.errors import FeedError
from tests import reductions

TERMS = reductions.valid(60)["term"]


@pytest.fixture(scope="module")
def model() -> SpanPredictor:
    """A model with random weights that predicts a normal form for some terms, and a span for others."""
    for seed in range(50):
        torch.manual_seed(seed)
        predictor = SpanPredictor(SpanPredictorConfig(hidden_size=32, num_hidden_layers=2, intermediate_size=64))
        # Fresh weights are so small that all predictions look alike.
        for parameter in predictor.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
        normal = (ModelPredictor(predictor)(TERMS).spans == 0).all(axis=1)
        if 10 < normal.sum() < 50:
            return predictor
    pytest.fail("no such model in 50 seeds")


def test_a_prediction_does_not_depend_on_the_other_terms(model: SpanPredictor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_predictor, "_BATCH_TOKENS", 300)
    predict = ModelPredictor(model)
    together = predict(TERMS)
    assert together.spans.shape == (60, 2)
    assert len(np.unique(together.spans, axis=0)) > 3
    for row, term in enumerate(TERMS):
        alone = predict(pl.Series([term]))
        assert alone.spans[0].tolist() == together.spans[row].tolist()
        assert alone.nf_probability[0] == pytest.approx(together.nf_probability[row], abs=1e-5)


def test_predictions_are_the_models_in_characters(model: SpanPredictor) -> None:
    predictions = ModelPredictor(model)(TERMS)
    tokens, mask = map(torch.from_numpy, pad_terms(*flat_characters(TERMS)))
    with torch.inference_mode():
        logits = model(tokens, mask)
    normal = (logits.normal_form > 0).numpy()
    assert normal.any()
    assert not normal.all()
    assert (predictions.spans[normal] == 0).all()
    assert ((predictions.nf_probability > 0.5) == normal).all()
    assert np.array_equal(predictions.spans[~normal] + 1, logits.spans().numpy()[~normal])


@given(st.lists(st.integers(2, 400), max_size=40), st.integers(2, 900))
def test_batches_hold_every_row_once_and_stay_under_the_budget(lengths: list[int], budget: int) -> None:
    tokens = np.array(lengths, dtype=np.int64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model_predictor, "_BATCH_TOKENS", budget)
        batches = list(model_predictor._batches(np.argsort(tokens), tokens))
    assert sorted(row for batch in batches for row in batch.tolist()) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * tokens[batch].max() <= budget


def test_no_terms_need_no_model(model: SpanPredictor) -> None:
    assert ModelPredictor(model)(pl.Series([], dtype=pl.String)).spans.shape == (0, 2)


def test_a_term_above_the_models_limit_is_refused_and_not_cut(model: SpanPredictor) -> None:
    longest = MAX_TOKENS - 2
    with pytest.raises(FeedError, match=f"a term of {longest + 1:,} characters"):
        ModelPredictor(model)(pl.Series(["0", "0" * (longest + 1)]))
    assert ModelPredictor(model)(pl.Series(["0" * longest])).spans.shape == (1, 2)
