"""The list of all families. A new family needs a line here; its declaration names its parts, and a test checks them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from difflib import get_close_matches

from schema import reduction, scenario, source_code
from schema.errors import ConfigError, UnknownFamilyError
from schema.family import Family
from schema.settings import PREFIX, Settings

FAMILIES: dict[str, Family] = {
    family.name: family for family in (reduction.FAMILY, scenario.FAMILY, source_code.FAMILY)
}


def family_named(name: str) -> Family:
    """Return the family named `name`.

    Raises:
        UnknownFamilyError: no family of that name is registered.
    """
    try:
        return FAMILIES[name]
    except KeyError:
        raise UnknownFamilyError(name, sorted(FAMILIES)) from None


def check_family_names(setting: str, names: Iterable[str]) -> None:
    """Check that every name in a table of settings by family is the name of a family.

    Raises:
        ConfigError: a name is not; the message gives the most similar family, or all.
    """
    for name in names:
        if name not in FAMILIES:
            near = get_close_matches(name, FAMILIES, 1)
            advice = f"did you mean {near[0]}?" if near else f"use {', '.join(sorted(FAMILIES))}"
            raise ConfigError(
                f"setting {setting} names {name!r}, which is no family: {advice} ({PREFIX}{setting.upper()})"
            )


def families_under(settings: Settings) -> dict[str, Family]:
    """Return all families, with the minimum per cell from `settings`.

    Raises:
        ConfigError: `settings.cell_minimum` names an unknown family.
    """
    check_family_names("cell_minimum", settings.cell_minimum)
    return {
        name: replace(family, cell_minimum=settings.cell_minimum.get(name, family.cell_minimum))
        for name, family in FAMILIES.items()
    }
