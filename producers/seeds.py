"""Seeds of runs: what one may be, and a fresh one."""

from __future__ import annotations

import secrets

from schema.errors import UsageError

_FRESH_BITS = 53
_LIMIT = 1 << 63


def fresh_seed() -> int:
    """Return a seed drawn by the operating system; every JSON reader holds it exactly."""
    return secrets.randbits(_FRESH_BITS)


def check_seed(seed: int) -> None:
    """Refuse what is no seed.

    Raises:
        UsageError: it is not 0 <= seed < 2^63.
    """
    if not 0 <= seed < _LIMIT:
        raise UsageError(f"seed is {seed}: give one from 0 to 2^63 - 1")
