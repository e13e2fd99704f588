"""The loss of a causal language model: each learned token is predicted from the tokens before it in its sequence.

Which tokens are learned follows from the batch: all of a source file; the new file of a change; what follows the prompt
of a completion; the response of a scenario. In a packed row a sequence never sees another one, and its first token is
predicted from nothing.
"""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy

from consumers.batches import Batch
from consumers.scenario.tensors import ScenarioBatch
from consumers.source_code.masking import NO_LABEL
from consumers.source_code.tensors import CodeBatch

LearnedBatch = CodeBatch | ScenarioBatch


def next_tokens(batch: LearnedBatch) -> torch.Tensor:
    """Return (B, T - 1): the token that follows each place and is to be learned there, and -100 elsewhere."""
    labels = learned_tokens(batch)[:, 1:]
    if batch.position_ids is None:
        return labels
    # A place 0 is the first token of a sequence, or padding.
    return labels.masked_fill(batch.position_ids[:, 1:] == 0, NO_LABEL)


def learned_tokens(batch: LearnedBatch) -> torch.Tensor:
    """Return (B, T): the tokens that are learned, and -100 at all others."""
    if isinstance(batch, ScenarioBatch):
        return batch.tokens.masked_fill(~batch.response_mask, NO_LABEL)
    if batch.labels is not None:
        return batch.labels
    return batch.tokens.masked_fill(~batch.attention_mask, NO_LABEL)


def count_learned(batch: LearnedBatch) -> int:
    """Return the number of tokens that are predicted."""
    return int((next_tokens(batch) != NO_LABEL).sum())


def model_inputs(batch: Batch) -> dict[str, torch.Tensor | bool]:
    """Return the arguments of a transformers model: tokens, and what keeps sequences and padding apart.

    transformers finds the sequences of a packed row by the places of their tokens alone, if it keeps no cache of keys
    and values. So no mask of (T, T) is made here.
    """
    tokens: torch.Tensor = batch.tokens  # type: ignore[attr-defined]  # every family's batch has it
    if batch.position_ids is not None:
        return {"input_ids": tokens, "position_ids": batch.position_ids, "use_cache": False}
    return {"input_ids": tokens, "attention_mask": batch.attention_mask.long(), "use_cache": False}


def loss_sum(logits: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Return the cross entropy (nats) of all learned tokens, summed, as a float32 scalar.

    Args:
        logits: (B, T, V), of any type.
        wanted: (B, T - 1), the result of `next_tokens`.
    """
    return cross_entropy(logits[:, :-1].flatten(0, 1).float(), wanted.flatten(), ignore_index=NO_LABEL, reduction="sum")
