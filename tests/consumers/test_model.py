from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from consumers.reduction.alphabet import ALPHABET, BOS, EOS, PAD
from consumers.reduction.model import SpanLogits, SpanPredictor, SpanPredictorConfig
from tests import reductions

SMALL = SpanPredictorConfig(hidden_size=32, num_hidden_layers=2, counter_channels=4, intermediate_size=64, head_dim=16)
CHARACTERS = st.text(alphabet="\\.()012", max_size=60)


def encoded(terms: list[str], extra: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens (B, T) and mask (B, T) of `terms`, with `extra` columns of padding beyond the longest."""
    width = max(map(len, terms), default=0) + 2 + extra
    rows = [[BOS, *(3 + ALPHABET.index(character) for character in term), EOS] for term in terms]
    tokens = torch.tensor([row + [PAD] * (width - len(row)) for row in rows], dtype=torch.int64).view(-1, width)
    return tokens, tokens != PAD


def terms(count: int, first: int = 0) -> list[str]:
    return reductions.valid(count, first)["term"].to_list()


def filled(config: SpanPredictorConfig = SMALL) -> SpanPredictor:
    torch.manual_seed(0)
    predictor = SpanPredictor(config)
    # Fresh heads are so small that all predictions look alike.
    for parameter in (*predictor.pointers.parameters(), *predictor.normal_form.parameters()):
        torch.nn.init.normal_(parameter, std=0.3)
    return predictor.eval()


@pytest.fixture
def model() -> SpanPredictor:
    return filled()


MODEL = filled()


@given(st.lists(CHARACTERS, min_size=1, max_size=4), st.integers(0, 40))
def test_neither_padding_nor_other_rows_change_a_rows_logits(texts: list[str], extra: int) -> None:
    with torch.inference_mode():
        together = MODEL(*encoded(texts, extra))
        for row, text in enumerate(texts):
            alone = MODEL(*encoded([text]))
            width = len(text) + 2
            torch.testing.assert_close(together.start[row, :width], alone.start[0], atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(together.end[row, :width], alone.end[0], atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(together.normal_form[row], alone.normal_form[0], atol=1e-4, rtol=1e-4)


def test_logits_on_padding_are_the_lowest_float(model: SpanPredictor) -> None:
    tokens, mask = encoded(["0", "00000"])
    logits = model(tokens, mask)
    lowest = torch.finfo(torch.float32).min
    assert (logits.start[~mask] == lowest).all() and (logits.end[~mask] == lowest).all()
    assert (logits.start[mask] > lowest).all() and (logits.end[mask] > lowest).all()


def test_padding_has_no_gradient(model: SpanPredictor) -> None:
    tokens, mask = encoded(["0", "00000"])
    logits = model(tokens, mask)
    logits.start.retain_grad()
    logits.start.logsumexp(dim=1).sum().backward()
    assert logits.start.grad is not None
    assert (logits.start.grad[~mask] == 0).all()
    assert (logits.start.grad[mask] != 0).all()


def test_the_order_of_characters_matters(model: SpanPredictor) -> None:
    (text,) = terms(1, first=3)
    with torch.inference_mode():
        logits, others = model(*encoded([text])), model(*encoded([text[::-1]]))
    assert not torch.allclose(logits.start.sort().values, others.start.sort().values, atol=1e-3)


def test_a_change_at_one_end_of_a_long_term_is_seen_at_the_other(model: SpanPredictor) -> None:
    one, other = "(\\.0)" * 200, "0" + "(\\.0)" * 200
    with torch.inference_mode():
        from_start = model(*encoded([one])).end[0, -20:] - model(*encoded([other])).end[0, -20:]
        from_end = model(*encoded([one])).normal_form - model(*encoded([one[:-1] + "1"])).normal_form
    assert from_start.abs().max() > 1e-4
    assert from_end.abs() > 1e-6


def test_a_batch_without_rows_gives_logits_without_rows_and_a_zero_gradient(model: SpanPredictor) -> None:
    logits = model(torch.zeros((0, 2), dtype=torch.int64), torch.zeros((0, 2), dtype=torch.bool))
    assert logits.start.shape == logits.end.shape == (0, 2)
    assert logits.normal_form.shape == (0,)
    assert logits.spans().shape == (0, 2)
    (logits.start.sum() + logits.end.sum() + logits.normal_form.sum()).backward()
    assert all(weight.grad is not None and (weight.grad == 0).all() for weight in model.parameters())


def test_a_term_of_2048_characters_goes_through(model: SpanPredictor) -> None:
    with torch.inference_mode():
        logits = model(*encoded(["(\\.0)" * 409 + "000"]))
    assert logits.start.shape == (1, 2050)
    assert torch.isfinite(logits.start).all()


def test_predicted_spans_lie_on_real_tokens_in_order(model: SpanPredictor) -> None:
    tokens, mask = encoded(terms(64))
    with torch.inference_mode():
        logits = model(tokens, mask)
        spans = SpanLogits(logits.start, logits.end, torch.full((64,), -1.0)).spans()
    lengths = mask.sum(dim=1)
    assert (spans[:, 0] < spans[:, 1]).all()
    assert (spans[:, 1] <= lengths).all()
    assert spans.shape == (64, 2)


def joint(start: list[float], end: list[float], length: int) -> float:
    """The highest sum of a start and a later end of a row of `length` tokens, by trying all pairs."""
    return max(start[s] + end[e] for s in range(1, length - 1) for e in range(s + 1, length))


logit = st.integers(-50, 50).map(float)


@given(st.lists(st.tuples(st.integers(0, 9), st.lists(st.tuples(logit, logit), min_size=11, max_size=11)), max_size=5))
def test_start_and_end_are_chosen_together_among_the_characters(
    rows: list[tuple[int, list[tuple[float, float]]]],
) -> None:
    lowest = torch.finfo(torch.float32).min
    lengths = [2 + characters for characters, _ in rows]
    start, end = (
        torch.tensor(
            [
                [pair[which] if at < length else lowest for at, pair in enumerate(row)]
                for length, (_, row) in zip(lengths, rows, strict=True)
            ]
        ).reshape(len(rows), 11)
        for which in (0, 1)
    )
    spans = SpanLogits(start, end, torch.full((len(rows),), -1.0)).spans().tolist()
    for (s, e), length, starts, ends in zip(spans, lengths, start.tolist(), end.tolist(), strict=True):
        if length == 2:
            assert (s, e) == (0, 0)
        else:
            assert 1 <= s < e <= length - 1
            assert starts[s] + ends[e] == joint(starts, ends, length)


def test_pointers_at_bos_and_eos_give_no_negative_span() -> None:
    lowest = torch.finfo(torch.float32).min
    # BOS, three characters, EOS, one padding token: the highest start is at EOS, the highest end at BOS.
    start, end = torch.tensor([[8.0, 1, 2, 3, 9, lowest]]), torch.tensor([[9.0, 8, 1, 7, 2, lowest]])
    assert SpanLogits(start, end, torch.tensor([-1.0])).spans().tolist() == [[2, 3]]


def test_a_predicted_normal_form_has_no_span() -> None:
    logits = SpanLogits(torch.tensor([[0.0, 5.0, 0.0]]), torch.tensor([[0.0, 0.0, 5.0]]), torch.tensor([0.1]))
    assert logits.spans().tolist() == [[0, 0]]
    assert SpanLogits(logits.start, logits.end, torch.tensor([-0.1])).spans().tolist() == [[1, 2]]


def gradients(model: SpanPredictor, texts: list[str]) -> list[torch.Tensor]:
    model.zero_grad()
    logits = model(*encoded(texts))
    pointed = logits.start.logsumexp(dim=1) + logits.end.logsumexp(dim=1) + logits.normal_form
    pointed.sum().backward()
    return [weight.grad.clone() for weight in model.parameters() if weight.grad is not None]


def test_gradient_checkpointing_changes_no_gradient(model: SpanPredictor) -> None:
    model.train()
    plain = gradients(model, terms(6))
    model.gradient_checkpointing_enable()
    calls = []
    model.blocks[0].counter.register_forward_hook(lambda *_: calls.append(1))
    again = gradients(model, terms(6))
    # Once forward, and once more in the backward pass.
    assert len(calls) == 2
    for one, other in zip(plain, again, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_the_same_seed_trains_to_the_same_bits() -> None:
    def weights() -> list[torch.Tensor]:
        torch.manual_seed(3)
        predictor = SpanPredictor(SMALL)
        train(predictor, terms(16), steps=4, bf16=True)
        return list(predictor.parameters())

    for one, other in zip(weights(), weights(), strict=True):
        assert torch.equal(one, other)


def test_bf16_is_close_to_float32(model: SpanPredictor) -> None:
    tokens, mask = encoded(terms(24))
    with torch.inference_mode():
        exact = model(tokens, mask)
        with torch.autocast("cpu", torch.bfloat16):
            rough = model(tokens, mask)
    assert rough.start.dtype == rough.normal_form.dtype == torch.float32
    for one, other in ((rough.start[mask], exact.start[mask]), (rough.normal_form, exact.normal_form)):
        assert (one - other).abs().max() < 0.1 * exact.start[mask].std()


def train(model: SpanPredictor, texts: list[str], steps: int, *, bf16: bool = False) -> torch.Tensor:
    """Train on the redexes of `texts`, which come from `tests.reductions`, and return the predicted spans."""
    tokens, mask = encoded(texts)
    target = torch.tensor([[text.index("(") + 1, len(text) + 1] for text in texts])
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    model.train()
    for _ in range(steps):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = model(tokens, mask)
        loss = sum(
            torch.nn.functional.cross_entropy(side, target[:, column])
            for column, side in enumerate((logits.start, logits.end))
        ) + torch.nn.functional.binary_cross_entropy_with_logits(logits.normal_form, torch.zeros(len(texts)))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.inference_mode():
        return model.eval()(tokens, mask).spans()


@pytest.mark.parametrize("bf16", [False, True])
def test_a_small_set_is_learnt(bf16: bool) -> None:
    torch.manual_seed(0)
    texts = terms(48)
    spans = train(SpanPredictor(SMALL), texts, steps=60, bf16=bf16)
    assert spans.tolist() == [[text.index("(") + 1, len(text) + 1] for text in texts]


def test_a_saved_model_loads_with_the_same_logits_and_sizes(model: SpanPredictor, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").exists()
    loaded = SpanPredictor.from_pretrained(tmp_path).eval()
    assert loaded.config.counter_channels == SMALL.counter_channels
    with torch.inference_mode():
        before, after = model(*encoded(terms(5))), loaded(*encoded(terms(5)))
    assert torch.equal(after.start, before.start)
    assert torch.equal(after.normal_form, before.normal_form)


def test_fresh_weights_give_all_positions_nearly_equal_logits() -> None:
    torch.manual_seed(0)
    tokens, mask = encoded(terms(8))
    logits = SpanPredictor(SpanPredictorConfig())(tokens, mask)
    assert logits.start[mask].std() < 0.5
    assert (logits.normal_form == 0).all()
