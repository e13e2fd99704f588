"""The files that the walk takes for ignored are those that git ignores."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producers.source_code.gitignore import IgnoreRules, ignore_rules, is_ignored

NAMES = ("a", "b", "ab", "b.c", "x y")
FOLDERS = ("a/", "b/", "a/b/", "ab/", "")
PATHS = tuple(f"{folder}{name}" for folder in FOLDERS for name in NAMES if f"{folder}{name}/" not in FOLDERS)

PIECES = st.sampled_from(
    [
        *("a", "b", "ab", "*", "**", "?", "b.c", "*.c", "[ab]", "[!a]", "[[:alpha:]]", "x\\ y", "\\a"),
        *("*a*b*", "*b*.*c*", "*?*"),
    ]
)
PATTERNS = st.tuples(
    st.sampled_from(["", "!", "/", "!/", "\\!", "#", "\\#"]),
    st.lists(PIECES, min_size=1, max_size=3).map("/".join),
    st.sampled_from(["", "/", " ", "/**"]),
).map("".join)
IGNORE_FILES = st.lists(PATTERNS, max_size=4).map("\n".join)


def git(folder: Path, *arguments: str, given: str = "") -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), "-c", "core.excludesFile=/dev/null", *arguments],
        input=given,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


def ignored_by_walk(top: Path) -> set[str]:
    """Return the ignored files of a tree, by a plain recursion with the functions under test."""
    found: set[str] = set()

    def visit(folder: str, rules: tuple[IgnoreRules, ...], ignored: bool) -> None:
        rules = (*rules, *ignore_rules(top / folder / ".gitignore", folder))
        for entry in sorted((top / folder).iterdir()):
            path = f"{folder}{entry.name}"
            if entry.name in (".git", ".gitignore"):
                continue
            out = ignored or is_ignored(rules, path, is_folder=entry.is_dir())
            if entry.is_dir():
                visit(f"{path}/", rules, out)
            elif out:
                found.add(path)

    visit("", ignore_rules(top / ".git/info/exclude"), False)
    return found


def make_tree(top: Path) -> None:
    git(top, "init", "--quiet")
    for path in PATHS:
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        (top / path).write_text("")


@pytest.mark.slow
@settings(max_examples=60)
@given(outer=IGNORE_FILES, inner=IGNORE_FILES, exclude=IGNORE_FILES)
def test_nested_ignore_files_mean_what_git_says(outer: str, inner: str, exclude: str) -> None:
    with TemporaryDirectory() as folder:
        top = Path(folder)
        make_tree(top)
        (top / ".gitignore").write_text(outer)
        (top / "a/.gitignore").write_text(inner)
        (top / ".git/info/exclude").write_text(exclude)
        assert ignored_by_walk(top) == set(git(top, "check-ignore", "--stdin", given="\n".join(PATHS)).splitlines())


def test_a_negation_brings_a_file_back_but_not_from_an_ignored_folder(tmp_path: Path) -> None:
    make_tree(tmp_path)
    (tmp_path / ".gitignore").write_text("*.c\n!/b.c\nab/\n!ab/a\n")
    assert ignored_by_walk(tmp_path) == {"a/b.c", "b/b.c", "a/b/b.c", *(f"ab/{name}" for name in NAMES)}


def test_an_ignore_file_that_is_a_link_or_missing_has_no_rules(tmp_path: Path) -> None:
    (tmp_path / "rules").write_text("*\n")
    (tmp_path / ".gitignore").symlink_to("rules")
    assert ignore_rules(tmp_path / ".gitignore") == ()
    assert ignore_rules(tmp_path / "absent") == ()


def test_a_pattern_of_many_stars_takes_no_time(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("*a" * 30 + "b\n" + "**/" * 30 + "*a*a*a*ab\n!" + "*a" * 9 + "c\n")
    rules = ignore_rules(tmp_path / ".gitignore")
    began = time.monotonic()
    names = ("a" * 255, "a/" * 1000 + "a", "a" * 254 + "b", "a" * 254 + "c")
    assert [is_ignored(rules, name, is_folder=False) for name in names] == [False, False, True, False]
    assert time.monotonic() - began < 5


def test_a_hostile_ignore_file_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / ".gitignore"
    path.write_text("".join(f"name{number}\n" for number in range(20_000)))
    ((rules,)) = ignore_rules(path)
    assert len(rules.patterns) == 10_000
    path.write_text("a\n" * 600_000)
    assert ignore_rules(path) == ()


def test_a_byte_order_mark_is_no_part_of_the_first_pattern(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_bytes(b"\xef\xbb\xbfa\n")
    assert is_ignored(ignore_rules(tmp_path / ".gitignore"), "a", is_folder=False)
