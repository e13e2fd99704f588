"""Evolutions of real repositories: what each rule leaves out, that diffs apply, and that nothing is executed."""

from __future__ import annotations

import os
import subprocess
import tracemalloc
import zlib
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from dulwich.objects import Blob, Tree
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from producers.source_code.evolution import Evolution, EvolutionOptions, evolutions, evolutions_of
from producers.source_code.git_repository import Repository, control_folder
from producers.source_code.line_diff import patched
from schema.errors import UsageError
from tests.git_histories import EXECUTABLE, SUBMODULE, SYMLINK, MadeHistory

OLD, NEW = b"def area(r):\n    return r * r\n", b"def area(r):\n    return 3 * r * r\n"
LINES = b"".join(b"line_%d = %d\n" % (number, number) for number in range(20))


def read(path: Path, options: EvolutionOptions | None = None) -> tuple[list[Evolution], Counter[str]]:
    counts: Counter[str] = Counter()
    return list(evolutions(path, options or EvolutionOptions(), counts)), counts


def left_out(path: Path, options: EvolutionOptions | None = None) -> Counter[str]:
    found, counts = read(path, options)
    assert found == []
    return counts


@pytest.fixture
def history(tmp_path: Path) -> MadeHistory:
    return MadeHistory(tmp_path / "repository")


def test_a_changed_file_gives_both_versions_the_diff_the_message_and_the_date(history: MadeHistory) -> None:
    history.commit({"geometry/area.py": OLD, "other.py": OLD})
    commit = history.commit({"geometry/area.py": NEW, "other.py": OLD}, b"Use a better pi\n")
    (found,), counts = read(history.path)
    assert found.commit == commit.decode()
    assert (found.path, found.old_path, found.language) == ("geometry/area.py", "geometry/area.py", "python")
    assert (found.before, found.after) == (OLD.decode(), NEW.decode())
    assert found.author_date == "2023-11-14T22:13:21Z"
    assert found.text == (
        "Use a better pi\n\n--- a/geometry/area.py\n+++ b/geometry/area.py\n"
        "@@ -1,2 +1,2 @@\n def area(r):\n-    return r * r\n+    return 3 * r * r\n"
    )
    assert counts == {"change_added": 2}


SIMPLE_CHANGES = [
    ({"a.py": OLD}, {"a.py": (EXECUTABLE, OLD)}, "change_mode_only"),
    ({"a.py": OLD}, {"a.py": OLD, "b.py": NEW}, "change_added"),
    ({"a.py": OLD, "b.py": NEW}, {"b.py": NEW}, "change_deleted"),
    ({"a.py": OLD}, {"c.py": OLD}, "change_renamed_only"),
    ({"a.py": (SYMLINK, b"x")}, {"a.py": (SYMLINK, b"y")}, "change_symlink"),
    ({"a": (SUBMODULE, b"1" * 40)}, {"a": (SUBMODULE, b"2" * 40)}, "change_submodule"),
    ({"a.py": b"x\0"}, {"a.py": b"y\0"}, "change_binary"),
    ({"a.py": b"\xff\n"}, {"a.py": b"x\n"}, "change_not_utf8"),
    ({"a.py": OLD}, {"a.py": b"def area(r): # square\n  return (r*r)\n"}, "change_formatting_only"),
    ({"a.rs": b"fn f() { g(1, 2) }"}, {"a.rs": b"// f\nfn f() {\n  g(1,2)\n}"}, "change_formatting_only"),
    ({"a.md": b"a b\n"}, {"a.md": b"a\nb\n"}, "change_formatting_only"),
    ({"a.unknown": b"a\n"}, {"a.unknown": b"b\n"}, "change_language_unknown"),
    ({b"\xff.py": OLD}, {b"\xff.py": NEW}, "change_path_invalid"),
    ({b"a\n.py": OLD}, {b"a\n.py": NEW}, "change_path_invalid"),
    ({"a.py": b"x = 1\n" * 40_000}, {"a.py": NEW}, "change_too_large"),
    ({"a.py": b"# alice@corp.io\nx = 1\n"}, {"a.py": b"# bob@corp.io\nx = 1\n"}, "change_secret_only"),
    (
        {"a.txt": b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n"},
        {"a.txt": b"version https://git-lfs.github.com/spec/v1\noid sha256:2\n"},
        "change_lfs_pointer",
    ),
]


@pytest.mark.parametrize(("first", "second", "reason"), SIMPLE_CHANGES)
def test_a_change_that_teaches_nothing_is_counted_under_its_reason(
    history: MadeHistory,
    first: dict[str | bytes, bytes | tuple[int, bytes]],
    second: dict[str | bytes, bytes | tuple[int, bytes]],
    reason: str,
) -> None:
    history.commit(first)
    base = left_out(history.path)
    assert sum(base.values()) == len(first)
    history.commit(second)
    assert left_out(history.path) - base == {reason: 1}


def test_a_file_that_was_renamed_and_changed_is_an_evolution(history: MadeHistory) -> None:
    history.commit({"old/a.py": LINES, "b.py": OLD})
    history.commit({"new/a.py": LINES.replace(b"= 7", b"= 70"), "new/c.py": OLD})
    (found,), counts = read(history.path)
    assert (found.old_path, found.path) == ("old/a.py", "new/a.py")
    assert "--- a/old/a.py\n+++ b/new/a.py\n" in found.diff
    assert counts == {"change_added": 2, "change_renamed_only": 1}


def test_a_merge_is_counted_and_both_its_sides_are_read(history: MadeHistory) -> None:
    first = history.commit({"a.py": OLD, "b.py": OLD})
    left = history.commit({"a.py": NEW, "b.py": OLD}, b"left")
    right = history.commit({"a.py": OLD, "b.py": NEW}, b"right", parents=[first])
    history.commit({"a.py": NEW, "b.py": NEW}, b"merge", parents=[left, right])
    found, counts = read(history.path)
    assert [each.message for each in found] == ["left", "right"]
    assert counts["commit_merge"] == 1


def test_parents_come_before_children_whatever_the_clocks_said(history: MadeHistory) -> None:
    commits = [history.commit({"a.py": b"x = %d\n" % number}) for number in range(5)]
    with Repository(history.path) as repository:
        assert list(repository.commits(100).ids) == commits
        last = repository.commits(2)
    assert list(last.ids) == commits[3:]
    assert last.skipped == {"commit_beyond_limit": 3}


@pytest.mark.slow
def test_a_commit_of_50_000_files_is_left_out_without_reading_them(history: MadeHistory) -> None:
    history.commit({"a.py": OLD})
    tree = Tree()
    for number in range(50_000):
        # The blobs do not exist: reading one would count as missing.
        tree.add(b"f%05d.py" % number, 0o100644, b"%040x" % number)
    history.repo.object_store.add_object(tree)
    history.commit_tree(tree.id)
    assert left_out(history.path) == {"change_added": 1, "commit_too_many_files": 1}


def test_trees_without_end_are_left_out(history: MadeHistory) -> None:
    history.commit({"a.py": OLD})
    inner = Tree()
    for _ in range(30):
        history.repo.object_store.add_object(inner)
        outer = Tree()
        for name in (b"a", b"b", b"c"):
            outer.add(name, 0o040000, inner.id)
        inner = outer
    history.repo.object_store.add_object(inner)
    history.commit_tree(inner.id)
    assert left_out(history.path)["commit_too_many_files"] == 1


def test_a_file_that_inflates_to_much_more_than_it_says_is_damaged(history: MadeHistory) -> None:
    history.commit({"a.py": OLD})
    history.commit({"a.py": NEW})
    name = Blob.from_string(NEW).id.decode()
    path = history.objects / name[:2] / name[2:]
    path.chmod(0o644)
    path.write_bytes(zlib.compress(b"blob 20\0" + bytes(64 << 20), 1))
    tracemalloc.start()
    assert left_out(history.path) == {"change_added": 1, "change_damaged": 1}
    assert tracemalloc.get_traced_memory()[1] < 20 << 20
    tracemalloc.stop()


@pytest.mark.slow
def test_a_file_of_200_mb_is_counted_by_its_header(history: MadeHistory) -> None:
    history.commit({"a.py": OLD})
    history.commit({"a.py": bytes(200 << 20)})
    tracemalloc.start()
    assert left_out(history.path) == {"change_added": 1, "change_too_large": 1}
    assert tracemalloc.get_traced_memory()[1] < 20 << 20
    tracemalloc.stop()


def test_a_shallow_clone_begins_after_its_boundary(history: MadeHistory) -> None:
    commits = [history.commit({"a.py": b"x = %d\n" % number}) for number in range(4)]
    (Path(history.repo.controldir()) / "shallow").write_bytes(commits[1] + b"\n")
    for name in (commits[0].decode(),):
        (history.objects / name[:2] / name[2:]).unlink()
    found, counts = read(history.path)
    assert [each.after for each in found] == ["x = 2\n", "x = 3\n"]
    assert counts == {"commit_shallow_boundary": 1}


def test_a_missing_commit_ends_the_history_and_its_child_has_no_before(history: MadeHistory) -> None:
    commits = [history.commit({"a.py": b"x = %d\n" % number}).decode() for number in range(3)]
    (history.objects / commits[0][:2] / commits[0][2:]).unlink()
    found, counts = read(history.path)
    assert [each.after for each in found] == ["x = 2\n"]
    assert counts == {"commit_missing": 1, "commit_parent_missing": 1}


def test_a_repository_without_commits_has_no_evolutions(history: MadeHistory) -> None:
    assert left_out(history.path) == {}


def test_a_bare_repository_and_a_linked_folder_have_the_history(tmp_path: Path) -> None:
    history = MadeHistory(tmp_path / "bare.git", bare=True)
    history.commit({"a.py": OLD})
    history.commit({"a.py": NEW})
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / ".git").write_text("gitdir: ../bare.git\n")
    assert len(read(history.path)[0]) == len(read(linked)[0]) == 1


def test_a_folder_without_a_repository_is_refused(tmp_path: Path) -> None:
    assert control_folder(tmp_path) is None
    with pytest.raises(UsageError, match="is no git repository"):
        read(tmp_path)


def test_a_damaged_head_is_an_error_with_a_next_step(history: MadeHistory) -> None:
    history.commit({"a.py": OLD})
    head = Path(history.repo.controldir()) / "HEAD"
    for content, message in ((b"\xff\xfe", "is no commit"), (b"a" * 64, "SHA-256"), (b"ref: refs/../../x", "")):
        head.write_bytes(content)
        if message:
            with pytest.raises(UsageError, match=message):
                read(history.path)
        else:
            assert left_out(history.path) == {}
    head.unlink()
    with pytest.raises(UsageError, match="missing or damaged"):
        read(history.path)
    os.mkfifo(head)
    with pytest.raises(UsageError, match="missing or damaged"):
        read(history.path)


def test_messages_are_read_in_the_encoding_that_they_declare(history: MadeHistory) -> None:
    history.commit({"a.py": b"x = 0\n"})
    history.commit({"a.py": b"x = 1\n"}, b"Caf\xe9", encoding=b"ISO-8859-1")
    history.commit({"a.py": b"x = 2\n"}, b"Caf\xe9")
    history.commit({"a.py": b"x = 3\n"}, b"x", encoding=b"zlib")
    found, counts = read(history.path)
    assert [each.message for each in found] == ["Café", "x"]
    assert counts == {"change_added": 1, "commit_message_not_text": 1}


@pytest.mark.parametrize("time", [-1, 10**15])
def test_a_commit_with_an_impossible_date_is_left_out(history: MadeHistory, time: int) -> None:
    history.commit({"a.py": OLD})
    history.commit({"a.py": NEW}, author_time=time)
    assert left_out(history.path) == {"change_added": 1, "commit_date_invalid": 1}


def test_a_secret_is_replaced_in_message_texts_and_diff_and_the_diff_still_applies(history: MadeHistory) -> None:
    token = b"ghp_" + b"a1B2" * 9
    history.commit({"a.py": b"key = '%s'\nx = 1\n" % token})
    history.commit({"a.py": b"key = '%s'\nx = 2\n" % token}, b"Use %s\n\nSigned-off-by: A <alice@corp.io>" % token)
    (found,), _ = read(history.path)
    assert token.decode() not in "".join(map(str, found))
    assert "corp.io" not in found.text
    assert found.message == "Use SCRUBBED_SECRET\n\nSigned-off-by: A <email@example.com>"
    assert patched(found.before, found.diff) == found.after
    assert found.scrubbed == {"github": 3, "email": 1}


def test_a_text_over_the_limit_is_left_out(history: MadeHistory) -> None:
    history.commit({"a.py": LINES})
    history.commit({"a.py": LINES.replace(b"line", b"row")})
    assert left_out(history.path, EvolutionOptions(max_characters=300))["change_too_long"] == 1


def test_a_path_rule_of_the_caller_is_counted_under_its_reason(history: MadeHistory) -> None:
    history.commit({"vendor/a.py": OLD})
    history.commit({"vendor/a.py": NEW})
    options = EvolutionOptions(skip=lambda path: "vendored" if path.startswith("vendor/") else None)
    assert left_out(history.path, options) == {"change_added": 1, "vendored": 1}


FILES = st.dictionaries(
    st.sampled_from(["a.py", "b.py", "d/a.py", "d/c.rs", "e.md"]),
    st.lists(st.sampled_from(["x = 1", "y = 2", "", "z", "def f():"]), max_size=8).map("\n".join),
    max_size=4,
)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(FILES, min_size=1, max_size=6))
def test_changes_of_random_histories_are_evolutions_or_counted_and_every_diff_applies(
    tmp_path_factory: pytest.TempPathFactory, versions: list[dict[str, str]]
) -> None:
    history = MadeHistory(tmp_path_factory.mktemp("history"))
    for files in versions:
        history.commit({path: text.encode() for path, text in files.items()})
    found, counts = read(history.path)
    assert all(patched(each.before, each.diff) == each.after for each in found)
    assert [(each.commit, each.path) for each in read(history.path)[0]] == [(each.commit, each.path) for each in found]
    places = [{}, *versions]
    touched = sum(sum(old.get(path) != new.get(path) for path in {*old, *new}) for old, new in pairwise(places))
    # A rename touches two paths and is one change.
    renames = counts["change_renamed_only"] + sum(each.old_path != each.path for each in found)
    lost = counts["change_formatting_only"]
    assert touched - len(found) - sum(counts.values()) in range(renames, renames + lost + 1)


def test_units_of_a_history_give_what_the_whole_gives(history: MadeHistory) -> None:
    for number in range(6):
        history.commit({"a.py": b"x = %d\n" % number, "b.py": b"y = %d\n" % (number // 2)})
    whole, counts = read(history.path)
    parts: list[Evolution] = []
    part_counts: Counter[str] = Counter()
    with Repository(history.path) as repository:
        ids = repository.commits(100).ids
        for commit in ids:
            parts += evolutions_of(repository, [commit], EvolutionOptions(), part_counts)
    assert (parts, part_counts) == (whole, counts)


@pytest.mark.slow
def test_a_packed_history_with_deltas_gives_the_same_and_damage_is_counted(history: MadeHistory) -> None:
    for number in range(12):
        history.commit(
            {"a.py": LINES + b"# %d\nx = %d\n" % (number, number), "d/b.py": LINES * 3 + b"y = %d\n" % number}
        )
    loose = read(history.path)
    subprocess.run(["git", "-C", history.path, "gc", "-q"], check=True, timeout=60)
    assert not list(history.objects.glob("??/*"))
    assert read(history.path) == loose
    (pack,) = history.objects.glob("pack/*.pack")
    data = pack.read_bytes()
    pack.chmod(0o644)
    for at in range(12, len(data), len(data) // 25):
        pack.write_bytes(data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :])
        try:
            found, _ = read(history.path)
        except UsageError:
            continue
        # One byte damages one object at least, and those that are deltas of it.
        assert {(each.commit, each.path) for each in found} <= {(each.commit, each.path) for each in loose[0]}
        assert all(patched(each.before, each.diff) == each.after for each in found)
    pack.write_bytes(data[:-2000])
    read(history.path)


def test_nothing_of_a_hostile_repository_is_executed_or_waited_for(history: MadeHistory, tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    run = f"touch {mark}"
    control = Path(history.repo.controldir())
    (control / "config").write_text(
        f'[core]\n\tfsmonitor = {run}\n\tsshCommand = {run}\n\thooksPath = .\n[filter "x"]\n\tsmudge = {run}\n'
        f'\tclean = {run}\n\tprocess = {run}\n[diff "x"]\n\ttextconv = {run}\n\tcommand = {run}\n'
        f"[diff]\n\texternal = {run}\n[include]\n\tpath = /dev/zero\n"
    )
    for name in ("post-checkout", "pre-commit", "reference-transaction"):
        hook = control / "hooks" / name
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(f"#!/bin/sh\n{run}\n")
        hook.chmod(0o755)
    history.commit({"a.py": OLD, ".gitattributes": b"*.py filter=x diff=x\n"})
    history.commit({"a.py": NEW, ".gitattributes": b"*.py filter=x diff=x\n"})
    os.mkfifo(control / "packed-refs")
    os.mkfifo(control / "shallow")
    (control / "objects" / "info").mkdir(exist_ok=True)
    (control / "objects" / "info" / "alternates").write_text("/dev\n.\n..\n")
    (control / "objects" / "pack").mkdir(exist_ok=True)
    os.mkfifo(control / "objects" / "pack" / "pack-1.pack")
    (control / "objects" / "pack" / "pack-1.idx").write_bytes(b"\377tOc\0\0\0\2" + b"\xff" * 2000)
    (control / "objects" / "pack" / "pack-2.idx").symlink_to("/dev/zero")
    assert len(read(history.path)[0]) == 1
    assert not mark.exists()
