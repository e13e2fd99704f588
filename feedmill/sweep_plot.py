"""Draws the trials of a sweep: the metric against each setting that was varied; needs no display."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Blue and orange of Okabe and Ito's palette, which colour-blind readers can distinguish.
_TRIAL, _BEST = "#0072b2", "#e69f00"
_WIDTH_IN, _HEIGHT_IN = 4.0, 3.2


def draw(trials: Sequence[Mapping[str, Any]], metric: str, path: Path) -> None:
    """Draw the trials that have a metric to `path`, a PNG; the best one has another colour.

    Args:
        trials: the best first, as in sweep.json.
        metric: its name.
        path: of the picture.

    Raises:
        OSError: the picture cannot be written.
    """
    done = [trial for trial in trials if trial["metric"] is not None]
    names = list(dict.fromkeys(name for trial in done for name in trial["settings"]))
    figure = Figure(figsize=(_WIDTH_IN * max(1, len(names)), _HEIGHT_IN), layout="constrained")
    for place, name in enumerate(names, start=1):
        axes = figure.add_subplot(1, len(names), place)
        _points(axes, name, [trial for trial in done if name in trial["settings"]])
        axes.set_ylabel(metric.replace("_", " "))
    picture = BytesIO()
    figure.savefig(picture, format="png", metadata={})
    path.write_bytes(picture.getvalue())


def _points(axes: Axes, name: str, trials: Sequence[Mapping[str, Any]]) -> None:
    settings = [trial["settings"][name] for trial in trials]
    axes.scatter(settings, [trial["metric"] for trial in trials], color=[_BEST, *[_TRIAL] * (len(trials) - 1)])
    axes.set_xlabel(name.replace("_", " "))
    # Every setting is varied by factors. Without the minor ticks the labels do not overlap.
    axes.set_xscale("log")
    axes.set_xticks(sorted(set(settings)) if name != "learning_rate" else [5e-5, 1e-4, 2e-4, 5e-4])
    axes.minorticks_off()
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
