"""Augmentation: make new rows from clean rows of a family, with the correct answer computed again.

A family declares a function `augment(rows) -> rows` as its part `augmentation`. It takes one clean row for each wanted
copy: wire columns, derived columns, `record`, and `copy` (UInt32, the number of the copy, from 0). It returns rows in
the wire columns plus `record`. `augmented_from` is the origin's `example_id`, `example_id` and `split` are null, and
the family's `group` is the origin's. A row that cannot be augmented is left out. All randomness comes from
(`example_id`, `copy`), so refining a group of records again gives the same rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import polars as pl

from schema.errors import ConfigError
from schema.family import Family
from schema.parts import load_part
from schema.registry import check_family_names, family_named
from schema.settings import Settings

Augment = Callable[[pl.DataFrame], pl.DataFrame]


def augment_of(family: Family) -> Augment:
    """Return the augmentation of a family; the first call may load compiled code, which takes time.

    Raises:
        ConfigError: the family has no augmentation.
    """
    if family.parts.augmentation is None:
        raise ConfigError(f"{family.name} has no augmentation: take it out of augment (FEEDMILL_AUGMENT)")
    return cast(Augment, load_part(family, "augmentation"))


def check_augment(settings: Settings) -> None:
    """Check that every family in `settings.augment` exists and can be augmented.

    Raises:
        ConfigError: a family does not exist, or has no augmentation.
    """
    check_family_names("augment", settings.augment)
    for name, copies in settings.augment.items():
        if copies:
            augment_of(family_named(name))
