"""Command groups that hold the commands of all families: `feedmill produce`, `feedmill train`, `feedmill eval`.

A family declares its commands in `schema.family.Parts`, by what a user types after `feedmill`. A command's module is
imported when the command runs or its group's help is shown, so that other commands do not wait for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

import typer
from typer.core import TyperCommand, TyperGroup

from schema.family import Family
from schema.parts import load_part
from schema.registry import FAMILIES


class DeclaredCommands(Mapping[str, TyperCommand]):
    """The commands that families declare for one group, by name; looking one up imports its module."""

    def __init__(self, group: str) -> None:
        self._group = group
        self._families: dict[str, Family] = {}
        for family in FAMILIES.values():
            for line in family.parts.commands:
                first, name = line.split()
                if first == group:
                    self._families[name] = family

    def __getitem__(self, name: str) -> TyperCommand:
        function = load_part(self._families[name], f"{self._group} {name}")
        single = typer.Typer(add_completion=False)
        single.command(name)(function)
        return cast(TyperCommand, typer.main.get_command(single))

    def __iter__(self) -> Iterator[str]:
        return iter(self._families)

    def __len__(self) -> int:
        return len(self._families)


class FamilyCommands(TyperGroup):
    """A group of commands that families declare; its name is the first word of these commands."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        # Typer only reads it, so it need not be mutable.
        self.commands = DeclaredCommands(str(self.name))  # type: ignore[assignment]
