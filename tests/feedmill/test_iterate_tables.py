"""The table of an iteration fits into 80 columns, whatever its numbers are."""

from __future__ import annotations

import io

from rich.console import Console

from feedmill.iterate_tables import rounds_table


def test_a_table_of_large_numbers_is_at_most_80_wide() -> None:
    figures = {
        "compile_rate": 0.876,
        "compile_rate_interval": (0.8123, 0.9123),
        "avg_warnings": 10.56,
        "avg_idiomatic_score": 0.75,
        "doc_comment_rate": 1.0,
    }
    last = {
        **figures,
        "round": 10,
        "written": {"samples": 128_000, "compile_rate": 1.0},
        "kept": 64_000,
        "new_on_clean": 64_000,
        "first_loss": 10.123,
        "last_loss": 2.5,
    }
    first = {**dict.fromkeys(figures), "round": 0}
    out = io.StringIO()
    table = rounds_table({"rounds": [first, last], "control": [{**last, "written": None}]})
    Console(file=out, width=80).print(table)
    lines = out.getvalue().splitlines()
    assert len(lines) == 4
    assert "…" not in out.getvalue()
    assert "87.6% (81.2-91.2) 10.6  0.75 1.00 128,000, 100% 64,000 64,000 10.12-2.50" in lines[2]
    assert lines[1].split()[:3] == ["0", "0.0%", "(0.0-0.0)"]
