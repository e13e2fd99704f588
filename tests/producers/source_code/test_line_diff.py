"""A diff makes the second text of the first, is what git applies, and takes bounded time."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.source_code.line_diff import changed_blocks, patched, unified_diff

# Few different lines, so that lines are common, repeated and moved; \r and \x0b end no line.
LINES = st.sampled_from(["", "a", "b", "c", " a", "\r", "x\x0by", "\\ No newline at end of file", "-", "@@ -1 +1 @@"])
TEXTS = st.tuples(st.lists(LINES, max_size=30), st.booleans()).map(lambda t: "\n".join(t[0]) + "\n" * t[1])


@given(TEXTS, TEXTS)
def test_a_text_patched_by_its_diff_is_the_other_text(before: str, after: str) -> None:
    diff = unified_diff(before, after, "a.py", "b.py")
    assert (diff == "") == (before == after)
    assert patched(before, diff) == after


@given(TEXTS, TEXTS)
def test_lines_outside_the_changed_blocks_are_common(before: str, after: str) -> None:
    old, new = before.split("\n"), after.split("\n")
    at = new_at = 0
    for begin, end, new_begin, new_end in [*changed_blocks(old, new), (len(old), len(old), len(new), len(new))]:
        assert old[at:begin] == new[new_at:new_begin]
        at, new_at = end, new_end


@pytest.mark.slow
def test_git_applies_the_diff(tmp_path: Path) -> None:
    cases = [("a\nb\n", "a\nc"), ("a\nb", "a\nb\n"), ("", "a\n"), ("a\n" * 9, "a\n" * 4 + "b\n" + "a\n" * 4), ("x", "")]
    for number, (before, after) in enumerate(cases):
        file = tmp_path / f"{number}.txt"
        file.write_text(before, newline="")
        diff = unified_diff(before, after, file.name, file.name)
        git = ["git", "apply", "--unidiff-zero", "-"]
        subprocess.run(git, cwd=tmp_path, input=diff, text=True, check=True, timeout=60)
        assert file.read_text() == after


def test_a_small_change_gives_a_small_diff() -> None:
    old = [f"line {number % 7}" for number in range(300)]
    new = [*old[:100], "new", *old[100:200], *old[201:]]
    assert changed_blocks(old, new) == [(100, 100, 100, 101), (200, 201, 201, 201)]


def test_two_long_texts_without_unique_lines_take_bounded_time() -> None:
    old = [str(number % 50) for number in range(20_000)]
    new = [str(number * 7 % 51) for number in range(20_000)]
    started = time.monotonic()
    assert patched("\n".join(old), unified_diff("\n".join(old), "\n".join(new), "a", "a")) == "\n".join(new)
    assert time.monotonic() - started < 20


def test_a_diff_for_another_text_is_refused() -> None:
    with pytest.raises(ValueError, match="line 1 of the text"):
        patched("z\n", unified_diff("a\n", "b\n", "a", "a"))
