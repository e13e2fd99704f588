from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
import torch

from consumers.reduction.model import SpanLogits, SpanPredictor, SpanPredictorConfig
from consumers.reduction.tensors import EncodedReductions, ReductionBatch
from consumers.windows import LINEAGE
from tests import reductions

SMALL = SpanPredictorConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64)


def batch(count: int, first: int = 0) -> ReductionBatch:
    lineage = [pl.lit(0, dtype=kind).alias(name) for name, kind in LINEAGE.items()]
    return EncodedReductions(reductions.valid(count, first).with_columns(lineage), "topic").batch(0, count, 0)


@pytest.fixture
def model() -> SpanPredictor:
    torch.manual_seed(0)
    made = SpanPredictor(SMALL)
    # Fresh weights are small enough for everything to look alike.
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return made.eval()


def test_padding_changes_nothing(model: SpanPredictor) -> None:
    both, alone = batch(40), batch(1)
    assert alone.tokens.shape[1] < both.tokens.shape[1]
    with torch.inference_mode():
        padded, plain = model(both.tokens, both.attention_mask), model(alone.tokens, alone.attention_mask)
    width = alone.tokens.shape[1]
    torch.testing.assert_close(padded.start[:1, :width], plain.start)
    torch.testing.assert_close(padded.end[:1, :width], plain.end)
    torch.testing.assert_close(padded.normal_form[:1], plain.normal_form)


def test_the_order_of_characters_matters(model: SpanPredictor) -> None:
    one = batch(1, first=3)
    turned = one.tokens.clone()
    turned[0, 1:-1] = turned[0, 1:-1].flip(0)
    with torch.inference_mode():
        logits, others = model(one.tokens, one.attention_mask), model(turned, one.attention_mask)
    assert not torch.allclose(logits.start.sort().values, others.start.sort().values, atol=1e-3)


def test_predicted_spans_lie_on_real_tokens_in_order(model: SpanPredictor) -> None:
    many = batch(64)
    with torch.inference_mode():
        logits = model(many.tokens, many.attention_mask)
        spans = SpanLogits(logits.start, logits.end, torch.full((64,), -1.0)).spans()
    lengths = many.attention_mask.sum(dim=1)
    assert (spans[:, 0] < spans[:, 1]).all()
    assert (spans[:, 1] <= lengths).all()
    assert spans.shape == (64, 2)


def test_a_predicted_normal_form_has_no_span() -> None:
    logits = SpanLogits(torch.tensor([[0.0, 5.0, 0.0]]), torch.tensor([[0.0, 0.0, 5.0]]), torch.tensor([0.1]))
    assert logits.spans().tolist() == [[0, 0]]
    assert SpanLogits(logits.start, logits.end, torch.tensor([-0.1])).spans().tolist() == [[1, 2]]


def test_the_loss_is_cross_entropy_of_both_pointers_and_of_the_normal_form() -> None:
    start, end, normal = torch.randn(3, 7), torch.randn(3, 7), torch.randn(3)
    span = torch.tensor([[1, 4], [0, 0], [2, 6]])
    is_normal = torch.tensor([False, True, False])

    def cross_entropy(logits: torch.Tensor, target: int) -> torch.Tensor:
        return logits.logsumexp(0) - logits[target]

    pointers = [
        cross_entropy(start[row], int(span[row, 0])) + cross_entropy(end[row], int(span[row, 1])) for row in (0, 2)
    ]
    chance = torch.sigmoid(normal)
    told = -torch.stack([(1 - chance[0]).log(), chance[1].log(), (1 - chance[2]).log()]).mean()
    expected = torch.stack(pointers).mean() / 2 + told
    torch.testing.assert_close(SpanLogits(start, end, normal).loss(span, is_normal), expected)


def test_padding_bears_no_loss_and_no_gradient(model: SpanPredictor) -> None:
    many = batch(8)
    logits = model(many.tokens, many.attention_mask)
    logits.start.retain_grad()
    logits.loss(many.span, many.is_normal_form).backward()
    assert logits.start.grad is not None
    assert (logits.start.grad[~many.attention_mask] == 0).all()


def test_a_batch_of_normal_forms_only_has_a_finite_loss(model: SpanPredictor) -> None:
    many = batch(4)
    loss = model(many.tokens, many.attention_mask).loss(torch.zeros_like(many.span), torch.ones(4, dtype=torch.bool))
    assert torch.isfinite(loss)


def test_a_saved_model_loads_with_the_same_logits(model: SpanPredictor, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").exists()
    loaded = SpanPredictor.from_pretrained(tmp_path).eval()
    many = batch(5)
    with torch.inference_mode():
        before, after = model(many.tokens, many.attention_mask), loaded(many.tokens, many.attention_mask)
    torch.testing.assert_close(after.start, before.start)
    torch.testing.assert_close(after.normal_form, before.normal_form)
