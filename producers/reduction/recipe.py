"""The recipe of reduction runs: the cycle of term sizes and depths over chunks, and the limits of a trace."""

from __future__ import annotations

import numpy as np

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
