from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from consumers.reduction.counting import Counter, count_features, neighbourhood, rms_norm


def halves(steps: list[int], channels: int = 2) -> torch.Tensor:
    """Logits (1, T, 2 * channels) whose increments are `steps`, each -1, 0 or 1, in every channel."""
    wanted = torch.tensor(steps, dtype=torch.float32)[None, :, None].expand(-1, -1, channels)
    return torch.cat([wanted, -wanted], dim=-1) * 80 - 40


@given(st.lists(st.sampled_from([-1, 0, 1]), min_size=1, max_size=600))
def test_features_come_from_exact_sums_from_either_end(steps: list[int]) -> None:
    sums = torch.tensor(steps, dtype=torch.float32)
    onward, back = sums.cumsum(0), sums.flip(0).cumsum(0).flip(0)
    features = count_features(halves(steps), torch.ones(1, len(steps), 1)).view(len(steps), -1, 2)
    # The third feature is tanh of the sum itself; the last one is still graded at 30.
    for channel, count in enumerate((onward, back)):
        torch.testing.assert_close(features[:, 2, channel], torch.tanh(count))
        torch.testing.assert_close(features[:, -1, channel], torch.tanh(0.03 * count))


def test_the_sign_of_a_small_count_differs_from_zero_after_two_thousand_tokens() -> None:
    steps = [1] * 1_000 + [-1] * 1_000 + [1, -1, -1]
    features = count_features(halves(steps), torch.ones(1, len(steps), 1)).view(len(steps), -1, 2)[:, :2, 0]
    at_zero, at_one, at_minus_one = features[1_999], features[2_000], features[2_002]
    assert at_zero[0] > 0.7 and at_zero[1] < -0.7
    assert (at_one > 0.7).all()
    assert (at_minus_one < -0.7).all()


def test_padding_adds_nothing_to_counts() -> None:
    logits = torch.randn(1, 9, 8)
    real = torch.ones(1, 9, 1)
    real[:, 6:] = 0
    whole = count_features(logits, real)[:, :6]
    torch.testing.assert_close(whole, count_features(logits[:, :6], real[:, :6]))


def test_written_out_gradients_equal_those_of_the_formula() -> None:
    real = torch.ones(2, 5, 1, dtype=torch.float64)
    real[1, 3:] = 0
    logits = torch.randn(2, 5, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda values: count_features(values, real), (logits,))


def test_rms_norm_agrees_with_torch_in_value_and_gradient() -> None:
    ours = torch.randn(3, 4, 16, requires_grad=True)
    theirs = ours.detach().clone().requires_grad_()
    upstream = torch.randn(3, 4, 16)
    normed, expected = rms_norm(ours), torch.nn.functional.rms_norm(theirs, (16,))
    normed.backward(upstream)  # type: ignore[no-untyped-call]
    expected.backward(upstream)  # type: ignore[no-untyped-call]
    torch.testing.assert_close(normed, expected)
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_rms_norm_of_zeros_is_zero() -> None:
    assert (rms_norm(torch.zeros(2, 8)) == 0).all()


def test_a_neighbourhood_is_the_token_between_the_one_before_and_the_one_after() -> None:
    values = torch.tensor([[[1.0], [2.0], [3.0]]])
    assert neighbourhood(values).tolist() == [[[0, 1, 2], [1, 2, 3], [2, 3, 0]]]


@pytest.mark.parametrize("rows", [0, 3])
def test_a_counter_keeps_the_shape(rows: int) -> None:
    counter = Counter(width=16, channels=4, gain=1.0)
    assert counter(torch.randn(rows, 7, 16), torch.ones(rows, 7, 1)).shape == (rows, 7, 16)
