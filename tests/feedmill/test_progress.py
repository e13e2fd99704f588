"""Progress on stderr: plain lines where there is no terminal."""

from __future__ import annotations

import pytest

from feedmill.progress import progress


@pytest.mark.parametrize(
    ("unit", "note", "line"),
    [
        ("offsets", "0 left in raw", "draining: 108 of 108 offsets, 0 left in raw"),
        ("", "0 left in raw", "draining: 108 of 108, 0 left in raw"),
        ("offsets", "", "draining: 108 of 108 offsets"),
        ("", "", "draining: 108 of 108"),
    ],
)
def test_progress_line_separates_the_count_from_the_note(
    unit: str, note: str, line: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with progress("draining", 108, unit) as advance:
        advance(108, note)
    assert capfd.readouterr().err == f"{line}\n"
