"""The training task of a causal language model: a full model, or a LoRA adapter on a frozen base."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from peft import PeftModel
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from consumers.language_model.base_model import TINY, TinySizes, check_base, load_base, refuse_oversized, tiny_model
from consumers.language_model.loss import LearnedBatch, count_learned, loss_sum, model_inputs, next_tokens
from consumers.language_model.saved_model import (
    ADAPTER_FILES,
    FULL_FILES,
    Lora,
    adapter_base,
    is_adapter,
    load_adapter,
    load_weights,
    save_model,
    with_lora,
)
from consumers.source_code.masking import NO_LABEL
from consumers.source_code.tokenizer import LoadedTokenizer
from consumers.training.checkpoint import unreadable
from consumers.training.task import Forward, Judgement
from schema.errors import UsageError

# Held-out rows that go through the model together.
_ROWS_AT_ONCE = 4

# A `PreTrainedModel` of transformers, or a `PeftModel`.
LanguageModel = nn.Module


@dataclass(frozen=True, kw_only=True)
class LanguageModelTask:
    """Trains a causal language model; a learned token of a batch has weight 1. The members are those of `TrainTask`.

    Attributes:
        family: code or scenario.
        tokenizer: of the model.
        context: the most tokens of a sequence.
        base: `tiny`, or the folder or name of the base model.
        sizes: of the tiny model.
        lora: trains an adapter; None trains all weights.
        trust_base: take a base model as it is, without `check_base`.
    """

    family: str
    tokenizer: LoadedTokenizer
    context: int
    base: str = TINY
    sizes: TinySizes = field(default_factory=TinySizes)
    lora: Lora | None = None
    trust_base: bool = False

    @property
    def model_files(self) -> tuple[str, ...]:
        """Those of an adapter or of a full model."""
        return FULL_FILES if self.lora is None else ADAPTER_FILES

    def build(self, checkpoint: Path | None) -> LanguageModel:
        """Return the model; one that begins with a checkpoint of the other kind has its weights already.

        The base of an adapter is in 4 bits if `lora` says so.

        1. Without a checkpoint: the base, with a new adapter if `lora` is set.
        2. With a checkpoint of the task's kind: the same model; `load_model` loads its weights.
        3. With a full model and `lora`: a new adapter on it. With an adapter and no `lora`: its base with the adapter
           merged in.

        Raises:
            UsageError: the base cannot be used, or is too small for the task's sequences or tokenizer.
            ConfigError: the base is to be in 4 bits, and bitsandbytes is missing.
            CheckpointError: the checkpoint cannot be read.
        """
        if checkpoint is None:
            model = self._new()  # 1
        elif self.lora is not None and is_adapter(checkpoint):
            model = load_adapter(load_base(adapter_base(checkpoint), self.lora.quantize), checkpoint, self.lora)  # 2
        elif self.lora is not None:
            base = load_base(str(checkpoint), self.lora.quantize)
            model = with_lora(base, str(checkpoint.resolve()), self.lora)  # 3
        elif is_adapter(checkpoint):
            model = load_base(str(checkpoint))  # 3
        else:
            model = _of_config(checkpoint)  # 2
        self._check_sizes(model)
        return cast(LanguageModel, model)

    def _check_sizes(self, model: Any) -> None:
        context = getattr(model.config, "max_position_embeddings", None)
        if context is not None and context < self.context:
            raise UsageError(
                f"sequence_length is {self.context} tokens, but the model's context is {context}: lower sequence_length"
            )
        tokens, known = self.tokenizer.tokenizer.get_vocab_size(with_added_tokens=True), model.get_input_embeddings()
        if tokens > known.num_embeddings:
            raise UsageError(
                f"the tokenizer {self.tokenizer.found_at} has {tokens} tokens, but the model {known.num_embeddings}: "
                "give the model's own tokenizer"
            )

    def _new(self) -> Any:
        if self.base == TINY:
            if self.lora is not None:
                raise UsageError(
                    "the tiny model has random weights, and LoRA would leave them so: set lora to null, or load_from "
                    "to a run that trained all weights"
                )
            return tiny_model(self.sizes, self.tokenizer, self.context)
        model = load_base(self.base, None if self.lora is None else self.lora.quantize)
        if not self.trust_base:
            check_base(model, self.base, self.tokenizer)
        return model if self.lora is None else with_lora(model, self.base, self.lora)

    def trainable(self, model: LanguageModel) -> dict[str, nn.Parameter]:
        """Return the adapter's parameters, or all."""
        adapted = isinstance(model, PeftModel)
        return {name: weight for name, weight in model.named_parameters() if not adapted or "lora_" in name}

    def settings(self, model: LanguageModel) -> dict[str, Any]:
        """Return the base, the adapter, the tokenizer and the sizes of a tiny model."""
        return {
            "base": self.base,
            "lora": None if self.lora is None else self.lora.model_dump(),
            "tokenizer": self.tokenizer.sha256,
            "context": self.context,
            "sizes": asdict(self.sizes) if self.base == TINY else None,
        }

    def weight(self, batch: LearnedBatch) -> float:
        """Return the number of tokens that are predicted."""
        return float(count_learned(batch))

    def loss_sum(self, forward: Forward, batch: LearnedBatch) -> torch.Tensor:
        """Return the cross entropy of the predicted tokens, summed (nats)."""
        return loss_sum(forward(**model_inputs(batch)).logits, next_tokens(batch))

    def judge(self, model: LanguageModel, rows: LearnedBatch | None, device: torch.device) -> Judgement:
        """Return loss (nats a token), perplexity, and the share of tokens whose most likely prediction is right."""
        if rows is None:
            return Judgement({"held_out_rows": 0, "held_out_tokens": 0, "held_out_loss": None, "perplexity": None})
        total, right, tokens = 0.0, 0, 0
        for begin in range(0, len(rows), _ROWS_AT_ONCE):
            inputs, wanted = _slice(rows, begin, begin + _ROWS_AT_ONCE, device)
            logits = model(**inputs).logits
            total += loss_sum(logits, wanted).item()
            learned = wanted != NO_LABEL
            right += int((logits[:, :-1].argmax(-1) == wanted)[learned].sum())
            tokens += int(learned.sum())
        loss = total / tokens if tokens else math.nan
        figures = {
            "held_out_rows": len(rows),
            "held_out_tokens": tokens,
            "held_out_loss": loss if tokens else None,
            "perplexity": math.exp(min(loss, 700.0)) if tokens else None,
            "right_tokens": right / tokens if tokens else None,
        }
        named = {f"held_out/{name}": figures[name] for name in ("held_out_loss", "perplexity", "right_tokens")}
        return Judgement(figures, scalars=named)

    def save_model(self, model: LanguageModel, folder: Path) -> None:
        """Write `model_files`."""
        save_model(model, self.tokenizer, folder)

    def load_model(self, model: LanguageModel, folder: Path) -> None:
        """Load the weights; a checkpoint of the other kind was loaded by `build`."""
        if isinstance(model, PeftModel) == is_adapter(folder):
            load_weights(model, folder)


def _of_config(checkpoint: Path) -> Any:
    """Return a model of a checkpoint's sizes.

    Raises:
        CheckpointError: config.json cannot be read.
        UsageError: see `refuse_oversized`.
    """
    refuse_oversized(checkpoint, str(checkpoint))
    try:
        config = AutoConfig.from_pretrained(checkpoint, local_files_only=True, trust_remote_code=False)
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    except (OSError, ValueError, KeyError) as error:
        raise unreadable(checkpoint, error) from error


def _slice(rows: LearnedBatch, begin: int, end: int, device: torch.device) -> tuple[dict[str, Any], torch.Tensor]:
    """Return the model's inputs and the wanted tokens of some unpacked rows, without columns that are all padding."""
    wanted = next_tokens(rows)[begin:end]
    longest = max(int(rows.attention_mask[begin:end].sum(1).max()), 2)
    inputs = model_inputs(rows)
    return (
        {
            name: value[begin:end, :longest].to(device) if isinstance(value, torch.Tensor) else value
            for name, value in inputs.items()
        },
        wanted[:, : longest - 1].to(device),
    )
