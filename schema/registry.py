"""The list of all families. A new family needs a line here and its modules, which a test checks."""

from __future__ import annotations

from dataclasses import replace

from schema import reduction, scenario
from schema.errors import ConfigError, UnknownFamilyError
from schema.family import Family
from schema.settings import Settings

FAMILIES: dict[str, Family] = {family.name: family for family in (reduction.FAMILY, scenario.FAMILY)}


def family_named(name: str) -> Family:
    """Return the family named `name`.

    Raises:
        UnknownFamilyError: no family of that name is registered.
    """
    try:
        return FAMILIES[name]
    except KeyError:
        raise UnknownFamilyError(name, sorted(FAMILIES)) from None


def families_under(settings: Settings) -> dict[str, Family]:
    """Return all families, with the minimum per cell from `settings`.

    Raises:
        ConfigError: `settings.cell_minimum` names an unknown family.
    """
    unknown = sorted(settings.cell_minimum.keys() - FAMILIES.keys())
    if unknown:
        raise ConfigError(f"cell_minimum names {', '.join(unknown)}: the families are {', '.join(sorted(FAMILIES))}")
    return {
        name: replace(family, cell_minimum=settings.cell_minimum.get(name, family.cell_minimum))
        for name, family in FAMILIES.items()
    }
