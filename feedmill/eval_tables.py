"""Makes the tables of `feedmill eval`: exact spans and whole traces by band, the diagnosis, and the worst examples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from consumers.reduction.diagnosis import FAILURES
from consumers.reduction.samples import render_sample

_EXAMPLES_SHOWN = 3
_STOPS_SHOWN = 10


def evaluation_tables(report: Mapping[str, Any]) -> RenderableType:
    """Return all tables of a report of `feedmill eval reduction`, one below the other."""
    parts = [
        spans_table(report["spans"]),
        traces_table(report["traces"]),
        diagnosis_table(report["diagnosis"]),
        *_stops(report["early_stops"]),
        *_examples("Rows with a wrong span", report["wrong_rows"]),
    ]
    for name in FAILURES:
        parts += _examples(f"Traces: {_words(name)}", report["diagnosis"][name]["examples"])
    return Group(*(item for part in parts for item in (part, "")))


def spans_table(summary: Mapping[str, Any], title: str = "Exact spans") -> Table:
    """Return `SpanMetrics.summary` as a table of that title, a row for each band that has rows."""
    normal = summary["normal_form"]
    whole = {**summary, "nf_precision": normal["precision"], "nf_recall": normal["recall"]}
    table = _table(title, "rows", "exact", "IoU", "normal forms: precision", "recall")
    for name, entry in _bands(whole, summary):
        if entry["rows"]:
            shares = (percent(entry[key]) for key in ("exact_span", "iou", "nf_precision", "nf_recall"))
            table.add_row(name, f"{entry['rows']:,}", *shares)
    return table


def traces_table(summary: Mapping[str, Any]) -> Table:
    """Return the summary of whole traces as a table, a row for each band that has traces."""
    table = _table("Whole traces", "traces", "correct", "detours", *(_words(name) for name in FAILURES))
    parts = ("initial", "mid_trace", "terminating", "non_terminating")
    named = [(_words(name), summary[name]) for name in parts if name in summary]
    for name, entry in _bands(summary["overall"], summary, named):
        if entry["traces"]:
            counts = (entry["detours"], *entry["failures"].values())
            table.add_row(name, f"{entry['traces']:,}", percent(entry["correct"]), *(f"{count:,}" for count in counts))
    return table


def diagnosis_table(diagnosis: Mapping[str, Any]) -> RenderableType:
    """Return a table with the median step, median size and probability of each kind of failure."""
    failed = {name: entry for name, entry in diagnosis.items() if entry["traces"]}
    if not failed:
        return Text("Diagnosis: no trace failed", style="green")
    table = _table("Diagnosis", "traces", "share", "median step", "median size", "normal-form probability")
    for name, entry in failed.items():
        typical = (f"{entry['median_step']:,.0f}", f"{entry['median_size']:,.0f}", f"{entry['nf_probability']:.3f}")
        table.add_row(_words(name), f"{entry['traces']:,}", percent(entry["share"]), *typical)
    return table


def percent(part: float | None) -> str:
    """Return a share in percent with two decimals; a dash for None."""
    return "-" if part is None else f"{part:.2%}"


def _table(title: str, *columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(title, no_wrap=True)
    for name in columns:
        # Only headings may break, and only between words.
        table.add_column(name, justify="right", min_width=max(map(len, name.split())))
    return table


def _bands(
    whole: Mapping[str, Any], summary: Mapping[str, Any], named: Sequence[tuple[str, Mapping[str, Any]]] = ()
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield "all", whole
    yield from named
    yield from ((f"{entry['band']} nodes", entry) for entry in summary["by_size"])
    yield from ((f"depth {entry['band']}", entry) for entry in summary["by_depth"])
    yield "deeper than 7", summary["deeper_than_7"]


def _stops(stops: Sequence[Mapping[str, Any]]) -> list[RenderableType]:
    """Return the early stops with the highest probability as a table; an empty list without stops."""
    if not stops:
        return []
    table = _table("Early stops, most probable first", "step", "of", "nodes at the start", "characters")
    for stop in stops[:_STOPS_SHOWN]:
        of = f"{stop['true_steps']:,}" if stop["fate"] == "normal_form" else "∞"
        probability = f"probability {stop['nf_probability']:.4f}"
        table.add_row(probability, f"{stop['step']:,}", of, f"{stop['size']:,}", f"{len(stop['term']):,}")
    return [table]


def _examples(title: str, examples: Sequence[Mapping[str, Any]]) -> list[RenderableType]:
    """Return the first examples with their spans marked; an empty list without examples."""
    if not examples:
        return []
    parts: list[RenderableType] = [Text(title, style="bold")]
    for example in examples[:_EXAMPLES_SHOWN]:
        true, predicted = example["true_span"], example["predicted_span"]
        if "step" in example:
            parts.append(Text(f"at step {example['step']:,}", style="dim"))
        parts.append(render_sample(example["term"], (true[0], true[1]), (predicted[0], predicted[1])))
    return [Group(*parts)]


def _words(name: str) -> str:
    return name.replace("_", " ")
