"""Draws a family's cells as a heatmap in the terminal, readable with colours and without.

Takes a family and its covered cells; gives a rich table that fits 80 columns.
"""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table
from rich.text import Text

from schema.family import Family
from streams.coverage.grid import Grid, GridSquare, cell_grid

SHADES = " ░▒▓█"
# Dark to light blue on any background: the same order with and without colour.
_COLOURS = ("", "on #16324a", "on #1d4e79", "on #2a7ab8", "on #63b3e6")
_DARK_TEXT_FROM = 4
_UNITS = ((1_000_000, "M"), (1_000, "k"))


def heatmap(family: Family, cells: Mapping[str, int]) -> Table:
    """Return the heatmap of `cells` ({label: rows}; absent cells have 0 rows).

    A slot shows its rows. If cells have more than two axes, it also shows how many of its possible cells are covered.
    `·` marks a slot without possible cells.
    """
    grid = cell_grid(family, cells)
    deeper = len(family.cell_axes) > 2
    title = " x ".join(family.cell_axes)
    legend = f"rows, and cells covered/possible over {', '.join(family.cell_axes[2:])}" if deeper else "rows"
    table = Table(title=f"Cells: {title}", caption=legend, box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(grid.corner.partition(" ")[0], justify="right", no_wrap=True)
    for name in grid.columns:
        table.add_column(name, justify="right", no_wrap=True)
    for name, line in zip(grid.lines, grid.slots, strict=True):
        table.add_row(name, *(_slot(grid, slot, deeper) for slot in line))
    return table


def compact(count: int) -> str:
    """Return a count in at most five characters below a billion: 950, 1.2k, 43k, 1.0M."""
    for unit, sign in _UNITS:
        if count >= unit:
            value = count / unit
            return f"{value:.1f}{sign}" if value < 9.95 else f"{value:.0f}{sign}"
    return str(count)


def _slot(grid: Grid, slot: GridSquare, deeper: bool) -> Text:
    if not slot.possible and not slot.rows:
        return Text("·", style="dim")
    share = f" {slot.covered}/{slot.possible}" if deeper else ""
    if not slot.rows:
        return Text(f"0{share}", style="red")
    level = grid.heat(slot, len(SHADES) - 1)
    style = f"{'black' if level >= _DARK_TEXT_FROM else 'white'} {_COLOURS[level]}"
    return Text(f"{SHADES[level]} {compact(slot.rows):>4}{share}", style=style)
