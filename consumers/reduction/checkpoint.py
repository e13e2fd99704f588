"""What one checkpoint of a span predictor holds, none of it in pickle.

::

    config.json, model.safetensors    sizes and weights: `SpanPredictor.from_pretrained` takes the folder
    optimizer.safetensors             the optimizer's tensors, named `<what>.<weight's name>`
    trainer.json                      step, counters, settings, the feeds' states, and the random generators'
    manifest.json                     the rows seen, for `feedmill replay --manifest`
    manifest-1.json, ...              those of the stages before, where the run began with easier rows
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

from consumers.reduction.form import VOCABULARY_SIZE
from consumers.reduction.model import SpanPredictor, SpanPredictorConfig
from consumers.reduction.saved_run import SavedRun, SavedSizes
from consumers.training.checkpoints import find_checkpoint
from schema.errors import CheckpointError

# transformers' own names for the first two
CONFIG, WEIGHTS = "config.json", "model.safetensors"
OPTIMIZER, TRAINER, MANIFEST = "optimizer.safetensors", "trainer.json", "manifest.json"
STAGE_MANIFEST = "manifest-{}.json"
# What AdamW keeps of each weight.
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
            OSError: the disk does not take them.
        """
        tensors = {
            f"{what}.{name}": value.contiguous()
            for name, weight in self.model.named_parameters()
            for what, value in self.optimizer.state[weight].items()
        }
        try:
            save_model(self.model, folder)
            save_file(tensors, folder / OPTIMIZER)
        except SafetensorError as error:
            # It says "I/O error: ... (os error 28)" and keeps no number.
            raise OSError(str(error)) from error

    def load(self, folder: Path) -> None:
        """Take over what `save` wrote, to the last bit.

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
        held: dict[str, dict[str, torch.Tensor]] = {name: {} for name in names.values()}
        for key, value in tensors.items():
            what, _, name = key.partition(".")
            if what not in _MOMENTS or value.shape not in (shapes[name], torch.Size()):
                raise ValueError(f"{OPTIMIZER} holds {key} {tuple(value.shape)}, which no weight has")
            held[name][what] = value
        weights = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        # Through torch's own form, which puts each tensor where its weight is.
        state = {number: held[names[weight]] for number, weight in enumerate(weights)}
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})


def save_model(model: SpanPredictor, folder: Path) -> None:
    """Write config.json and model.safetensors into a folder."""
    # Its bar for a file of a few megabytes would break into ours.
    disable_progress_bar()
    model.save_pretrained(folder)


def load_model(path: Path) -> SpanPredictor:
    """Return the model of a checkpoint, for evaluation.

    Args:
        path: a run's folder, which means its newest checkpoint, or one checkpoint.

    Raises:
        CheckpointError: there is none, or it cannot be read.
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

    transformers' own reader takes more from that file: names of types, of kernels to fetch and of other models'
    folders. Here nothing counts but our own numbers.

    Raises:
        CheckpointError: the file is absent, of another model, or holds a size that no span predictor has.
    """
    told = read_json(folder, CONFIG)
    try:
        if told.get("model_type") != SpanPredictorConfig.model_type:
            raise ValueError(f"{CONFIG} is of a model of type {told.get('model_type')!r}")
        if told.get("vocab_size") != VOCABULARY_SIZE:
            raise ValueError(f"{CONFIG} has vocab_size {told.get('vocab_size')!r}, and this build {VOCABULARY_SIZE}")
        sizes = SavedSizes.model_validate(told)
    except ValueError as error:
        raise _unreadable(folder, error) from error
    return SpanPredictorConfig(**{**sizes.model_dump(exclude_unset=True), **others})


def _check_shapes(config: SpanPredictorConfig, weights: Path) -> None:
    """Raise ValueError where a file's tensors are not those of such a model, before memory is taken for either."""
    with torch.device("meta"):
        wanted = {name: tuple(weight.shape) for name, weight in SpanPredictor(config).state_dict().items()}
    with safe_open(weights, "pt") as file:
        found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118  # no mapping
    if wrong := sorted(set(wanted.items()) ^ set(found.items())):
        raise ValueError(f"{WEIGHTS} does not fit {CONFIG}: see {wrong[0][0]}")


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """Return a JSON object of a checkpoint: config.json, trainer.json or manifest.json.

    Raises:
        CheckpointError: it is absent or no JSON object.
    """
    try:
        return _OBJECT.validate_json((folder / name).read_bytes())
    except (OSError, ValueError) as error:
        raise _unreadable(folder, error) from error


def read_trainer(folder: Path) -> dict[str, Any]:
    """Return trainer.json of a checkpoint, with everything that a run needs to go on.

    Raises:
        CheckpointError: the file is absent, or a part of it is absent or of the wrong type.
    """
    told = read_json(folder, TRAINER)
    try:
        saved = SavedRun.model_validate(told)
    except ValueError as error:
        raise _unreadable(folder, error) from error
    return {**told, "counters": asdict(saved.counters), "budget": asdict(saved.budget)}


def write_json(folder: Path, name: str, told: dict[str, Any]) -> None:
    """Write what `read_json` reads; numbers come back to the last bit."""
    (folder / name).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def random_state() -> str:
    """Return the state of torch's generator as text."""
    return base64.b64encode(torch.get_rng_state().numpy().tobytes()).decode()


def set_random_state(folder: Path, state: str) -> None:
    """Take up a state that `random_state` gave, from the checkpoint in a folder.

    Raises:
        CheckpointError: it is no such state.
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
    return CheckpointError(f"the checkpoint {folder} cannot be read ({line}): use an earlier one, or train anew")
