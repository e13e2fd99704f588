"""How often a pass takes each sequence: its weight on average, decided by a hash and not by chance.

A sequence of weight w comes floor(w) times, and once more if hash(example_id, part, epoch, seed) is below the fraction
of w. So its expected count is w. The counts of N sequences with weights w_i add up to sum(w_i), with a standard
deviation of sqrt(sum(f_i * (1 - f_i))) for the fractions f_i: at most sqrt(N) / 2.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from consumers.tensor_form import Indices
from schema.errors import FeedError
from schema.splitmix import nth

# A larger weight is a mistake: one row would fill windows.
MOST_WEIGHT = 100.0

Words = npt.NDArray[np.uint64]


def draws(example_ids: Words, parts: Indices, seed: int, epoch: int) -> Words:
    """Return a random number (N,) for each sequence, the same for the same id, part, seed and epoch.

    Args:
        example_ids: (N,) uint64.
        parts: (N,) int64, numbers of the sequences within their rows.
        seed: the feed's seed.
        epoch: number of the pass.
    """
    state = np.zeros(1, dtype=np.uint64)
    for word in (seed, epoch):
        state = nth(state ^ np.uint64(word % 2**64), 1)
    return nth(nth(example_ids ^ state, 1), parts + 1)


def copies(weights: npt.NDArray[np.float64], drawn: Words) -> Indices:
    """Return how often each sequence comes (N,).

    Args:
        weights: (N,) from 0 to `MOST_WEIGHT`.
        drawn: (N,) the sequences' `draws`.

    Raises:
        FeedError: a weight is outside this range, or missing (NaN).
    """
    wrong = ~((weights >= 0) & (weights <= MOST_WEIGHT))
    if wrong.any():
        raise FeedError(
            f"a row has the weight {weights[wrong][0]:g}, but weights must be 0 to {MOST_WEIGHT:g}: keep the row out "
            "with `where`, or name another weight_column"
        )
    whole = np.floor(weights)
    # The upper 53 bits make a float from 0 to below 1.
    below = (drawn >> np.uint64(11)).astype(np.float64) * 2.0**-53 < weights - whole
    return whole.astype(np.int64) + below
