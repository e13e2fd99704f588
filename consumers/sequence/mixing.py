"""How many rows each source gives to a window: exact shares in whole rows, in every window."""

from __future__ import annotations

from fractions import Fraction

# A weight such as 0.1 means 1/10, not the nearest binary fraction.
_FINEST = 1_000_000


def shares(weights: list[float]) -> list[Fraction]:
    """Return each weight's part of the whole; they add up to 1."""
    exact = [Fraction(weight).limit_denominator(_FINEST) or Fraction(weight) for weight in weights]
    return [each / sum(exact) for each in exact]


def quotas(weights: list[float], rows: int) -> list[int]:
    """Return how many of `rows` rows each source gives: its share, rounded by the largest remainder (Hamilton)."""
    wanted = [share * rows for share in shares(weights)]
    whole = [int(each) for each in wanted]
    by_remainder = sorted(range(len(wanted)), key=lambda index: (whole[index] - wanted[index], index))
    for index in by_remainder[: rows - sum(whole)]:
        whole[index] += 1
    return whole


def last_quotas(weights: list[float], counts: list[int], lasting: list[bool]) -> list[int]:
    """Return how many rows of each source make the last window, when at least one lasting source has run out.

    The source that runs out first gives all its rows, and the others give in proportion; their other rows stay unused.

    Args:
        weights: the sources' weights.
        counts: rows that each source had for the window.
        lasting: which sources do not repeat.
    """
    parts = shares(weights)
    scarcest = min(
        (index for index in range(len(counts)) if lasting[index]),
        key=lambda index: (counts[index] / parts[index], index),
    )
    whole = counts[scarcest] / parts[scarcest]
    return [
        counts[index] if index == scarcest else min(counts[index], round(whole * parts[index]))
        for index in range(len(counts))
    ]
