"""A model and its optimizer: one update from micro-batches, and their files in a checkpoint.

The gradient of an update is that of (sum of losses) / (sum of weights) over all micro-batches of all ranks. So the way
in which rows are divided into micro-batches and ranks changes an update by rounding at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_

from consumers.batches import Batch
from consumers.training.checkpoint import OPTIMIZER, unreadable
from consumers.training.options import Execution, Optimisation
from consumers.training.ranks import Ranks
from consumers.training.task import AnyTask, Judgement
from schema.errors import UsageError

# Tensors that AdamW keeps for each weight.
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Update:
    """One optimizer step.

    Attributes:
        loss: sum of this rank's losses.
        weight: sum of the weights of all ranks.
        gradient_norm: of the global gradient, before clipping.
    """

    loss: float
    weight: float
    gradient_norm: float


class Learner:
    """A model and the optimizer of its trainable parameters; all other parameters are frozen.

    Args:
        task: the task that built the model.
        model: the model, on the device of this rank.
        optimisation: settings of the optimizer.
        ranks: this process and the other ranks.

    Raises:
        UsageError: the task has no trainable parameter.
    """

    def __init__(self, task: AnyTask, model: nn.Module, optimisation: Optimisation, ranks: Ranks) -> None:
        self.model = model
        self._task, self._optimisation, self._ranks = task, optimisation, ranks
        self._trained: dict[str, nn.Parameter] = task.trainable(model)
        if not self._trained:
            raise UsageError(f"the model of {task.family} has no trainable parameter: the task must name some")
        for weight in model.parameters():
            weight.requires_grad_(False)
        for weight in self._trained.values():
            weight.requires_grad_(True)
        self.optimizer = _optimizer(list(self._trained.values()), optimisation)
        self._wrapped: nn.Module = model

    def prepare(self, execution: Execution) -> None:
        """Make the model ready for updates: compiled, and wrapped for the ranks.

        Raises:
            UsageError: the model cannot do what `execution` asks for.
        """
        if execution.gradient_checkpointing:
            enable = getattr(self.model, "gradient_checkpointing_enable", None)
            if enable is None:
                raise UsageError(
                    f"the model of {self._task.family} has no gradient checkpointing: leave gradient_checkpointing out"
                )
            enable()
        if execution.compile:
            self.model.compile(dynamic=True)
        self._wrapped = self._ranks.wrap(self.model)

    def update(self, batches: Sequence[Batch], learning_rate: float) -> Update:
        """Take one optimizer step on micro-batches; every rank passes as many of them.

        1. Sum the weights of all micro-batches over all ranks.
        2. Run each micro-batch forward and backward; its losses are divided by that sum. Ranks exchange gradients once.
        3. Clip the gradient and step.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        own = torch.tensor([sum(self._task.weight(batch) for batch in batches)], dtype=torch.float64)
        weight = float(self._ranks.sum(own))  # 1
        # Gradients are averaged over the ranks, so the mean is multiplied by their number.
        scale = self._ranks.world / weight if weight else 0.0
        losses = []
        for number, batch in enumerate(batches, start=1):  # 2
            with self._exchange(last=number == len(batches)):
                loss = self._task.loss_sum(self._forward, batch.to(self._ranks.device))
                (loss * scale).backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
        norm = clip_grad_norm_(self._trained.values(), self._optimisation.clip_norm)  # 3
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return Update(sum(loss.item() for loss in losses), weight, norm.item())

    def judge(self, rows: Batch | None) -> Judgement:
        """Judge the model as it is now on held-out rows; its training mode is restored."""
        was_training = self.model.training
        self.model.eval()
        try:
            with torch.inference_mode(), self._autocast():
                judgement: Judgement = self._task.judge(self.model, rows, self._ranks.device)
        finally:
            self.model.train(was_training)
        return judgement

    def save(self, folder: Path) -> None:
        """Write the model's files and the optimizer's tensors into a folder.

        Raises:
            OSError: the disk cannot be written.
        """
        tensors = {
            f"{moment}.{name}": value.contiguous()
            for name, weight in self._trained.items()
            for moment, value in self.optimizer.state[weight].items()
        }
        try:
            self._task.save_model(self.model, folder)
            save_file(tensors, folder / OPTIMIZER)
        except SafetensorError as error:
            # safetensors' error has the number only in its text: "I/O error: ... (os error 28)".
            raise OSError(str(error)) from error

    def load(self, folder: Path) -> None:
        """Load the files of `save`, exact to the last bit.

        Raises:
            CheckpointError: a file is absent, damaged, or of another model.
        """
        self.load_model(folder)
        try:
            self._load_optimizer(load_file(folder / OPTIMIZER))
        except (OSError, SafetensorError, RuntimeError, KeyError, ValueError) as error:
            raise unreadable(folder, error) from error

    def load_model(self, folder: Path) -> None:
        """Load the model's files of `save` alone; the optimizer stays as it is.

        Raises:
            CheckpointError: a file is absent, damaged, or of another model.
        """
        try:
            self._task.load_model(self.model, folder)
        except (OSError, SafetensorError, RuntimeError, KeyError, ValueError) as error:
            raise unreadable(folder, error) from error

    def _load_optimizer(self, tensors: dict[str, torch.Tensor]) -> None:
        names = {weight: name for name, weight in self._trained.items()}
        moments: dict[str, dict[str, torch.Tensor]] = {name: {} for name in self._trained}
        for key, value in tensors.items():
            moment, _, name = key.partition(".")
            if moment not in _MOMENTS or value.shape not in (self._trained[name].shape, torch.Size()):
                raise ValueError(f"{OPTIMIZER} holds {key} {tuple(value.shape)}, which no weight has")
            moments[name][moment] = value
        weights = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        # torch's `load_state_dict` moves each tensor to its weight's device.
        state = {number: moments[names[weight]] for number, weight in enumerate(weights)}
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})

    def _forward(self, *args: Any, **named: Any) -> Any:
        with self._autocast():
            return self._wrapped(*args, **named)

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self._ranks.device.type, torch.bfloat16, enabled=self._optimisation.bf16)

    def _exchange(self, *, last: bool) -> AbstractContextManager[Any]:
        """Return the context of a micro-batch: ranks exchange their gradients only after the last one."""
        if last or not isinstance(self._wrapped, DistributedDataParallel):
            return nullcontext()
        return self._wrapped.no_sync()


def _optimizer(weights: list[nn.Parameter], options: Optimisation) -> torch.optim.Optimizer:
    """Return AdamW with weight decay on matrices only, not on norms and biases."""
    groups = [
        {"params": [weight for weight in weights if weight.ndim > 1], "weight_decay": options.weight_decay},
        {"params": [weight for weight in weights if weight.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=options.learning_rate, betas=options.betas, fused=True)
