"""What one checkpoint of a span predictor holds, none of it in pickle.

::

    config.json, model.safetensors    sizes and weights: `SpanPredictor.from_pretrained` takes the folder
    optimizer.safetensors             the optimizer's tensors, named `<what>.<weight's name>`
    trainer.json                      step, counters, settings, the feeds' states, and the random generators'
    manifest.json                     the rows seen, for `feedmill replay --manifest`
    manifest-1.json, ...              those of the lessons before, where the run began with easier rows
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers.utils.logging import disable_progress_bar

from consumers.reduction.model import SpanPredictor
from consumers.training.checkpoints import find_checkpoint
from schema.errors import CheckpointError

# transformers' own names for the first two
CONFIG, WEIGHTS = "config.json", "model.safetensors"
OPTIMIZER, TRAINER, MANIFEST = "optimizer.safetensors", "trainer.json", "manifest.json"
LESSON_MANIFEST = "manifest-{}.json"


@dataclass(frozen=True, eq=False)
class Learner:
    """A model and its optimizer, which are saved and loaded together."""

    model: SpanPredictor
    optimizer: torch.optim.Optimizer

    def save(self, folder: Path) -> None:
        """Write the weights, their sizes and the optimizer's tensors into a folder."""
        save_model(self.model, folder)
        tensors = {
            f"{what}.{name}": value.contiguous()
            for name, weight in self.model.named_parameters()
            for what, value in self.optimizer.state[weight].items()
        }
        save_file(tensors, folder / OPTIMIZER)

    def load(self, folder: Path) -> None:
        """Take over what `save` wrote, to the last bit.

        Raises:
            CheckpointError: a file is absent, damaged, or of another model.
        """
        try:
            self.model.load_state_dict(load_file(folder / WEIGHTS))
            self._load_optimizer(load_file(folder / OPTIMIZER))
        except (OSError, SafetensorError, RuntimeError, KeyError) as error:
            raise _unreadable(folder, error) from error

    def _load_optimizer(self, tensors: dict[str, torch.Tensor]) -> None:
        names = {weight: name for name, weight in self.model.named_parameters()}
        held: dict[str, dict[str, torch.Tensor]] = {name: {} for name in names.values()}
        for key, value in tensors.items():
            what, _, name = key.partition(".")
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
    disable_progress_bar()
    try:
        model: SpanPredictor = SpanPredictor.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, SafetensorError, RuntimeError) as error:
        raise _unreadable(folder, error) from error
    model.eval()
    return model


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """Return trainer.json or manifest.json of a checkpoint.

    Raises:
        CheckpointError: it is absent or not JSON.
    """
    try:
        told: dict[str, Any] = json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _unreadable(folder, error) from error
    return told


def write_json(folder: Path, name: str, told: dict[str, Any]) -> None:
    """Write what `read_json` reads; numbers come back to the last bit."""
    (folder / name).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def random_state() -> str:
    """Return the state of torch's generator as text."""
    return base64.b64encode(torch.get_rng_state().numpy().tobytes()).decode()


def set_random_state(state: str) -> None:
    """Take up a state that `random_state` gave."""
    torch.set_rng_state(torch.frombuffer(bytearray(base64.b64decode(state)), dtype=torch.uint8))


def _unreadable(folder: Path, error: Exception) -> CheckpointError:
    line = str(error).partition("\n")[0]
    return CheckpointError(f"the checkpoint {folder} cannot be read ({line}): use an earlier one, or train anew")
