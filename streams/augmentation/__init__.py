"""Augmentation: new rows from clean ones, by family, with the answer worked out anew.

A family's module has `augment(rows) -> rows`. It takes clean rows (wire columns, derived columns, `record`, and `copy`
UInt32: which copy of the row this is, from 0), one for each copy wanted, and returns rows in the wire columns plus
`record`: `augmented_from` is the origin's `example_id`, `example_id` and `split` are null, the group is the origin's.
A row that it can make nothing of is left out. All randomness comes from (`example_id`, `copy`), so that a group of
records that is refined again gives the same rows.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import cast

import polars as pl

from schema.errors import ConfigError
from schema.registry import FAMILIES
from schema.settings import Settings

Augment = Callable[[pl.DataFrame], pl.DataFrame]

# Imported when wanted: most of a module is compiled code.
_MODULES = {"reduction": "streams.augmentation.reduction", "scenario": "streams.augmentation.scenario"}


def augment_of(family: str) -> Augment:
    """Return the augmentation of a family.

    Raises:
        ConfigError: the family has none.
    """
    if family not in _MODULES:
        raise ConfigError(f"{family} has no augmentation: take it out of augment (FEEDMILL_AUGMENT)")
    return cast(Augment, import_module(_MODULES[family]).augment)


def check_augment(settings: Settings) -> None:
    """See that every family that `settings.augment` names is there and can be augmented.

    Raises:
        ConfigError: one is not, or cannot.
    """
    for name, copies in settings.augment.items():
        if name not in FAMILIES:
            known = ", ".join(sorted(FAMILIES))
            raise ConfigError(f"setting augment names {name!r}, which is no family: use {known} (FEEDMILL_AUGMENT)")
        if copies:
            augment_of(name)
