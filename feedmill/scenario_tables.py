"""Show the summary of a scenario run as a table: each bin's share of the rows beside its target, and the variety."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from schema.response_measures import HUMAN
from schema.scenario.bands import AUTHENTICITY_TARGETS, CAPACITY_LEVELS, COMPLEXITY_TYPES, TYPE_SHARE

# Target shares, by axis and bin.
_TARGETS = {
    "capacity_level": {band.name: band.share for band in CAPACITY_LEVELS},
    "authenticity_target": {band.name: band.share for band in AUTHENTICITY_TARGETS},
    "complexity_type": dict.fromkeys(COMPLEXITY_TYPES, TYPE_SHARE),
}


def summary_table(figures: Mapping[str, Any]) -> RenderableType:
    """Return a small table of `figures`, a result of `producers.scenario.summary.summary`."""
    table = Table("axis", "bin", box=None, pad_edge=False)
    for title in ("rows", "share", "target"):
        table.add_column(title, justify="right")
    for axis, counts in figures["axes"].items():
        for place, (name, rows) in enumerate(counts.items()):
            shares = f"{rows / figures['rows']:.2%}", f"{_TARGETS[axis][name]:.2%}"
            table.add_row("" if place else axis, name, f"{rows:,}", *shares)
    lines = (
        f"{figures['rows']:,} rows of backend {figures['backend']}, "
        f"{figures['cells_covered']} of {figures['cells_total']} cells covered",
        f"of the first {figures['sample_rows']:,} texts: {figures['copies']:,} copies, "
        f"distinct 4-grams {figures['distinct_4grams']:.3f}",
        "; ".join(_response_line(figures["responses"])),
    )
    return Group(Text("\n".join(lines)), table)


def _response_line(measures: Mapping[str, Any]) -> Iterable[str]:
    yield (
        f"of their responses: {measures['repeated_sentences']:.1%} of the sentences occur more than once "
        f"(people: {HUMAN['repeated_sentences']:.1%})"
    )
    yield f"distinct 4-grams {measures['distinct_4grams']:.3f}"
    yield f"gzip ratio {measures['gzip_ratio']:.2f} (people: {HUMAN['gzip_ratio']:.1f})"
    yield (
        f"the first words give the target away in {measures['beginning_accuracy']:.1%} "
        f"(by chance: {measures['beginning_chance']:.1%})"
    )
