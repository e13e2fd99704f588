"""A family's cells as a table of two axes, for the dashboard and the reports: pure functions.

Cells may have any number of axes. The first two make lines and columns, and a slot sums over the other axes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from schema.family import Family, cell_label


@dataclass(frozen=True)
class GridSquare:
    """One slot of the grid: its rows, how many of its cells have rows, and how many cells are possible."""

    rows: int = 0
    covered: int = 0
    possible: int = 0


@dataclass(frozen=True)
class Grid:
    """Slots by line and column; `corner` names both axes."""

    corner: str
    lines: tuple[str, ...]
    columns: tuple[str, ...]
    slots: tuple[tuple[GridSquare, ...], ...]

    def heat(self, slot: GridSquare, levels: int) -> int:
        """Return the heat of a slot: 0 without rows, else 1 (fewest rows) to `levels` (most), on a log scale."""
        if not slot.rows:
            return 0
        counts = [other.rows for line in self.slots for other in line if other.rows]
        least, most = min(counts), max(counts)
        if least == most:
            return levels
        return 1 + round((levels - 1) * math.log(slot.rows / least) / math.log(most / least))


def cell_grid(family: Family, cells: Mapping[str, int]) -> Grid:
    """Return the grid of `cells` ({label: rows}; absent cells have 0 rows) over the declared cells of `family`."""
    line_axis, *others = (family.axis(name) for name in family.cell_axes)
    column_axis = others[0] if others else None
    columns = column_axis.bins if column_axis else ("rows",)
    slots: dict[tuple[str, str], GridSquare] = {}
    for cell in family.cells():
        place = cell[line_axis.name], cell[column_axis.name] if column_axis else "rows"
        slot, rows = slots.get(place, GridSquare()), cells.get(cell_label(cell), 0)
        slots[place] = GridSquare(
            slot.rows + rows, slot.covered + (rows > 0), slot.possible + family.cell_possible(cell)
        )
    return Grid(
        corner=" \\ ".join(family.cell_axes[:2]),
        lines=line_axis.bins,
        columns=columns,
        slots=tuple(tuple(slots[line, column] for column in columns) for line in line_axis.bins),
    )
