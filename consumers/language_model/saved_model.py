"""The files of a language model: those of transformers or of a peft adapter, and its tokenizer; none is a pickle.

A full model is config.json, generation_config.json and model.safetensors. An adapter is adapter_config.json and
adapter_model.safetensors. transformers' `AutoModelForCausalLM.from_pretrained` takes both. An adapter's file is checked
here, because peft would import a library that it names.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from consumers.language_model.quantization import Quantize
from consumers.source_code.tokenizer import FILE as TOKENIZER
from consumers.source_code.tokenizer import LoadedTokenizer
from consumers.training.checkpoint import read_json, unreadable
from schema.errors import UsageError

CONFIG, WEIGHTS, GENERATION = "config.json", "model.safetensors", "generation_config.json"
ADAPTER, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
TOKENIZER_CONFIG = "tokenizer_config.json"
_TOKENIZER_FILES = (TOKENIZER, TOKENIZER_CONFIG)
FULL_FILES = (CONFIG, GENERATION, WEIGHTS, *_TOKENIZER_FILES)
ADAPTER_FILES = (ADAPTER, ADAPTER_WEIGHTS, *_TOKENIZER_FILES)


class Lora(BaseModel):
    """Settings of LoRA (Hu et al., arXiv:2106.09685) on all linear layers but the last.

    Attributes:
        r: rank of the update of each layer.
        alpha: the update is multiplied by alpha / r.
        dropout: share of a layer's inputs that the update does not see in training.
        quantize: keeps the base in 4 bits while the adapter is trained; see `consumers.language_model.quantization`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    r: Annotated[int, Field(ge=1, le=1024)] = 16
    alpha: Annotated[int, Field(ge=1, le=1 << 16)] = 16
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.05
    quantize: Quantize | None = None


class _AdapterFile(BaseModel):
    """The keys of adapter_config.json that are read; the others must be absent or as peft writes them for `Lora`."""

    peft_type: Literal["LORA"]
    task_type: Literal["CAUSAL_LM"]
    base_model_name_or_path: Annotated[str, Field(min_length=1, max_length=4096)]
    r: Annotated[int, Field(ge=1, le=1024)]
    lora_alpha: Annotated[int, Field(ge=1, le=1 << 16)]
    lora_dropout: Annotated[float, Field(ge=0, lt=1)]
    target_modules: Annotated[list[Annotated[str, Field(max_length=200)]], Field(max_length=10_000)]
    use_dora: Literal[False] = False
    use_rslora: Literal[False] = False
    bias: Literal["none"] = "none"
    modules_to_save: None = None


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter, not a full model."""
    return (folder / ADAPTER).is_file()


def adapter_base(folder: Path) -> str:
    """Return the folder or name of an adapter's base model.

    Raises:
        CheckpointError: adapter_config.json cannot be read, or is of another kind of adapter.
    """
    return _read_adapter(folder).base_model_name_or_path


def with_lora(base: PreTrainedModel, place: str, lora: Lora) -> PeftModel:
    """Return a base model with a new adapter, whose weights come from torch's generator.

    Args:
        base: the model; its weights are frozen.
        place: the folder or name of the base model, which the adapter's file names.
        lora: settings of the adapter.
    """
    config = LoraConfig(
        r=lora.r, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    model: PeftModel = get_peft_model(base, config)
    model.peft_config["default"].base_model_name_or_path = place
    return model


def load_adapter(base: PreTrainedModel, folder: Path, lora: Lora | None = None) -> PeftModel:
    """Return a base model with the adapter of a folder.

    Args:
        base: the adapter's base model.
        folder: of the adapter.
        lora: the settings with which it will be trained; its dropout replaces the saved one. None keeps the saved one.

    Raises:
        UsageError: `lora` has another rank or alpha than the adapter.
        CheckpointError: the adapter cannot be read, or is of another model.
    """
    saved = _read_adapter(folder)
    if lora is not None and (lora.r, lora.alpha) != (saved.r, saved.lora_alpha):
        raise UsageError(
            f"the adapter {folder} has r {saved.r} and alpha {saved.lora_alpha}, but r {lora.r} and alpha {lora.alpha} "
            "are asked for: ask for the same values, or merge it by a run with lora: null first"
        )
    config = LoraConfig(
        r=saved.r,
        lora_alpha=saved.lora_alpha,
        lora_dropout=saved.lora_dropout if lora is None else lora.dropout,
        target_modules=saved.target_modules,
        task_type="CAUSAL_LM",
    )
    try:
        model: PeftModel = get_peft_model(base, config)
    except ValueError as error:
        raise unreadable(folder, error) from error
    model.peft_config["default"].base_model_name_or_path = saved.base_model_name_or_path
    try:
        load_weights(model, folder)
    except (OSError, SafetensorError, RuntimeError, KeyError) as error:
        raise unreadable(folder, error) from error
    return model


def save_model(model: PreTrainedModel | PeftModel, tokenizer: LoadedTokenizer, folder: Path) -> None:
    """Write the files of a model and of its tokenizer into a folder.

    Raises:
        OSError, SafetensorError: the disk cannot be written.
    """
    # transformers' progress bar would disturb ours.
    disable_progress_bar()
    if isinstance(model, PeftModel):
        model.peft_config["default"].save_pretrained(str(folder))
        save_file(
            {name: value.contiguous() for name, value in get_peft_model_state_dict(model).items()},
            folder / ADAPTER_WEIGHTS,
        )
    else:
        model.save_pretrained(folder)
    (folder / TOKENIZER).write_text(tokenizer.text, encoding="utf-8")
    names = tokenizer.tokenizer.id_to_token
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": names(tokenizer.end),
        "pad_token": names(tokenizer.padding),
        "clean_up_tokenization_spaces": False,
    }
    (folder / TOKENIZER_CONFIG).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def load_weights(model: PreTrainedModel | PeftModel, folder: Path) -> None:
    """Load the weights of `save_model` into a model of the same kind and sizes, exact to the last bit.

    Raises:
        OSError, SafetensorError, RuntimeError, KeyError: a file is absent, damaged, or of another model.
    """
    if isinstance(model, PeftModel):
        tensors = load_file(folder / ADAPTER_WEIGHTS)
        wanted = set(get_peft_model_state_dict(model))
        if set(tensors) != wanted:
            raise KeyError(f"{ADAPTER_WEIGHTS} holds other weights than the adapter has")
        set_peft_model_state_dict(model, tensors)
        return
    tensors = load_file(folder / WEIGHTS)
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    if unexpected or set(missing) - set(model._tied_weights_keys or ()):
        raise KeyError(f"{WEIGHTS} holds other weights than the model has")


def _read_adapter(folder: Path) -> _AdapterFile:
    values: dict[str, Any] = read_json(folder, ADAPTER)
    try:
        return _AdapterFile.model_validate(values)
    except ValueError as error:
        raise unreadable(folder, error) from error
