"""Augmentation: make new rows from clean rows of a family, with the correct answer computed again.

A family's module has `augment(rows) -> rows`. It takes one clean row for each wanted copy: wire columns, derived
columns, `record`, and `copy` (UInt32, the number of the copy, from 0). It returns rows in the wire columns plus
`record`. `augmented_from` is the origin's `example_id`, `example_id` and `split` are null, and the family's `group` is
the origin's. A row that cannot be augmented is left out. All randomness comes from (`example_id`, `copy`), so refining
a group of records again gives the same rows.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import cast

import polars as pl

from schema.errors import ConfigError
from schema.registry import check_family_names
from schema.settings import Settings

Augment = Callable[[pl.DataFrame], pl.DataFrame]

# Imported on first use, because loading their compiled code takes time.
_MODULES = {"reduction": "streams.augmentation.reduction", "scenario": "streams.augmentation.scenario"}


def augment_of(family: str) -> Augment:
    """Return the augmentation of a family.

    Raises:
        ConfigError: the family has no augmentation.
    """
    if family not in _MODULES:
        raise ConfigError(f"{family} has no augmentation: take it out of augment (FEEDMILL_AUGMENT)")
    return cast(Augment, import_module(_MODULES[family]).augment)


def check_augment(settings: Settings) -> None:
    """Check that every family in `settings.augment` exists and can be augmented.

    Raises:
        ConfigError: a family does not exist, or has no augmentation.
    """
    check_family_names("augment", settings.augment)
    for name, copies in settings.augment.items():
        if copies:
            augment_of(name)
