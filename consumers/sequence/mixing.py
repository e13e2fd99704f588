"""How many rows of each source make a window: exact shares, by integers, in every window."""

from __future__ import annotations

from fractions import Fraction

# Weights such as 0.1 are taken as the fraction that is meant, not as the nearest binary one.
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


def last_quotas(weights: list[float], found: list[int], lasting: list[bool]) -> list[int]:
    """Return how many rows of each source make the last window, when at least one lasting source has run out.

    The source that runs out first gives all it has, and the others in proportion; the rest of theirs is left over.

    Args:
        weights: of the sources.
        found: rows that each source had for the window.
        lasting: which sources do not repeat.
    """
    parts = shares(weights)
    scarcest = min(
        (index for index in range(len(found)) if lasting[index]), key=lambda index: (found[index] / parts[index], index)
    )
    whole = found[scarcest] / parts[scarcest]
    return [
        found[index] if index == scarcest else min(found[index], round(whole * parts[index]))
        for index in range(len(found))
    ]
