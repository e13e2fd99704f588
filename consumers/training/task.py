"""The interface of a trainer: `TrainTask` says what the training loop must know about one kind of model.

The loop, the checkpoints, the ranks and the reports are the same for every family. To add a trainer:

1. Write a class with the members of `TrainTask` beside the family's model (`consumers/reduction/task.py` is one).
2. Call `consumers.training.run.train` with the task, a `Feed` of its family, and `TrainOptions`.
3. Add the command `feedmill train FAMILY` (`feedmill/train_commands.py`).

Losses are sums with weights. A step's gradient is that of (sum of losses) / (sum of weights), over all micro-batches of
all ranks. It is therefore the same however the rows are divided.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import nn

from consumers.batches import Batch

ModelType = TypeVar("ModelType", bound=nn.Module)
BatchType = TypeVar("BatchType", bound=Batch, contravariant=True)


@dataclass(frozen=True)
class Judgement:
    """A model's results on held-out rows, all of them JSON values.

    Attributes:
        figures: metrics by key, for training.json and the JSON object of the command.
        samples: examples with the model's answers, for display only.
        scalars: values for TensorBoard by tag; None is not plotted.
        texts: Markdown for TensorBoard by tag.
    """

    figures: dict[str, Any]
    samples: list[dict[str, Any]] = field(default_factory=list)
    scalars: dict[str, float | None] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)


class Forward(Protocol):
    """Calls the model in training mode, in bfloat16 if the run uses it, with the arguments of its `forward`."""

    def __call__(self, *args: Any, **named: Any) -> Any:
        """Return the model's output."""
        ...


class TrainTask(Protocol[ModelType, BatchType]):
    """What the training loop must know about one kind of model. A task keeps no state of the run."""

    @property
    def family(self) -> str:
        """The family whose batches the task takes; messages name the command `feedmill train FAMILY`."""
        ...

    @property
    def model_files(self) -> tuple[str, ...]:
        """Names of the files that `save_model` writes; after the run they are copied to the top of its folder."""
        ...

    def build(self, checkpoint: Path | None) -> ModelType:
        """Return the model on the CPU.

        Weights that are drawn come from torch's generator, which the loop has seeded, so that every rank draws the
        same. With a checkpoint the model has its sizes; the loop calls `load_model` for the weights.

        Raises:
            CheckpointError: the checkpoint cannot be read, or holds a model of another type.
            UsageError: the task was given a size that differs from the checkpoint's; the line names both values.
        """
        ...

    def trainable(self, model: ModelType) -> dict[str, nn.Parameter]:
        """Return the parameters to train, by name.

        The optimizer has only these, and its file in the checkpoint uses the names. The loop freezes all others.
        """
        ...

    def settings(self, model: ModelType) -> dict[str, Any]:
        """Return the settings of the task that a resumed run must share, by name, as JSON values."""
        ...

    def weight(self, batch: BatchType) -> float:
        """Return the weight of a batch's losses: its rows, or its target tokens.

        It is called before the model, because the losses of a step are divided by the weight of all its batches.
        """
        ...

    def loss_sum(self, forward: Forward, batch: BatchType) -> torch.Tensor:
        """Return the sum of a batch's losses, a float32 scalar with a gradient; call `forward` exactly once.

        The sum is not divided by anything. A batch without rows, which a rank may get, has loss 0 and gradient 0.
        """
        ...

    def judge(self, model: ModelType, rows: BatchType | None, device: torch.device) -> Judgement:
        """Return the model's results on held-out rows.

        The model is in evaluation mode and no gradient is recorded. The loop calls this on rank 0 only.

        Args:
            model: the model itself, on `device`.
            rows: all held-out rows in one batch, on the CPU, to be cut as memory allows; None if there are none.
            device: of the model.
        """
        ...

    def save_model(self, model: ModelType, folder: Path) -> None:
        """Write `model_files` into a folder: everything that `build` and `load_model` read; no pickle.

        Raises:
            OSError, SafetensorError: the disk cannot be written.
        """
        ...

    def load_model(self, model: ModelType, folder: Path) -> None:
        """Load the weights of `save_model` into a model that `build` made, exact to the last bit.

        Raises:
            OSError, SafetensorError, RuntimeError, KeyError, ValueError: a file is absent, damaged, or of another
                model; the loop adds the checkpoint's name.
        """
        ...


AnyTask = TrainTask[Any, Any]
