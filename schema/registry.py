"""The explicit list of families: adding one is adding a line here (and its modules, which a test asks for)."""

from __future__ import annotations

from schema import reduction, scenario
from schema.errors import UnknownFamilyError
from schema.family import Family

FAMILIES: dict[str, Family] = {family.name: family for family in (reduction.FAMILY, scenario.FAMILY)}


def family_named(name: str) -> Family:
    """Return the family of that name.

    Raises:
        UnknownFamilyError: none is registered under it.
    """
    try:
        return FAMILIES[name]
    except KeyError:
        raise UnknownFamilyError(name, sorted(FAMILIES)) from None
