"""A walk meets every file of a tree once; what it skips has a reason, and hostile entries are never opened."""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from producers.source_code.exclusions import Exclusions
from producers.source_code.skip_reasons import SKIP_REASONS
from producers.source_code.sources import given_folders, open_source
from producers.source_code.walking import Entry, WalkRules, walk
from schema.errors import UsageError

RULES = WalkRules(Exclusions(), 1000)


def tree(top: Path, *paths: str) -> Path:
    """Make files with one line each; a path that ends in "/" is a folder."""
    for path in paths:
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        if path.endswith("/"):
            (top / path).mkdir(exist_ok=True)
        else:
            (top / path).write_text("x = 1\n")
    return top


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=Somebody", "-c", "user.email=somebody@example.org", "-c", "protocol.file.allow=always")
    return subprocess.run(
        ["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


def entries(*paths: Path, rules: WalkRules = RULES) -> list[Entry]:
    return list(walk([open_source(folder) for folder in given_folders(map(str, paths))], rules))


def found(*paths: Path, rules: WalkRules = RULES) -> dict[str, str | None]:
    """Return {path: reason or None} of all entries."""
    met = entries(*paths, rules=rules)
    assert len({(entry.source.top, entry.path) for entry in met}) == len(met)
    return {entry.path: entry.skipped for entry in met}


def on_disk(top: Path) -> int:
    """Count what is no folder, outside of .git, as `find` would."""
    return sum(
        len(files) + sum((Path(folder) / name).is_symlink() for name in folders)
        for folder, folders, files in os.walk(top)
        if ".git" not in Path(folder).parts
    )


def test_files_of_known_languages_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    tree(tmp_path, "b.py", "a/z.rs", "a/b/c.md", "B.py", "e/")
    assert list(found(tmp_path).items()) == [
        ("B.py", None),
        ("b.py", None),
        ("a/z.rs", None),
        ("a/b/c.md", None),
    ]


def test_each_kind_of_file_has_its_reason(tmp_path: Path) -> None:
    tree(tmp_path, "a.py", "logo.png", "data.xyz", "Cargo.lock", "vendor/v/a.py", "x/node_modules/a.js")
    (tmp_path / "large.py").write_text("x" * 1001)
    os.mkfifo(tmp_path / "fifo.py")
    assert found(tmp_path) == {
        "a.py": None,
        "logo.png": "binary",
        "data.xyz": "unknown_language",
        "Cargo.lock": "lock_file",
        "vendor/v/a.py": "vendored",
        "x/node_modules/a.js": "node_modules",
        "large.py": "too_large",
        "fifo.py": "special_file",
    }


def test_links_are_never_followed(tmp_path: Path) -> None:
    top = tree(tmp_path / "top", "a.py", "d/b.py")
    tree(tmp_path, "outside.py")
    for name, target in {
        "inside.py": "a.py",
        "up": ".",
        "d/up": "..",
        "circle": "circle",
        "root": "/",
        "out.py": "../outside.py",
        "gone.py": "nothing.py",
        "folder": "d",
    }.items():
        (top / name).symlink_to(target)
    assert found(top) == {
        "a.py": None,
        "d/b.py": None,
        "inside.py": "link",
        "folder": "link",
        "up": "link_loop",
        "d/up": "link_loop",
        "circle": "link_loop",
        "root": "link_out_of_tree",
        "out.py": "link_out_of_tree",
        "gone.py": "link_broken",
    }


def test_a_path_that_is_a_link_is_the_folder_that_it_leads_to(tmp_path: Path) -> None:
    tree(tmp_path, "d/a.py")
    (tmp_path / "link").symlink_to("d")
    (only,) = entries(tmp_path / "link")
    assert (only.path, only.source.repository) == ("a.py", "d")


def test_names_that_are_not_utf8_are_counted(tmp_path: Path) -> None:
    tree(tmp_path, "ok.py", "naïve.py")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.py")).write_text("x = 1\n")
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    folder.mkdir()
    (folder / "in.py").write_text("x = 1\n")
    assert Counter(found(tmp_path).values()) == {None: 2, "name_not_utf8": 2}


def test_a_folder_of_a_repository_whose_name_is_not_utf8_can_be_given(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    tree(folder, "a.py")
    assert list(found(folder).values()) == ["name_not_utf8"]


def test_files_of_a_folder_that_cannot_be_listed_are_one_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(tmp_path, "a.py", "locked/b.py")
    listed = os.scandir

    def refuse(path: Path) -> object:
        # Tests may run as root, whom no permission stops.
        if path.name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert found(tmp_path) == {"a.py": None, "locked/": "unreadable"}


def test_each_exclusion_can_be_on_or_off(tmp_path: Path) -> None:
    tree(tmp_path, "tests/a.py", "test_b.py", "benches/c.rs", "examples/d.rs", "third_party/e.c", "src/lib.rs")
    on = WalkRules(Exclusions(tests=True, benches=True, examples=True), 1000)
    off = WalkRules(Exclusions(vendor=False, node_modules=False, lock_files=False), 1000)
    assert found(tmp_path, rules=on) == {
        "tests/a.py": "test",
        "test_b.py": "test",
        "benches/c.rs": "bench",
        "examples/d.rs": "example",
        "third_party/e.c": "vendored",
        "src/lib.rs": None,
    }
    assert set(found(tmp_path, rules=off).values()) == {None}


def test_exclusions_do_not_look_at_the_folders_above_the_given_one(tmp_path: Path) -> None:
    tree(tmp_path, "vendor/tests/a.py")
    rules = WalkRules(Exclusions(tests=True), 1000)
    assert found(tmp_path / "vendor/tests", rules=rules) == {"a.py": None}


def test_git_ignored_files_are_skipped_and_git_itself_is_not_counted(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    tree(tmp_path, "a.py", "build/b.py", "d/c.py", "d/keep.py")
    (tmp_path / ".gitignore").write_text("build/\n*.md\n")
    (tmp_path / "d/.gitignore").write_text("*.py\n!keep.py\n")
    (tmp_path / ".git/info/exclude").write_text("secret.py\n")
    tree(tmp_path, "secret.py", "README.md")
    assert found(tmp_path) == {
        ".gitignore": "unknown_language",
        "README.md": "git_ignored",
        "a.py": None,
        "secret.py": "git_ignored",
        "build/b.py": "git_ignored",
        "d/.gitignore": "unknown_language",
        "d/c.py": "git_ignored",
        "d/keep.py": None,
    }


def test_a_folder_inside_a_repository_has_its_ignore_rules_and_its_paths(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    tree(tmp_path, "a/src/b.py", "a/src/c.tmp.py", "d.py")
    (tmp_path / ".gitignore").write_text("*.tmp.py\n")
    assert found(tmp_path / "a/src") == {"a/src/b.py": None, "a/src/c.tmp.py": "git_ignored"}


def test_a_folder_that_the_repository_around_it_ignores_is_no_part_of_it(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    tree(tmp_path, "env/pkg/a.py")
    (tmp_path / ".gitignore").write_text("/env/\n")
    (only,) = entries(tmp_path / "env/pkg")
    assert (only.path, only.skipped, only.source.repository) == ("a.py", None, "pkg")


def test_a_submodule_is_skipped_and_can_be_given_as_a_path_of_its_own(tmp_path: Path) -> None:
    inner, outer = tree(tmp_path / "inner", "lib.rs"), tree(tmp_path / "outer", "main.rs")
    for folder in (inner, outer):
        git(folder, "init", "--quiet")
        git(folder, "add", ".")
        git(folder, "commit", "--quiet", "-m", "Begin")
    git(outer, "submodule", "--quiet", "add", str(inner), "sub")
    assert found(outer) == {".gitmodules": "unknown_language", "main.rs": None, "sub/lib.rs": "submodule"}
    both = {(entry.source.repository, entry.path): entry.skipped for entry in entries(outer, outer / "sub")}
    assert both == {("outer", ".gitmodules"): "unknown_language", ("outer", "main.rs"): None, ("inner", "lib.rs"): None}


def test_repositories_and_crates_in_a_plain_folder_are_sources_of_their_own(tmp_path: Path) -> None:
    tree(tmp_path, "loose.py", "one/a.py", "crates/two/src/lib.rs", "crates/two/vendor/x/Cargo.toml", "plain/c.py")
    git(tmp_path / "one", "init", "--quiet")
    (tmp_path / "one/.gitignore").write_text("ignored.py\n")
    tree(tmp_path, "one/ignored.py")
    (tmp_path / "crates/two/Cargo.toml").write_text('[package]\nname = "second"\n')
    met = {(entry.source.repository, entry.path): entry.skipped for entry in entries(tmp_path)}
    assert met == {
        (tmp_path.name, "loose.py"): None,
        (tmp_path.name, "plain/c.py"): None,
        ("one", "a.py"): None,
        ("one", "ignored.py"): "git_ignored",
        ("one", ".gitignore"): "unknown_language",
        ("second", "Cargo.toml"): None,
        ("second", "src/lib.rs"): None,
        ("second", "vendor/x/Cargo.toml"): "vendored",
    }


def test_packages_of_a_site_packages_folder_are_sources_of_their_own(tmp_path: Path) -> None:
    top = tree(tmp_path / "site-packages", "one/__init__.py", "one/in/__init__.py", "two/__init__.py", "single.py")
    names = {entry.path: entry.source.repository for entry in entries(top)}
    assert names == {"__init__.py": "two", "in/__init__.py": "one", "single.py": "site-packages"}


def test_a_bare_repository_has_no_files(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet", "--bare", "bare.git")
    with pytest.raises(UsageError, match="bare repository, which has no files: clone it, or add --git-history"):
        given_folders([str(tmp_path / "bare.git")])
    (folder,) = given_folders([str(tmp_path / "bare.git")], bare=True)
    assert list(walk([open_source(folder)], RULES)) == []
    tree(tmp_path, "a.py")
    reasons = Counter(found(tmp_path).values())
    assert reasons == {None: 1, "bare_repository": on_disk(tmp_path) - 1}


@pytest.mark.parametrize(("name", "complaint"), [("absent", "does not exist"), ("a.py", "is not a folder")])
def test_a_path_that_is_no_folder_is_refused_by_name(tmp_path: Path, name: str, complaint: str) -> None:
    tree(tmp_path, "a.py")
    with pytest.raises(UsageError, match=f"{name} {complaint}: "):
        given_folders([str(tmp_path), str(tmp_path / name)])


def test_paths_inside_one_another_are_read_once(tmp_path: Path) -> None:
    tree(tmp_path, "a.py", "d/b.py", "d/e/c.py")
    met = entries(tmp_path, tmp_path / "d/e", tmp_path, tmp_path / "d")
    assert sorted((entry.source.repository, entry.path) for entry in met) == [
        ("d", "b.py"),
        ("e", "c.py"),
        (tmp_path.name, "a.py"),
    ]


def test_every_file_on_disk_is_met_once_and_has_a_known_reason(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    tree(tmp_path, "a.py", "vendor/deep/er/b.py", "node_modules/x/y.js", "tests/t.py", "d/e/f/g.rs", "build/x/z.o")
    (tmp_path / ".gitignore").write_text("build\n")
    (tmp_path / "d/link").symlink_to("..")
    os.mkfifo(tmp_path / "vendor/fifo")
    met = found(tmp_path)
    assert len(met) == on_disk(tmp_path)
    assert set(met.values()) - {None} <= set(SKIP_REASONS)


def test_a_tree_deeper_than_the_recursion_limit_is_walked(tmp_path: Path) -> None:
    depth = 1200
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=here)
        there = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = there
    os.close(os.open("a.py", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)
    try:
        assert found(tmp_path) == {"d/" * depth + "a.py": None}
    finally:
        # Pytest removes old folders by recursion, which such a tree would break.
        subprocess.run(["rm", "-r", tmp_path / "d"], check=True)
