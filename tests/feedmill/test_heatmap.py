"""The heatmap: readable in 80 columns, with and without colours."""

from __future__ import annotations

import io

from rich.console import Console

from feedmill.coverage_tables import report_tables
from feedmill.heatmap import SHADES, compact, heatmap
from schema.family import cell_label
from schema.ledger_entries import COUNTS
from schema.registry import FAMILIES
from streams.coverage.grid import cell_grid
from streams.coverage.report import coverage_report
from streams.coverage.store import Counts

FAMILY = FAMILIES["reduction"]
LABELS = [cell_label(cell) for cell in FAMILY.cells() if FAMILY.cell_possible(cell)]
CELLS = {label: 10 ** (number % 9) for number, label in enumerate(LABELS) if number % 5}


def drawn(cells: dict[str, int], *, colour: bool) -> str:
    console = Console(file=io.StringIO(), width=80, force_terminal=colour, color_system="truecolor" if colour else None)
    console.print(heatmap(FAMILY, cells))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_it_fits_80_columns_and_cuts_no_figure() -> None:
    text = drawn(CELLS, colour=False)
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "…" not in text


def test_without_colour_shades_show_more_and_less() -> None:
    fewer, more = LABELS[0], LABELS[-1]
    text = drawn({fewer: 3, more: 3000}, colour=False)
    assert f"{SHADES[1]}    3 1/" in text
    assert f"{SHADES[4]} 3.0k 1/" in text
    assert "\x1b" not in text


def test_with_colour_slots_have_a_background() -> None:
    assert "48;2;" in drawn(CELLS, colour=True)


def test_a_slot_says_how_many_of_its_possible_cells_are_covered() -> None:
    grid = cell_grid(FAMILY, CELLS)
    slots = [slot for line in grid.slots for slot in line]
    assert sum(slot.rows for slot in slots) == sum(CELLS.values())
    assert sum(slot.covered for slot in slots) == len(CELLS)
    assert sum(slot.possible for slot in slots) == len(LABELS)
    assert "0 0/" in drawn({}, colour=False)
    assert "·" in drawn({}, colour=False), "impossible slots differ from empty ones"


def test_heat_grows_with_rows_and_uses_all_levels() -> None:
    grid = cell_grid(FAMILY, {label: 4**number for number, label in enumerate(LABELS[:40])})
    slots = sorted((slot for line in grid.slots for slot in line if slot.rows), key=lambda slot: slot.rows)
    heats = [grid.heat(slot, 4) for slot in slots]
    assert heats == sorted(heats)
    assert set(heats) == {1, 2, 3, 4}


def test_counts_are_short() -> None:
    counts = (0, 999, 1000, 9949, 9951, 999_400, 1_000_000, 43_000_000)
    assert [compact(count) for count in counts] == ["0", "999", "1.0k", "9.9k", "10k", "999k", "1.0M", "43M"]


def test_an_unbalanced_account_is_marked() -> None:
    totals = dict.fromkeys(("entries", *COUNTS), 1)
    report = coverage_report(FAMILY, Counts(totals, {}, {}, (), None, {}))
    console = Console(file=io.StringIO(), width=80)
    console.print(report_tables(FAMILY, report))
    assert isinstance(console.file, io.StringIO)
    assert "1 rows in ≠ 1 clean + 1 rejected + 1 rerouted + 1 lost to retention" in console.file.getvalue()
