"""Base models: a tiny one that is made from sizes, or one in a folder or in the local cache of Hugging Face.

Nothing is downloaded, no code of a model runs, and only safetensors are read. A base model that is loaded must know
some plain English: quantised or half-loaded weights raise no error in transformers and then give nonsense.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from peft import prepare_model_for_kbit_training
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel
from transformers.utils import logging as transformers_logging

from consumers.language_model.quantization import Quantize, check_quantization, nf4
from consumers.language_model.saved_model import adapter_base, is_adapter, load_adapter
from consumers.source_code.tokenizer import LoadedTokenizer
from schema.errors import CheckpointError, UsageError

TINY = "tiny"
# The largest known models have about 130.
_MOST_LAYERS = 1024
# A word. Frequencies of words alone give 962 on newspaper text (Jurafsky and Martin, Speech and Language Processing,
# chapter 3). A quantised model that transformers loaded wrongly had over 10,000 a token.
MOST_PERPLEXITY = 1000.0
PLAIN_TEXT = (
    "The library in the old town opens at nine in the morning. On Mondays the children from the school across the "
    "street come in to read, and an old man with a grey coat brings back the books that he borrowed the week before. "
    "When it rains, the windows on the second floor are closed, and the whole building smells of paper and wet wool. "
    "Nobody speaks loudly here. If you ask for a book that is not on the shelf, the woman at the desk writes its name "
    "on a small card and tells you to come back in three days."
)


@dataclass(frozen=True, kw_only=True)
class TinySizes:
    """The sizes of the tiny model, a Llama with tied embeddings.

    Attributes:
        hidden_size: width of the model, a multiple of `heads`.
        layers: number of blocks.
        heads: attention heads of a block.
    """

    hidden_size: int = 256
    layers: int = 4
    heads: int = 4

    def __post_init__(self) -> None:
        if min(self.hidden_size, self.layers, self.heads) < 1 or self.hidden_size % (2 * self.heads):
            raise UsageError(
                f"hidden_size {self.hidden_size}, layers {self.layers} and heads {self.heads} make no model: use 1 or "
                "more of each, and a hidden_size that is an even multiple of heads"
            )


def tiny_model(sizes: TinySizes, tokenizer: LoadedTokenizer, context: int) -> PreTrainedModel:
    """Return a small Llama with weights from torch's generator.

    Args:
        sizes: of the model.
        tokenizer: gives the vocabulary.
        context: the most tokens of a sequence.
    """
    config = LlamaConfig(
        vocab_size=tokenizer.tokenizer.get_vocab_size(with_added_tokens=True),
        hidden_size=sizes.hidden_size,
        intermediate_size=sizes.hidden_size * 8 // 3,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.heads,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.end,
        pad_token_id=tokenizer.padding,
    )
    return LlamaForCausalLM(config)


def load_base(place: str, quantize: Quantize | None = None) -> PreTrainedModel:
    """Return the model of a folder, or of a name in the local cache of Hugging Face, with any adapter merged in.

    Args:
        place: the folder or name.
        quantize: load the model in 4 bits, on the GPU. Its weights are frozen, and it can carry an adapter.

    Raises:
        UsageError: there is no such model on this machine, it cannot be loaded, or it is an adapter and `quantize` is
            set, or there is no GPU for `quantize`.
        ConfigError: bitsandbytes is missing for `quantize`.
        CheckpointError: an adapter cannot be read, or is its own base.
    """
    check_quantization(quantize)
    return _loaded(place, frozenset(), quantize)


def _loaded(place: str, adapters: frozenset[Path], quantize: Quantize | None = None) -> PreTrainedModel:
    """Return a model; `adapters` are those that need it."""
    folder = local_folder(place)
    if is_adapter(folder):
        if quantize is not None:
            raise UsageError(
                f"the base {place} is an adapter, which cannot be merged into a model in 4 bits: merge it by a run "
                "with lora: null first, or leave quantize out"
            )
        if folder.resolve() in adapters:
            raise CheckpointError(f"the adapter {folder} is its own base: correct its base_model_name_or_path")
        base = _loaded(adapter_base(folder), adapters | {folder.resolve()})
        merged: PreTrainedModel = load_adapter(base, folder).merge_and_unload()
        return merged
    refuse_oversized(folder, place)
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    # Its progress bar would disturb ours.
    transformers_logging.disable_progress_bar()
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.float32 if quantize is None else torch.bfloat16,
            quantization_config=None if quantize is None else nf4(),
            output_loading_info=True,
        )
    except Exception as error:
        # The library raises errors of many classes, with lines of advice that do not apply here.
        line = str(error).strip().partition("\n")[0][:200]
        raise UsageError(
            f"the model {place} cannot be loaded ({type(error).__name__}: {line}): name a folder with config.json and "
            f"model.safetensors, a model in the local cache of Hugging Face, or {TINY}"
        ) from None
    finally:
        transformers_logging.set_verbosity(before)
    if info["missing_keys"]:
        raise UsageError(
            f"the model {place} has no weights for {len(info['missing_keys'])} of its parameters "
            f"(e.g. {sorted(info['missing_keys'])[0]}): it is not whole, so take another copy"
        )
    loaded: PreTrainedModel = model
    if quantize is not None:
        # Freezes all weights, and makes those that are not quantised float32.
        prepare_model_for_kbit_training(loaded, use_gradient_checkpointing=False)
    return loaded


def refuse_oversized(folder: Path, place: str) -> None:
    """Refuse a model whose config.json asks for far more than its weights hold, before memory is taken for it.

    Raises:
        UsageError: it has over `_MOST_LAYERS` layers, or its files have less than a bit for each parameter. A config
            that cannot be read is left to the caller.
    """
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        layers = int(getattr(config.get_text_config(), "num_hidden_layers", 0) or 0)
        if layers <= _MOST_LAYERS:
            with torch.device("meta"):
                model = AutoModelForCausalLM.from_config(config)
    except Exception:
        # The library raises errors of many classes; the model is loaded next, and then fails with a line.
        return
    if layers > _MOST_LAYERS:
        raise UsageError(f"the model {place} has {layers:,} layers, over {_MOST_LAYERS:,}: its config.json is damaged")
    parameters = sum(weight.numel() for weight in model.parameters())
    held = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    if held and parameters > 8 * held:
        raise UsageError(
            f"the model {place} has {held:,} bytes of weights, but its config.json asks for {parameters:,} parameters: "
            "take another copy"
        )


def is_folder(place: str) -> bool:
    """Return whether a folder has this name; False for what can be no name of one."""
    try:
        return Path(place).is_dir()
    except (OSError, ValueError):
        return False


def local_folder(place: str) -> Path:
    """Return the folder of a model: `place` itself, or that of a name in the local cache of Hugging Face.

    transformers asks the network about a name, even if it is told not to, but not about a folder.

    Raises:
        UsageError: there is neither.
    """
    if is_folder(place):
        return Path(place)
    try:
        return Path(snapshot_download(place, local_files_only=True))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"there is no model {place} on this machine ({type(error).__name__}): name a folder with config.json and "
            f"model.safetensors, a model in the local cache of Hugging Face, or {TINY}"
        ) from None


def check_base(model: PreTrainedModel, place: str, tokenizer: LoadedTokenizer) -> float:
    """Return the model's perplexity a word on a paragraph of plain English, which ships with the project.

    It is exp(cross entropy of all tokens but the first / number of words), so tokenizers can be compared.

    Raises:
        UsageError: it is above `MOST_PERPLEXITY`, or not a number.
    """
    tokens = torch.tensor([tokenizer.tokenizer.encode(PLAIN_TEXT).ids], device=model.device)
    if not tokens.numel():
        raise UsageError(f"the tokenizer {tokenizer.found_at} makes no token of plain English: give the model's own")
    if int(tokens.max()) >= model.get_input_embeddings().num_embeddings:
        raise UsageError(
            f"the tokenizer {tokenizer.found_at} has more tokens than the model {place}: give the model's own tokenizer"
        )
    model.eval()
    with torch.inference_mode():
        loss = model(input_ids=tokens, labels=tokens).loss.item() * (tokens.shape[1] - 1) / len(PLAIN_TEXT.split())
    perplexity = math.exp(min(loss, 700.0)) if math.isfinite(loss) else math.inf
    if not perplexity <= MOST_PERPLEXITY:
        raise UsageError(
            f"the model {place} has a perplexity of {perplexity:.3g} a word on plain English, above "
            f"{MOST_PERPLEXITY:,.0f}: it was loaded wrongly, or its tokenizer is another one. Take another copy, or "
            "say --trust-base"
        )
    return perplexity
