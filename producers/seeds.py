"""Seeds of runs: the allowed range, and a random seed."""

from __future__ import annotations

import secrets

from schema.errors import UsageError

_FRESH_BITS = 53
_LIMIT = 1 << 63


def fresh_seed() -> int:
    """Return a random 53-bit seed from the operating system; JSON readers that use doubles keep it exact."""
    return secrets.randbits(_FRESH_BITS)


def check_seed(seed: int) -> None:
    """Check that a seed is in range.

    Raises:
        UsageError: `seed` is not in 0 <= seed < 2^63.
    """
    if not 0 <= seed < _LIMIT:
        raise UsageError(f"seed is {seed}: give one from 0 to 2^63 - 1")
