"""The files of a span predictor's checkpoint; none of them is a pickle.

::

    config.json, model.safetensors    sizes and weights: `SpanPredictor.from_pretrained` takes the folder
    optimizer.safetensors             the optimizer's tensors, named `<moment>.<weight's name>`
    trainer.json                      step, counters, settings, states of the feeds and of the random generator
    manifest.json                     the rows seen, for `feedmill replay --manifest`
    manifest-1.json, ...              the rows seen in earlier stages, if the run began with easier rows
"""

from __future__ import annotations

import base64
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from transformers.utils.logging import disable_progress_bar

from consumers.reduction.alphabet import VOCABULARY_SIZE
from consumers.reduction.model import SpanPredictor, SpanPredictorConfig
from consumers.training.run_folder import find_checkpoint
from consumers.training.saved_run import SavedRun, SavedSizes
from schema.errors import CheckpointError

# Names that transformers sets.
CONFIG, WEIGHTS = "config.json", "model.safetensors"
OPTIMIZER, TRAINER, MANIFEST = "optimizer.safetensors", "trainer.json", "manifest.json"
STAGE_MANIFEST = "manifest-{}.json"
# Tensors that AdamW keeps for each weight.
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")

_OBJECT: TypeAdapter[dict[str, Any]] = TypeAdapter(dict[str, Any])


@dataclass(frozen=True, eq=False)
class Learner:
    """A model and its optimizer, which are saved and loaded together."""

    model: SpanPredictor
    optimizer: torch.optim.Optimizer

    def save(self, folder: Path) -> None:
        """Write the weights, their sizes and the optimizer's tensors into a folder.

        Raises:
            OSError: the disk cannot be written.
        """
        tensors = {
            f"{moment}.{name}": value.contiguous()
            for name, weight in self.model.named_parameters()
            for moment, value in self.optimizer.state[weight].items()
        }
        try:
            save_model(self.model, folder)
            save_file(tensors, folder / OPTIMIZER)
        except SafetensorError as error:
            # safetensors' error has the number only in its text: "I/O error: ... (os error 28)".
            raise OSError(str(error)) from error

    def load(self, folder: Path) -> None:
        """Load the files of `save`, exact to the last bit.

        Raises:
            CheckpointError: a file is absent, damaged, or of another model.
        """
        try:
            self.model.load_state_dict(load_file(folder / WEIGHTS))
            self._load_optimizer(load_file(folder / OPTIMIZER))
        except (OSError, SafetensorError, RuntimeError, KeyError, ValueError) as error:
            raise _unreadable(folder, error) from error

    def _load_optimizer(self, tensors: dict[str, torch.Tensor]) -> None:
        names = {weight: name for name, weight in self.model.named_parameters()}
        shapes = {name: weight.shape for weight, name in names.items()}
        moments: dict[str, dict[str, torch.Tensor]] = {name: {} for name in names.values()}
        for key, value in tensors.items():
            moment, _, name = key.partition(".")
            if moment not in _MOMENTS or value.shape not in (shapes[name], torch.Size()):
                raise ValueError(f"{OPTIMIZER} holds {key} {tuple(value.shape)}, which no weight has")
            moments[name][moment] = value
        weights = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        # torch's `load_state_dict` moves each tensor to its weight's device.
        state = {number: moments[names[weight]] for number, weight in enumerate(weights)}
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})


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
        raise _unreadable(folder, error) from error
    model.eval()
    return model


def load_config(folder: Path, **others: Any) -> SpanPredictorConfig:
    """Return the sizes in a checkpoint's config.json, some of them replaced by `others`.

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
        raise _unreadable(folder, error) from error
    return SpanPredictorConfig(**{**sizes.model_dump(exclude_unset=True), **others})


def _check_shapes(config: SpanPredictorConfig, weights: Path) -> None:
    """Raise ValueError if a file's tensors do not fit the sizes, before memory is allocated for either."""
    with torch.device("meta"):
        wanted = {name: tuple(weight.shape) for name, weight in SpanPredictor(config).state_dict().items()}
    with safe_open(weights, "pt") as file:
        stored = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118  # no mapping
    if wrong := sorted(set(wanted.items()) ^ set(stored.items())):
        raise ValueError(f"{WEIGHTS} does not fit {CONFIG}: see {wrong[0][0]}")


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """Return a JSON object of a checkpoint: config.json, trainer.json or manifest.json.

    Raises:
        CheckpointError: the file is absent or not a JSON object.
    """
    try:
        return _OBJECT.validate_json((folder / name).read_bytes())
    except (OSError, ValueError) as error:
        raise _unreadable(folder, error) from error


def read_trainer(folder: Path) -> dict[str, Any]:
    """Return trainer.json of a checkpoint: everything that a run needs to resume.

    Raises:
        CheckpointError: the file is absent, or a part of it is absent or of the wrong type.
    """
    values = read_json(folder, TRAINER)
    try:
        saved = SavedRun.model_validate(values)
    except ValueError as error:
        raise _unreadable(folder, error) from error
    return {**values, "counters": asdict(saved.counters), "budget": asdict(saved.budget)}


def write_json(folder: Path, name: str, values: dict[str, Any]) -> None:
    """Write a JSON object for `read_json`; numbers are exact to the last bit."""
    (folder / name).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def random_state() -> str:
    """Return the state of torch's generator as text."""
    return base64.b64encode(torch.get_rng_state().numpy().tobytes()).decode()


def set_random_state(folder: Path, state: str) -> None:
    """Set torch's generator to a state from `random_state`, read from the checkpoint in `folder`.

    Raises:
        CheckpointError: `state` is not such a state.
    """
    try:
        torch.set_rng_state(torch.frombuffer(bytearray(base64.b64decode(state)), dtype=torch.uint8))
    except (ValueError, RuntimeError) as error:
        raise _unreadable(folder, error) from error


def _unreadable(folder: Path, error: Exception) -> CheckpointError:
    line = str(error).partition("\n")[0]
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        line = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return CheckpointError(
        f"the checkpoint {folder} cannot be read ({line}): use an earlier checkpoint, or start a new run"
    )
