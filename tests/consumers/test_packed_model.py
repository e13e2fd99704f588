"""A causal language model gives the sequences of packed rows the logits that it gives each of them alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from consumers.batches import Stamp
from consumers.packed_rows import RowLayout, block_diagonal_mask
from consumers.scenario.byte_tokens import VOCABULARY_SIZE
from consumers.scenario.tensors import EncodedScenarios, ScenarioBatch
from consumers.sequence.cursor import Cursor
from consumers.sequence.lineage import LINEAGE, TOKENS
from consumers.sequence.packing import plan_packed
from consumers.sequence.planning import BatchShape
from consumers.source_code.document_tokens import PLACES
from consumers.source_code.tensors import CodeBatch, EncodedWindows
from consumers.tensor_form import PART
from tests.consumers.test_scenario_form import rows

PackedBatch = ScenarioBatch | CodeBatch
# Texts of 3 to 60 bytes.
TEXTS = [("a" * (number % 7), "what?" * (number % 5), "so\n" * (number % 11)) for number in range(40)]
ROW_TOKENS = 96


def scenarios() -> tuple[EncodedScenarios, npt.NDArray[np.int64]]:
    """Return (the scenarios, the number of tokens of each)."""
    return EncodedScenarios(rows(TEXTS), ("topic",)), np.array(
        [sum(len(text) for text in texts) + 4 for texts in TEXTS]
    )


def code() -> tuple[EncodedWindows, npt.NDArray[np.int64]]:
    """Return (windows of code, the number of tokens of each)."""
    draw = np.random.default_rng(0)
    tokens = [draw.integers(0, VOCABULARY_SIZE, 3 + number).tolist() for number in range(len(TEXTS))]
    lengths = np.array([len(each) for each in tokens])
    lineage = rows(TEXTS).select("example_id", *LINEAGE).with_columns(pl.Series(TOKENS, lengths))
    places = {name: pl.Series(name, [0] * len(TEXTS), dtype=pl.Int32) for name in (PART, *PLACES)}
    frame = lineage.with_columns(pl.Series("input_ids", tokens, dtype=pl.List(pl.Int32)), *places.values())
    return EncodedWindows(frame, ("topic",), padding=0), lengths


@pytest.fixture(scope="module", params=[scenarios, code])
def packed(request: pytest.FixtureRequest) -> PackedBatch:
    window, lengths = request.param()
    (planned,) = plan_packed(lengths, ROW_TOKENS, BatchShape(None, None, False), (3, 0, 0), None)
    sequences, row = planned.of_rank(0, 1)
    assert row is not None
    layout = RowLayout.of(row, lengths[sequences], ROW_TOKENS)
    batch: PackedBatch = window.batch(sequences, Stamp(Cursor(), planned.rows, planned.tokens, 0, layout))
    return batch


@pytest.fixture(scope="module", params=["eager", "sdpa"])
def model(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY_SIZE,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        # Above the usual 0.02, so that a token of another sequence would change the logits by much.
        initializer_range=0.15,
        attn_implementation=request.param,
    )
    return LlamaForCausalLM(config).eval()


def apart(packed: PackedBatch, model: Any, **given: Any) -> float:
    """The largest difference between the logits of a packed batch and those of its sequences alone."""
    assert packed.sequence_row is not None and packed.sequence_start is not None
    with torch.no_grad():
        together = model(input_ids=packed.tokens, **given).logits
        largest = 0.0
        for row, start, length in zip(
            packed.sequence_row.tolist(), packed.sequence_start.tolist(), lengths_of(packed), strict=True
        ):
            tokens = packed.tokens[row, start : start + length]
            alone = model(input_ids=tokens[None]).logits[0]
            largest = max(largest, float((together[row, start : start + length] - alone).abs().max()))
    assert torch.isfinite(together).all()
    return largest


def lengths_of(packed: PackedBatch) -> list[int]:
    assert packed.segment_ids is not None
    return [int(count) for row in packed.segment_ids for count in torch.unique(row[row > 0], return_counts=True)[1]]


def test_packed_and_unpacked_logits_agree_under_the_block_diagonal_mask(packed: PackedBatch, model: Any) -> None:
    assert packed.segment_ids is not None
    mask = block_diagonal_mask(packed.segment_ids, causal=True)
    assert len(packed.example_id) == len(TEXTS) > 2 * len(packed)
    if model.config._attn_implementation == "eager":
        # Eager attention adds its mask to the scores.
        mask = torch.where(mask, 0.0, torch.finfo(torch.float32).min)
    assert apart(packed, model, position_ids=packed.position_ids, attention_mask=mask) < 1e-5


def test_transformers_finds_the_sequences_by_the_positions_alone(packed: PackedBatch, model: Any) -> None:
    # With a cache of keys and values, transformers takes the row for one sequence.
    assert apart(packed, model, position_ids=packed.position_ids, use_cache=False) < 1e-5


def test_without_mask_and_positions_the_logits_differ(packed: PackedBatch, model: Any) -> None:
    assert apart(packed, model, attention_mask=packed.attention_mask) > 0.1
