from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from consumers.reduction.loss import loss_sums
from consumers.reduction.model import SpanLogits
from consumers.reduction.tensors import NO_SPAN, ReductionBatch
from tests.consumers.batches import batch_of

LOWEST = torch.finfo(torch.float32).min


def logits_of(batch: ReductionBatch, seed: int) -> tuple[SpanLogits, list[torch.Tensor]]:
    """Random logits with the model's lowest float on padding, and the leaf tensors whose gradients are checked."""
    generator = torch.Generator().manual_seed(seed)
    rows, length = batch.tokens.shape
    start, end = (torch.randn(rows, length, generator=generator, requires_grad=True) for _ in range(2))
    normal = torch.randn(rows, generator=generator, requires_grad=True)
    masked = [values.masked_fill(~batch.attention_mask, LOWEST) for values in (start, end)]
    return SpanLogits(masked[0], masked[1], normal), [start, end, normal]


def padded(batch: ReductionBatch, logits: SpanLogits, more: int) -> tuple[ReductionBatch, SpanLogits]:
    """The same rows with `more` columns of padding."""
    wider = batch_of(
        [int(length) for length in batch.attention_mask.sum(dim=1)],
        batch.span.tolist(),
        batch.is_normal_form.tolist(),
        width=batch.tokens.shape[1] + more,
    )
    start, end = (functional.pad(values, (0, more), value=LOWEST) for values in (logits.start, logits.end))
    return wider, SpanLogits(start, end, logits.normal_form)


rows = st.lists(st.tuples(st.integers(4, 20), st.booleans()), min_size=1, max_size=6)


@given(rows, st.integers(1, 40), st.integers(0, 2**31), st.sampled_from([0.0, 0.05, 0.5]))
def test_padding_takes_no_part_in_loss_or_gradient(
    drawn: list[tuple[int, bool]], more: int, seed: int, smoothing: float
) -> None:
    lengths, normal = [length for length, _ in drawn], [is_normal for _, is_normal in drawn]
    spans = [[0, 0] if is_normal else [1, length - 1] for length, is_normal in drawn]
    batch = batch_of(lengths, spans, normal)
    logits, leaves = logits_of(batch, seed)
    loss = loss_sums(logits, batch, smoothing).total
    loss.backward()  # type: ignore[no-untyped-call]
    gradients = [leaf.grad.clone() for leaf in leaves if leaf.grad is not None]
    assert len(gradients) == 3
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert all((gradient[~batch.attention_mask] == 0).all() for gradient in gradients[:2])

    again, leaves = logits_of(batch, seed)
    wider, stretched = padded(batch, again, more)
    same = loss_sums(stretched, wider, smoothing).total
    same.backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(same, loss)
    for leaf, gradient in zip(leaves, gradients, strict=True):
        assert leaf.grad is not None
        torch.testing.assert_close(leaf.grad, gradient)


def test_the_built_in_smoothing_would_leak_into_padding() -> None:
    batch = batch_of([4, 12], [[1, 3], [2, 9]], [False, False])
    logits, _ = logits_of(batch, 1)
    leaking = functional.cross_entropy(logits.start, batch.span[:, 0], label_smoothing=0.05)
    assert not leaking < 1e30
    assert loss_sums(logits, batch, 0.05).total < 100


def test_the_smoothed_loss_is_the_cross_entropy_against_the_smoothed_target() -> None:
    batch = batch_of([6, 9], [[1, 5], [2, 4]], [False, False])
    logits, _ = logits_of(batch, 2)
    by_hand = torch.tensor(0.0)
    for side, values in enumerate((logits.start, logits.end)):
        for row, length in enumerate((6, 9)):
            target = torch.full((length,), 0.05 / length)
            target[batch.span[row, side]] += 0.95
            by_hand = by_hand - (target * values[row, :length].log_softmax(dim=0)).sum() / 2
    torch.testing.assert_close(loss_sums(logits, batch, 0.05).pointers, by_hand)


def test_rows_without_a_span_add_nothing_to_the_pointers_loss() -> None:
    spans = [[2, 5], [0, 0], [NO_SPAN, NO_SPAN]]
    batch = batch_of([8, 8, 8], spans, [False, True, False])
    logits, leaves = logits_of(batch, 3)
    sums = loss_sums(logits, batch)
    sums.total.backward()  # type: ignore[no-untyped-call]
    start, end, normal = (leaf.grad for leaf in leaves)
    assert start is not None
    assert end is not None
    assert normal is not None
    assert (start[0] != 0).all()
    assert (start[1:] == 0).all()
    assert (end[1:] == 0).all()
    # A marker in the middle of a trace counts as reducible, so its row pulls the normal-form head down.
    assert (normal > 0).tolist() == [True, False, True]
    alone = batch_of([8], spans[:1], [False])
    first = SpanLogits(logits.start[:1], logits.end[:1], logits.normal_form[:1])
    torch.testing.assert_close(sums.pointers, loss_sums(first, alone).pointers)


def test_an_empty_batch_has_loss_0_and_gradient_0() -> None:
    batch = batch_of([], [], [], width=2)
    weight = torch.ones(3, requires_grad=True)
    hidden = torch.zeros(0, 2, 3) @ weight
    sums = loss_sums(SpanLogits(hidden, hidden, hidden[:, 0]), batch)
    assert sums.total.item() == 0
    sums.total.backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    assert weight.grad.tolist() == [0, 0, 0]
