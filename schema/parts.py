"""Import the parts that a family declares (`schema.family.Parts`), each when a stage first needs it.

This is the only place that resolves a "module:object" of a declaration, so `import schema` loads none of the parts.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from schema.errors import ConfigError
from schema.family import Family


def load_part(family: Family, part: str) -> Any:
    """Return a part of a family.

    Args:
        part: a name of `Parts`, e.g. "tensor_form", or of one of its commands, e.g. "produce reduction".

    Raises:
        ConfigError: the family does not declare the part, or the declared object does not exist.
    """
    place = family.parts.commands[part] if part in family.parts.commands else getattr(family.parts, part, None)
    if not isinstance(place, str):
        raise ConfigError(f"family {family.name} has no {part}: declare it in the family's Parts")
    module, _, name = place.partition(":")
    try:
        return getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        # A missing library is another error: the declaration is right, and the library must be installed.
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise _nowhere(family, part, place) from error
    except AttributeError as error:
        if error.name != name:
            raise
        raise _nowhere(family, part, place) from error


def _nowhere(family: Family, part: str, place: str) -> ConfigError:
    return ConfigError(
        f"family {family.name} declares its {part} as {place}, which does not exist: write module:object in its Parts"
    )
