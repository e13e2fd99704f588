"""The name of the consumer group that holds the refine stage's positions.

A position committed there, in the transaction that wrote a raw record's outputs, is the authority on what was refined;
Faust's own group is not.
"""

from __future__ import annotations

from schema.settings import Settings


def position_group(settings: Settings, family: str) -> str:
    """Return the group under which the refine workers of `family` commit their positions in its raw topic."""
    return f"{settings.namespace}.{family}.positions"
