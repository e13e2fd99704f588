"""The length of a training run, and the learning rate that depends on it: warm-up, then a cosine down to 0.

Pure functions of the steps taken and the seconds spent. A budget of steps alone gives the same rates on every run; a
budget of seconds does not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from schema.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Limits of a run in steps and seconds; the limit that is reached first ends the run.

    Attributes:
        steps: optimizer steps; None for no limit.
        seconds: of the loop, including time before a resume, held-out judgements and checkpoints; None for no limit.

    Raises:
        UsageError: there is no limit, or a limit is not above 0.
    """

    steps: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        if self.steps is None and self.seconds is None:
            raise UsageError("training needs a limit: give steps, minutes or both")
        if (self.steps is not None and self.steps < 1) or (self.seconds is not None and self.seconds <= 0):
            raise UsageError(
                f"training needs at least 1 step and more than 0 seconds, not steps {self.steps} and seconds "
                f"{self.seconds}: raise the limit"
            )

    def is_over(self, steps: int, elapsed_s: float) -> bool:
        """Whether the budget is used up after this many steps and seconds."""
        return self.spent(steps, elapsed_s) >= 1

    def spent(self, steps: int, elapsed_s: float) -> float:
        """Return the share of the budget that is used up: the larger of the two shares, of steps and of seconds."""
        of_steps = 0.0 if self.steps is None else steps / self.steps
        return max(of_steps, 0.0 if self.seconds is None else elapsed_s / self.seconds)

    def rate(self, steps: int, elapsed_s: float, warmup_steps: int) -> float:
        """Return the next step's learning rate as a share of the highest, in [0, 1].

        It rises for `warmup_steps`, at most a quarter of the steps. Then it falls along half a cosine (Loshchilov and
        Hutter, arXiv:1608.03983) over the remaining steps, or over the seconds if they run out sooner.
        """
        warmup = warmup_steps if self.steps is None else min(warmup_steps, self.steps // 4)
        spent = 0.0
        if self.steps is not None:
            spent = max(0.0, steps - warmup) / max(1, self.steps - warmup)
        if self.seconds is not None:
            spent = max(spent, elapsed_s / self.seconds)
        rise = min(1.0, (steps + 1) / max(1, warmup))
        return rise * (1 + math.cos(math.pi * min(1.0, spent))) / 2
