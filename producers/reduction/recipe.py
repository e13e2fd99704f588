"""What a reduction run generates: its parameters, and the cycles of sizes and depths that its chunks go through."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from producers.seeds import check_seed
from schema.errors import UsageError

# (depth, smallest size, largest size) of the initial terms of a chunk, by chunk number mod 10. In the first two cycles
# that depth leaves little but full trees at the largest size: there the size varies.
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

# The name of this way of drawing terms, in every row's `recipe`.
RECIPE = "uniform-closed"
# Few, so that a short run goes through many whole cycles: a trace gives some 14 examples, a cycle of ten chunks 1,100.
TRACES_PER_CHUNK = 8
# A trace of more terms contributes this many: its first, its last, and evenly between.
EXAMPLES_PER_TRACE = 32
DEFAULT_FUEL = 250
# Nodes. With about 1.5 characters a node, such a term's text still fits a window of 1,024 characters, and every cycle
# has room to grow to 3 times its size.
DEFAULT_SIZE_CAP = 600
# A trace is held whole while its examples are chosen, one byte a node; where all steps are examples, a chunk is.
_TRACE_LIMIT_BYTES = 1 << 30
_TRACE_LIMIT_ALL_STEPS_BYTES = 1 << 26


@dataclass(frozen=True)
class ReductionRun:
    """The parameters of a run; its rows depend on `seed`, `fuel`, `all_steps` and `size_cap`, and are cut at `count`.

    Attributes:
        count: examples, exactly.
        seed: 0 <= seed < 2^63.
        workers: processes; the rows and their order are the same for any number.
        fuel: beta steps a trace takes at most.
        all_steps: every reducible term of a trace, and its normal form, is an example; else 32 of them at most.
        run: the name under which records and ledger count this run; made from the seed where empty.
        size_cap: nodes of a term; a trace ends before a larger one.

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
                f"a trace of fuel {self.fuel} takes more memory than a run may: give {limit // self.size_cap} or less"
            )
        if not self.run:
            object.__setattr__(self, "run", f"reduction-{self.seed:x}")

    @property
    def examples_per_trace(self) -> int:
        """The most examples that one trace gives."""
        return self.fuel + 1 if self.all_steps else EXAMPLES_PER_TRACE
