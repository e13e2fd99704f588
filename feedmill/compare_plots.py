"""Draws a comparison: the shares of each axis' bins side by side, and the cells of both sides.

Takes a comparison's JSON form and needs no display. The same comparison gives the same file.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from io import BytesIO
from math import ceil
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Patch

from feedmill.surroundings import is_full
from schema.errors import UsageError
from schema.family import Family, cell_label
from schema.stale_files import in_making

# Blue and orange of Okabe and Ito's palette, which colour-blind readers can distinguish.
_COLOURS = {"a": "#0072b2", "b": "#e69f00"}
_WITHOUT_ROWS = "#f2d5d5"
_IMPOSSIBLE = "#d9d9d9"
_COLUMNS = 2
_BARS_HEIGHT_IN = 2.4
_CELLS_HEIGHT_IN = 3.2
_WIDTH_IN = 12.0
# With more bins than this, their names are written upright.
_LEVEL_NAMES = 6


def draw(family: Family, compared: Mapping[str, Any], path: Path) -> None:
    """Draw a comparison to `path`, which ends in .png, .svg or .pdf.

    Raises:
        UsageError: the file cannot be written.
        OSError: no space is left; an earlier file at `path` is kept whole.
    """
    picture = BytesIO()
    # Without a timestamp and random ids, the same figures give the same file.
    with mpl.rc_context({"svg.hashsalt": "feedmill"}):
        figure = _figure(family, compared)
        metadata = {".png": {}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}[path.suffix]
        figure.savefig(picture, format=path.suffix[1:], metadata=metadata)
    making = in_making(path, "part")
    try:
        making.write_bytes(picture.getvalue())
        making.replace(path)
    except OSError as error:
        if is_full(error):
            raise
        raise UsageError(f"{path} cannot be written ({error.strerror}): give --plot a file of your own") from error
    finally:
        with suppress(OSError):
            making.unlink(missing_ok=True)


def _figure(family: Family, compared: Mapping[str, Any]) -> Figure:
    lines = ceil(len(family.axes) / _COLUMNS)
    height = lines * _BARS_HEIGHT_IN + _CELLS_HEIGHT_IN
    figure = Figure(figsize=(_WIDTH_IN, height), layout="constrained")
    grid = figure.add_gridspec(lines + 1, _COLUMNS, height_ratios=[_BARS_HEIGHT_IN] * lines + [_CELLS_HEIGHT_IN])
    for number, axis in enumerate(family.axes):
        _bars(figure.add_subplot(grid[number // _COLUMNS, number % _COLUMNS]), axis.name, compared)
    cells = {side: _cells(family, compared[side]["cells"]["rows"]) for side in ("a", "b")}
    most = max(2.0, *(float(rows.max(initial=0)) for rows in cells.values()))
    for column, (side, rows) in enumerate(cells.items()):
        axes = figure.add_subplot(grid[lines, column])
        image = _heatmap(axes, family, rows, most)
        counts = compared[side]["cells"]
        axes.set_title(f"{side.upper()}: {counts['covered']} of {counts['possible']} cells", fontsize=9)
        figure.colorbar(image, ax=axes, label="rows")
    patches = [Patch(color=colour, label=compared[side]["source"]) for side, colour in _COLOURS.items()]
    figure.legend(handles=patches, loc="outside upper center", ncols=2, title=f"{family.name}: A and B", fontsize=9)
    return figure


def _covered(axis: Mapping[str, int]) -> str:
    return f"{axis['covered']} of {axis['total']}"


def _bars(axes: Axes, name: str, compared: Mapping[str, Any]) -> None:
    """Draw an axis' bins as shares of its rows, A's beside B's."""
    for shift, side in ((-0.2, "a"), (0.2, "b")):
        rows = np.array(list(compared[side]["axes"][name]["bins"].values()), dtype=np.float64)
        axes.bar(np.arange(len(rows)) + shift, rows / max(rows.sum(), 1.0), 0.4, color=_COLOURS[side])
    bins = list(compared["a"]["axes"][name]["bins"])
    upright = len(bins) > _LEVEL_NAMES
    axes.set_xticks(range(len(bins)), bins, fontsize=7, rotation=90 if upright else 0)
    axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    axes.tick_params(axis="y", labelsize=7)
    axes.set_ylim(bottom=0)
    covered = ", ".join(f"{side.upper()} {_covered(compared[side]['axes'][name])}" for side in _COLOURS)
    axes.set_title(f"{name}: {covered}", fontsize=9)


def _cells(family: Family, rows: Mapping[str, int]) -> npt.NDArray[np.float64]:
    """Return rows by cell, (bins of the first cell axis, all combinations of the others); -1 for impossible cells."""
    counts = [float(rows.get(cell_label(cell), 0 if family.cell_possible(cell) else -1)) for cell in family.cells()]
    return np.array(counts).reshape(len(family.axis(family.cell_axes[0]).bins), -1)


def _heatmap(axes: Axes, family: Family, rows: npt.NDArray[np.float64], most: float) -> AxesImage:
    axes.imshow(
        np.where(rows < 0, 1.0, 0.0), cmap=mpl.colors.ListedColormap([_WITHOUT_ROWS, _IMPOSSIBLE]), aspect="auto"
    )
    covered = np.ma.masked_less(rows, 1)
    image = axes.imshow(covered, cmap="viridis", norm=LogNorm(1, most), aspect="auto", interpolation="nearest")
    first, *others = (family.axis(name) for name in family.cell_axes)
    axes.set_yticks(range(len(first.bins)), first.bins, fontsize=7)
    axes.set_ylabel(first.name, fontsize=8)
    # The columns are named by the slowest of the other axes, at the middle of each of its bins.
    names = others[0].bins if others else ("rows",)
    step = rows.shape[1] // len(names)
    axes.set_xticks(np.arange(len(names)) * step + (step - 1) / 2, names, fontsize=7)
    axes.set_xticks(np.arange(rows.shape[1] + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(rows.shape[0] + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=0.5)
    axes.tick_params(which="minor", length=0)
    axes.set_xlabel(" x ".join(axis.name for axis in others), fontsize=8)
    return image
