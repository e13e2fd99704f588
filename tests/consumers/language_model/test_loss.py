"""The loss of a language model: which tokens are learned, and that packing changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from consumers.batches import Stamp
from consumers.language_model.loss import count_learned, learned_tokens, loss_sum, model_inputs, next_tokens
from consumers.packed_rows import RowLayout
from consumers.scenario.byte_tokens import EOS, FIRST_BYTE
from consumers.scenario.tensors import EncodedScenarios
from consumers.sequence.cursor import Cursor
from consumers.source_code.masking import NO_LABEL
from tests.consumers.test_scenario_form import rows

TEXTS = [("abc", "de", "f"), ("g", "", "hijk"), ("", "", "lm")]
LENGTHS = np.array([sum(map(len, texts)) + 4 for texts in TEXTS])


@pytest.fixture(scope="module")
def window() -> EncodedScenarios:
    return EncodedScenarios(rows(TEXTS), ("topic",))


def test_the_response_of_a_scenario_and_its_end_are_learned(window: EncodedScenarios) -> None:
    batch = window.batch(np.arange(3), Stamp(Cursor(), 3, 0, 0))
    for learned, wanted, (_, _, response) in zip(learned_tokens(batch), next_tokens(batch), TEXTS, strict=True):
        expected = [FIRST_BYTE + byte for byte in response.encode()] + [EOS]
        assert learned[learned != NO_LABEL].tolist() == expected
        assert wanted[wanted != NO_LABEL].tolist() == expected
    assert count_learned(batch) == sum(len(response) + 1 for _, _, response in TEXTS)
    assert set(model_inputs(batch)) == {"input_ids", "attention_mask", "use_cache"}


def test_a_packed_batch_has_the_loss_of_its_sequences(window: EncodedScenarios) -> None:
    layout = RowLayout.of(np.array([0, 0, 1]), LENGTHS, 24)
    packed = window.batch(np.arange(3), Stamp(Cursor(), 2, 0, 0, layout))
    assert packed.sequence_row is not None and packed.sequence_start is not None
    logits = torch.randn(2, 24, 300, generator=torch.Generator().manual_seed(1))
    alone = 0.0
    for number, (row, start) in enumerate(
        zip(packed.sequence_row.tolist(), packed.sequence_start.tolist(), strict=True)
    ):
        single = window.batch(np.array([number]), Stamp(Cursor(), 1, 0, 0))
        own = logits[row : row + 1, start : start + LENGTHS[number]]
        alone += loss_sum(own, next_tokens(single)).item()
        # The same by hand.
        tokens, mask = single.tokens[0, 1:], single.response_mask[0, 1:]
        by_hand = cross_entropy(own[0, :-1][mask], tokens[mask], reduction="sum").item()
        assert loss_sum(own, next_tokens(single)).item() == pytest.approx(by_hand)
    assert loss_sum(logits, next_tokens(packed)).item() == pytest.approx(alone)
    assert count_learned(packed) == sum(len(response) + 1 for _, _, response in TEXTS)


def test_the_first_token_of_a_packed_sequence_is_not_predicted_from_another_sequence() -> None:
    """Where all tokens are learned, each sequence gives one prediction fewer than it has tokens."""
    from tests.consumers.test_packed_model import code

    windows, lengths = code()
    layout = RowLayout.of(np.array([0, 0, 0]), lengths[:3], 64)
    packed = windows.batch(np.arange(3), Stamp(Cursor(), 1, 0, 0, layout))
    assert count_learned(packed) == int(lengths[:3].sum()) - 3
