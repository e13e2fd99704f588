"""How long a training run may last, and how its learning rate follows: warm-up, then a cosine down to 0.

Pure functions of the steps taken and the seconds spent. A budget of steps alone gives the same rates whatever the
machine does meanwhile; one that names seconds cannot.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from schema.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What may be spent; whichever of the two ends first ends the run.

    Attributes:
        steps: optimizer steps; None for no limit.
        seconds: of the loop, those before a resume too, held-out judgements and checkpoints included; None for no
            limit.

    Raises:
        UsageError: there is no limit, or one that leaves nothing to do.
    """

    steps: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        if self.steps is None and self.seconds is None:
            raise UsageError("training needs an end: give steps, minutes or both")
        if (self.steps is not None and self.steps < 1) or (self.seconds is not None and self.seconds <= 0):
            raise UsageError("training needs at least one step and more than no time")

    def is_over(self, steps: int, elapsed_s: float) -> bool:
        """Whether nothing is left after so many steps and seconds."""
        return self.spent(steps, elapsed_s) >= 1

    def spent(self, steps: int, elapsed_s: float) -> float:
        """Return the share of the budget that so many steps and seconds are; of steps or seconds, the larger."""
        of_steps = 0.0 if self.steps is None else steps / self.steps
        return max(of_steps, 0.0 if self.seconds is None else elapsed_s / self.seconds)

    def rate(self, steps: int, elapsed_s: float, warmup_steps: int) -> float:
        """Return the next step's learning rate as a share of the highest, in [0, 1].

        It rises for `warmup_steps`, at most a quarter of the steps, and falls along half a cosine (Loshchilov and
        Hutter, arXiv:1608.03983) over what is left of the steps, or over the seconds where they run out sooner.
        """
        warmup = warmup_steps if self.steps is None else min(warmup_steps, self.steps // 4)
        spent = 0.0
        if self.steps is not None:
            spent = max(0.0, steps - warmup) / max(1, self.steps - warmup)
        if self.seconds is not None:
            spent = max(spent, elapsed_s / self.seconds)
        rise = min(1.0, (steps + 1) / max(1, warmup))
        return rise * (1 + math.cos(math.pi * min(1.0, spent))) / 2
