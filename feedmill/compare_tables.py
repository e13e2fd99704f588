"""Makes tables for the terminal from the JSON form of a comparison (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from schema.family import Family

# Distinct n-grams depend on the size of a set: a larger ratio of sizes than this gets a note.
_LIKE_SIZES = 1.25
_REASONS_SHOWN = 5

Side = Mapping[str, Any]


def comparison_tables(family: Family, compared: Mapping[str, Any]) -> Group:
    """Return all tables: coverage, balance, ranges, variety, quotas and invalid rows."""
    a, b = compared["a"], compared["b"]
    better = {line["measure"]: line["better"] for line in compared["differences"]}
    parts: list[RenderableType] = [
        Text(f"{family.name}: A is {a['source']}, B is {b['source']}"),
        _table("Rows", _row_lines(a, b, better)),
        _table("Covered", _covered_lines(a, b, better)),
        _table("Balance, 0 to 1", _balance_lines(a, b, better)),
        _ranges_table(a, b),
        _table("Variety", _variety_lines(a, b, better)),
        *_response_tables(compared, better),
        _quotas_table(a, b),
    ]
    parts += [_reasons(name, side) for name, side in (("A", a), ("B", b)) if side["invalid_by_reason"]]
    parts += [Text(line, style="dim") for line in _notes(a, b)]
    return Group(*(item for part in parts for item in (part, "")))


_Line = tuple[str, str, str, str, str | None]


def _table(title: str, lines: Iterable[_Line]) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("", no_wrap=True, min_width=22)
    for name in ("A", "B", "B - A"):
        table.add_column(name, justify="right", no_wrap=True, min_width=10)
    table.add_column("better", style="green")
    for name, *values, winner in lines:
        table.add_row(*map(Text, (name, *values)), Text((winner or "").upper()))
    return table


def _row_lines(a: Side, b: Side, better: Mapping[str, str | None]) -> Iterable[_Line]:
    for name, key in (("rows", "rows"), ("not valid", "rows_invalid"), ("duplicates", "duplicates")):
        yield name, f"{a[key]:,}", f"{b[key]:,}", f"{b[key] - a[key]:+,}", better[key]


def _covered_lines(a: Side, b: Side, better: Mapping[str, str | None]) -> Iterable[_Line]:
    def line(name: str, key: str, of_a: Side, of_b: Side, whole: str) -> _Line:
        counts = [f"{side['covered']} of {side[whole]}" for side in (of_a, of_b)]
        return name, *counts, f"{of_b['covered'] - of_a['covered']:+d}", better[key]  # type: ignore[return-value]

    for axis in a["axes"]:
        yield line(axis, f"axes.{axis}.covered", a["axes"][axis], b["axes"][axis], "total")
    yield line("cells", "cells.covered", a["cells"], b["cells"], "possible")


def _balance_lines(a: Side, b: Side, better: Mapping[str, str | None]) -> Iterable[_Line]:
    for axis in a["axes"]:
        yield _plain(axis, a["axes"][axis]["balance"], b["axes"][axis]["balance"], better[f"axes.{axis}.balance"])
    yield _plain("cells", a["cells"]["balance"], b["cells"]["balance"], better["cells.balance"])


def _ranges_table(a: Side, b: Side) -> Table:
    table = Table(title="From, to (mean)", title_justify="left", box=None, pad_edge=False)
    table.add_column("", no_wrap=True, min_width=22)
    for name in ("A", "B"):
        table.add_column(name, justify="right", no_wrap=True, min_width=10)
    for column in a["numbers"]:
        ranges = [side["numbers"][column] for side in (a, b)]
        if any(each["mean"] is not None for each in ranges):
            table.add_row(Text(column), *(Text(_range(each)) for each in ranges))
    return table


def _range(column: Mapping[str, float | None]) -> str:
    return "-" if column["mean"] is None else f"{column['min']:.3g} to {column['max']:.3g} ({column['mean']:.3g})"


def _variety_lines(a: Side, b: Side, better: Mapping[str, str | None]) -> Iterable[_Line]:
    name = f"distinct runs of {a['ngram']}"
    yield _plain(name, a["distinct_ngrams"], b["distinct_ngrams"], better["distinct_ngrams"])
    counts = [f"{side['near_duplicates']:,} of {side['sample_rows']:,}" for side in (a, b)]
    difference = f"{b['near_duplicates'] - a['near_duplicates']:+,}"
    yield "near duplicates", counts[0], counts[1], difference, better["near_duplicates"]


_RESPONSE_LINES = {
    "repeated_sentences": "repeated sentences",
    "distinct_4grams": "distinct runs of 4 words",
    "gzip_ratio": "gzip ratio",
    "beginning_accuracy": "target by first 5 words",
}


def _response_tables(compared: Mapping[str, Any], better: Mapping[str, str | None]) -> Iterable[Table]:
    """Yield the table of the responses beside what people reach, if both sides have responses."""
    a, b = compared["a"]["responses"], compared["b"]["responses"]
    if not a or not b:
        return
    human = compared["human"]["responses"]
    table = Table(title="Responses", title_justify="left", box=None, pad_edge=False)
    table.add_column("", no_wrap=True, min_width=22)
    for name in ("A", "B", "B - A", "people"):
        table.add_column(name, justify="right", no_wrap=True, min_width=10)
    table.add_column("better", style="green")
    for key, title in _RESPONSE_LINES.items():
        name, *values, winner = _plain(title, a[key], b[key], better[f"responses.{key}"])
        people = f"{human[key]:.3f}" if key in human else "-"
        table.add_row(*map(Text, (name, *values, people)), Text((winner or "").upper()))
    yield table


def _plain(name: str, of_a: float, of_b: float, winner: str | None) -> _Line:
    return name, f"{of_a:.3f}", f"{of_b:.3f}", f"{of_b - of_a:+.3f}", winner


def _quotas_table(a: Side, b: Side) -> Table:
    title = f"Quotas: A meets {a['quotas_met']} of {len(a['quotas'])}, B {b['quotas_met']}"
    table = Table("quota", "kind", title=title, title_justify="left", box=None, pad_edge=False)
    for name in ("target", "A", "B"):
        table.add_column(name, justify="right", no_wrap=True)
    for of_a, of_b in zip(a["quotas"], b["quotas"], strict=True):
        verdicts = [
            Text(
                f"{quota['actual']:.4g} {'met' if quota['ok'] else 'NOT MET'}", style="green" if quota["ok"] else "red"
            )
            for quota in (of_a, of_b)
        ]
        table.add_row(of_a["name"], of_a["kind"], f"{of_a['target']:g}", *verdicts)
    return table


def _reasons(name: str, side: Side) -> Text:
    shown = list(side["invalid_by_reason"].items())[:_REASONS_SHOWN]
    left = len(side["invalid_by_reason"]) - len(shown)
    more = f", and {left} more reasons" if left else ""
    return Text(f"Not valid in {name}: " + ", ".join(f"{reason} {rows:,}" for reason, rows in shown) + more)


def _notes(a: Side, b: Side) -> Iterable[str]:
    if any(side["sample_rows"] < side["rows"] - side["rows_invalid"] for side in (a, b)):
        yield "Near duplicates and the measures of responses are those of a sample of the rows."
    few, many = sorted(max(side["rows"], 1) for side in (a, b))
    if many > _LIKE_SIZES * few:
        yield "Repetition grows with size: compare sets of like sizes, with --rows."
