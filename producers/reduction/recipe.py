"""Parameters of a reduction run, and the cycle of term sizes and depths over its chunks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from producers.seeds import check_seed
from schema.errors import UsageError

# (depth, smallest size, largest size) of the initial terms of a chunk, by chunk number mod 10. The size varies in the
# first two cycles, because at their largest size almost all terms of that depth are full trees.
SHAPES = np.array(
    [
        (6, 40, 80),
        (7, 50, 100),
        (8, 120, 120),
        (9, 140, 140),
        (10, 160, 160),
        (11, 180, 180),
        (12, 200, 200),
        (13, 150, 150),
        (14, 130, 130),
        (15, 110, 110),
    ],
    dtype=np.int64,
)
SHAPES.setflags(write=False)
CYCLES = len(SHAPES)
LARGEST_SIZE = int(SHAPES[:, 2].max())

# The value of the `recipe` column in every row of a run.
RECIPE = "uniform-closed"
# Few, so that a short run has many whole cycles: a trace gives about 14 examples, a cycle of ten chunks about 1,100.
TRACES_PER_CHUNK = 8
# A longer trace gives this many examples: its first term, its last, and terms evenly spaced between.
EXAMPLES_PER_TRACE = 32
DEFAULT_FUEL = 250
# Nodes. At about 1.5 characters a node, such a term still fits a window of 1,024 characters, and every initial term can
# grow to 3 times its size.
DEFAULT_SIZE_CAP = 600
# A whole trace is in memory while its examples are chosen, one byte a node; with `all_steps`, a whole chunk is.
_TRACE_LIMIT_BYTES = 1 << 30
_TRACE_LIMIT_ALL_STEPS_BYTES = 1 << 26


@dataclass(frozen=True)
class ReductionRun:
    """The parameters of a run; its rows depend on `seed`, `fuel`, `all_steps` and `size_cap`, and are cut at `count`.

    Attributes:
        count: examples, exactly.
        seed: 0 <= seed < 2^63.
        workers: processes; the rows and their order are the same for any number.
        fuel: the most beta steps of a trace.
        all_steps: if true, every reducible term of a trace and its normal form are examples; else at most 32 of them.
        run: the run's name in records and ledger; if empty, it is made from the seed.
        size_cap: the most nodes of a term; a trace ends before a larger term.

    Raises:
        UsageError: a value is out of range.
    """

    count: int
    seed: int
    workers: int = 1
    fuel: int = DEFAULT_FUEL
    all_steps: bool = False
    run: str = ""
    size_cap: int = DEFAULT_SIZE_CAP

    def __post_init__(self) -> None:
        for name, low in (("count", 0), ("workers", 1), ("fuel", 1), ("size_cap", LARGEST_SIZE)):
            if getattr(self, name) < low:
                raise UsageError(f"{name} is {getattr(self, name)}: give {low} or more")
        check_seed(self.seed)
        limit = _TRACE_LIMIT_ALL_STEPS_BYTES if self.all_steps else _TRACE_LIMIT_BYTES
        if self.fuel * self.size_cap > limit:
            raise UsageError(
                f"fuel is {self.fuel}, and a trace of that many steps needs too much memory: give a fuel of "
                f"{limit // self.size_cap} or less"
            )
        if not self.run:
            object.__setattr__(self, "run", f"reduction-{self.seed:x}")

    @property
    def examples_per_trace(self) -> int:
        """The most examples that one trace gives."""
        return self.fuel + 1 if self.all_steps else EXAMPLES_PER_TRACE
