"""The files of a span predictor: its sizes in config.json and its weights in model.safetensors; neither is a pickle.

`SpanPredictor.from_pretrained` takes the folder, too. `load_model` here also checks types, sizes and shapes first.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
from pydantic import BaseModel, Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from transformers.utils.logging import disable_progress_bar

from consumers.reduction.alphabet import VOCABULARY_SIZE
from consumers.reduction.model import SpanPredictor, SpanPredictorConfig
from consumers.training.checkpoint import read_json, unreadable
from consumers.training.run_folder import find_checkpoint

# Names that transformers sets.
CONFIG, WEIGHTS = "config.json", "model.safetensors"

# Far above the sizes of any span predictor, and low enough that computing a model's shapes takes no time.
_Size = Annotated[int, Field(ge=1, le=1 << 16, strict=True)]
_Layers = Annotated[int, Field(ge=0, le=256, strict=True)]


class SavedSizes(BaseModel):
    """The sizes of a span predictor, as in `SpanPredictorConfig`; other keys of config.json are ignored."""

    hidden_size: _Size = 1
    num_hidden_layers: _Layers = 0
    num_attention_layers: _Layers = 0
    num_attention_heads: _Size = 1
    head_dim: _Size = 1
    counter_channels: _Size = 1
    intermediate_size: _Size = 1
    rope_theta: Annotated[float, Field(gt=0, le=1e12)] = 1.0


def save_model(model: SpanPredictor, folder: Path) -> None:
    """Write config.json and model.safetensors into a folder."""
    # transformers' progress bar would disturb ours.
    disable_progress_bar()
    model.save_pretrained(folder)


def load_model(path: Path) -> SpanPredictor:
    """Return the model of a checkpoint, for evaluation.

    Args:
        path: a checkpoint, or a run's folder, whose newest checkpoint is loaded.

    Raises:
        CheckpointError: there is no checkpoint, or it cannot be read.
    """
    folder = find_checkpoint(path)
    config = load_config(folder)
    try:
        _check_shapes(config, folder / WEIGHTS)
        model = SpanPredictor(config)
        model.load_state_dict(load_file(folder / WEIGHTS))
    except (OSError, ValueError, SafetensorError, RuntimeError) as error:
        raise unreadable(folder, error) from error
    model.eval()
    return model


def load_config(folder: Path) -> SpanPredictorConfig:
    """Return the sizes in a checkpoint's config.json.

    transformers' own reader also accepts names of types, of kernels to download and of other models' folders from that
    file. This reader accepts only the model's sizes.

    Raises:
        CheckpointError: the file is absent, of another model, or holds a size that no span predictor has.
    """
    config = read_json(folder, CONFIG)
    try:
        if config.get("model_type") != SpanPredictorConfig.model_type:
            raise ValueError(f"{CONFIG} is of a model of type {config.get('model_type')!r}")
        if config.get("vocab_size") != VOCABULARY_SIZE:
            raise ValueError(f"{CONFIG} has vocab_size {config.get('vocab_size')!r}, not {VOCABULARY_SIZE}")
        sizes = SavedSizes.model_validate(config)
    except ValueError as error:
        raise unreadable(folder, error) from error
    return SpanPredictorConfig(**sizes.model_dump(exclude_unset=True))


def _check_shapes(config: SpanPredictorConfig, weights: Path) -> None:
    """Raise ValueError if a file's tensors do not fit the sizes, before memory is allocated for either."""
    with torch.device("meta"):
        wanted = {name: tuple(weight.shape) for name, weight in SpanPredictor(config).state_dict().items()}
    with safe_open(weights, "pt") as file:
        stored = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118  # no mapping
    if wrong := sorted(set(wanted.items()) ^ set(stored.items())):
        raise ValueError(f"{WEIGHTS} does not fit {CONFIG}: see {wrong[0][0]}")
