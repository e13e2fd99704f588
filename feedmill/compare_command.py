"""The command `feedmill compare`: compare two files or topics of one family."""

from __future__ import annotations

import json
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from feedmill.progress import progress
from schema.errors import ConfigError, UsageError
from schema.settings import load_settings

if TYPE_CHECKING:
    from broker.clients import Connection

PLOT_ENDINGS = (".png", ".svg", ".pdf")


def compare_command(
    a: Annotated[str, typer.Argument(metavar="A", help="A .jsonl, .parquet or .arrow file, or topic:NAME.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another file or topic of the same family.")],
    family: Annotated[str | None, typer.Option(help="e.g. scenario; by default found from names and columns.")] = None,
    rows: Annotated[
        int | None, typer.Option(min=1, help="Read the first ROWS rows of each.", show_default="all")
    ] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw both to a .png, .svg or .pdf file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Compare two sets of rows: coverage, balance, variety, and the quotas that each meets."""
    from consumers.compare.comparison import compare
    from consumers.compare.sources import common_family, source_named

    # Checked first, because reading may take hours.
    if plot is not None:
        _require_plot(plot)
    settings = load_settings()

    @lru_cache
    def connection() -> Connection:
        from broker.clients import connect

        return connect(settings)

    sources = [source_named(text, connection) for text in (a, b)]
    declared = common_family(sources, family)
    with progress(f"comparing {declared.name} rows", 2, "sides", quiet=as_json) as advance:
        compared = compare(
            declared,
            *sources,
            near=declared.near_threshold(settings.near_duplicate_threshold),
            limit=rows,
            on_progress=lambda sides, seen: advance(sides, f"{seen:,} rows"),
        )
    if plot is not None:
        from feedmill.compare_plots import draw

        draw(declared, compared, plot)
    if as_json:
        print(json.dumps(compared))
    else:
        from feedmill.compare_tables import comparison_tables

        Console().print(comparison_tables(declared, compared))


def _require_plot(path: Path) -> None:
    """Raise UsageError if the file's ending is unknown, ConfigError if the plotting library is missing."""
    if path.suffix not in PLOT_ENDINGS:
        raise UsageError(f"--plot {path.name!r} has an unknown ending: end the name in {', '.join(PLOT_ENDINGS)}")
    if find_spec("matplotlib") is None:
        raise ConfigError("--plot needs matplotlib: install the extra with `pip install feedmill[plot]`")
