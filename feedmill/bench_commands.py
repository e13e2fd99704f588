"""`feedmill bench NAME`: run a benchmark of `bench/` and print its figures."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from schema.errors import AuditError, ConfigError, UsageError

NAMES = ("generate", "refine", "pipeline", "feed", "packing", "scenario", "code", "code-parts", "rust-eval", "storm")
_VARIANTS = ("topic_order",)
_FURTHER = {
    "order": "order",
    "tokens_per_s": "tokens/s",
    "rows_per_cpu_s": "rows per CPU s",
    "cpu_ratio": "ratio by CPU",
    "padding_share": "padding",
}
_TABLED = {"name", "rate", "unit", "elapsed_s", "rows", "peers", "peers_missing", *_VARIANTS, *_FURTHER}


def bench_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help=f"One of {', '.join(NAMES)}.")],
    rows: Annotated[int | None, typer.Option(min=10, help="Examples; each benchmark has its own default.")] = None,
    minutes: Annotated[float | None, typer.Option(min=0.1, max=1440, help="storm only: 3 by default.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="storm only: a seed fixes the plan of faults.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Measure a rate on this machine, and the rates of alternatives in the same run."""
    from importlib import import_module

    if name not in NAMES:
        raise UsageError(f"no benchmark is named {name!r}: use one of {', '.join(NAMES)}")
    if name == "storm":
        if rows is not None:
            raise UsageError("--rows does not apply to the storm: use --minutes")
        _storm(3.0 if minutes is None else minutes, 1 if seed is None else seed, as_json)
        return
    if minutes is not None or seed is not None:
        raise UsageError(f"--minutes and --seed apply to the storm only, not to {name}: use --rows")
    try:
        run = import_module(f"bench.{name.replace('-', '_')}").run
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"the benchmark {name} needs {error.name}: install the extra that has it, `pip install feedmill[train]`"
        ) from error
    figures: dict[str, Any] = run() if rows is None else run(rows)
    if missing := figures.get("peers_missing"):
        print(f"peers left out because {', '.join(missing)} is missing: run `make bench`", file=sys.stderr)
    if as_json:
        print(json.dumps(figures))
        return
    # Columns of figures that only some benchmarks have.
    further = {key: title for key, title in _FURTHER.items() if key in figures or key in (figures["peers"] or [{}])[0]}
    table = Table("measured", "rate", "unit", "seconds", "rows", "ratio", *further.values(), title=f"bench {name}")
    # The benchmark itself, then its variants, then its peers.
    for row in (figures, *(figures[key] for key in _VARIANTS if key in figures), *figures["peers"]):
        ratio = f"{row['ratio']:.1f}" if "ratio" in row else ""
        rate = _shown(row["rate"]), row["unit"], f"{row['elapsed_s']:.2f}", f"{row['rows']:,}", ratio
        table.add_row(row["name"], *rate, *(_shown(row.get(key)) for key in further))
    Console().print(table)
    for key in sorted(figures.keys() - _TABLED):
        Console().print(f"{key}: {figures[key]}")


def _storm(minutes: float, seed: int, as_json: bool) -> None:
    """Run a storm and print its figures.

    Raises:
        AuditError: the audit after the storm is not exact.
    """
    from bench.storm.run import run
    from feedmill.progress import progress
    from feedmill.storm_tables import storm_tables, why

    with progress("storm", minutes * 60, "s", quiet=as_json) as advance:
        figures = run(minutes, seed, advance)
    if as_json:
        print(json.dumps(figures))
    else:
        Console().print(storm_tables(figures))
    if not figures["ok"]:
        raise AuditError(f"the service did not survive the storm of seed {seed}: {why(figures)}")


def _shown(value: float | str | None) -> str:
    """Return a figure for the table: below 1,000 with two decimals, larger ones with none."""
    if not isinstance(value, float):
        return value or ""
    return f"{value:.2f}" if value < 1000 else f"{value:,.0f}"
