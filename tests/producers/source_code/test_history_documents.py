"""With its git history, a run has a document for each change of a file, in the split of that file."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from producers.run import write_jsonl
from producers.source_code.components import sketch_documents
from producers.source_code.exclusions import Exclusions
from producers.source_code.grouping import Place, final_groups_of
from producers.source_code.run import CodeRun
from schema.errors import UsageError
from schema.source_code import FAMILY
from tests.producers.source_code.test_source_code_run import counts_of, program, rows_of
from tests.producers.source_code.test_walking import git


def commit(folder: Path, message: str) -> str:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "-m", message)
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with two changes of a.py, one of tests/b.py, and a rename that also changes the file."""
    top = tmp_path / "top"
    for path, name in {"a.py": "a", "tests/b.py": "b", "old.py": "o", "quiet.py": "q"}.items():
        program(top, path, name)
    git(top, "init", "--quiet")
    commit(top, "Begin")
    for number in (1, 2):
        with (top / "a.py").open("a") as stream:
            stream.write(f"\n\ndef more{number}() -> int:\n    return {number}\n")
        commit(top, f"Add more{number}, says somebody@mailhost.net")
    with (top / "tests/b.py").open("a") as stream:
        stream.write("\n\nassert add(1, 2)\n")
    commit(top, "Test it")
    (top / "old.py").rename(top / "new.py")
    with (top / "new.py").open("a") as stream:
        stream.write("\n\nassert add(3, 4)\n")
    commit(top, "Rename it")
    return top


def test_each_change_of_a_file_is_a_valid_document_beside_the_files(repository: Path) -> None:
    run = CodeRun(paths=[str(repository)], git_history=True)
    rows = rows_of(run)
    assert FAMILY.rules.filter(FAMILY.derive(rows.with_row_index("record")))[1].counts() == {}
    assert rows["kind"].to_list() == ["snapshot"] * 4 + ["evolution"] * 4
    changes = rows.filter(pl.col("kind") == "evolution")
    assert changes["path"].to_list() == ["a.py", "a.py", "tests/b.py", "new.py"]
    assert changes["message"][2] == "Test it"
    assert "somebody@mailhost.net" not in "".join(changes["text"])
    assert changes["commit"][-1] == git(repository, "rev-parse", "HEAD")
    assert changes["after"][1] == (repository / "a.py").read_text()
    counts = counts_of(run)
    assert (counts["documents"], counts["evolutions"], counts["commits"]) == (4, 4, 5)
    assert counts["change_added"] == 4
    assert sum(number for name, number in counts.items() if name.startswith("scrubbed_")) == 2


def test_a_change_is_in_the_group_of_its_file_before_and_after(repository: Path) -> None:
    rows = rows_of(CodeRun(paths=[str(repository)], git_history=True))
    groups = rows.group_by("path").agg(pl.col("group").unique())
    assert dict(groups.rows()) == {path: [f"top/{path}"] for path in ("a.py", "tests/b.py", "new.py", "quiet.py")}


def test_exclusions_and_the_given_folder_hold_for_changes_too(repository: Path) -> None:
    run = CodeRun(paths=[str(repository)], git_history=True, exclusions=Exclusions(tests=True))
    assert "tests/b.py" not in set(rows_of(run)["path"])
    assert counts_of(run)["change_test"] == 1
    inside = CodeRun(paths=[str(repository / "tests")], git_history=True)
    assert set(rows_of(inside)["path"]) == {"tests/b.py"}
    assert counts_of(inside)["change_outside"] > 0


@pytest.mark.slow
def test_documents_of_histories_do_not_depend_on_the_number_of_processes(repository: Path, tmp_path: Path) -> None:
    for number in range(40):
        program(repository, "a.py", f"n{number}")
        commit(repository, f"Change {number}")
    run = CodeRun(paths=[str(repository)], git_history=True)
    for workers in (1, 2):
        write_jsonl(replace(run, workers=workers), tmp_path / f"{workers}.jsonl")
    assert (tmp_path / "1.jsonl").read_bytes() == (tmp_path / "2.jsonl").read_bytes()


def test_a_bare_repository_gives_its_history_only(repository: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "--quiet", "--bare", str(repository), "bare.git")
    run = CodeRun(paths=[str(tmp_path / "bare.git")], git_history=True)
    rows = rows_of(run)
    assert (set(rows["kind"]), rows.height, set(rows["repository"])) == ({"evolution"}, 4, {"top"})
    with pytest.raises(UsageError, match="bare repository"):
        CodeRun(paths=[str(tmp_path / "bare.git")]).check_paths()


def test_a_shallow_clone_gives_the_changes_that_it_has(repository: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "--quiet", "--depth", "2", repository.as_uri(), "shallow")
    counts = counts_of(CodeRun(paths=[str(tmp_path / "shallow")], git_history=True))
    assert (counts["evolutions"], counts["commit_shallow_boundary"], counts["documents"]) == (1, 1, 4)


@pytest.mark.parametrize("begun", [True, False])
def test_no_repository_or_no_commit_is_no_history(begun: bool, tmp_path: Path) -> None:
    program(tmp_path, "a.py", "a")
    if begun:
        git(tmp_path, "init", "--quiet")
    counts = counts_of(CodeRun(paths=[str(tmp_path)], git_history=True))
    assert (counts["documents"], counts["evolutions"], counts["without_commits"]) == (1, 0, int(begun))


def test_a_commit_made_after_the_survey_is_left_out(repository: Path) -> None:
    run = CodeRun(paths=[str(repository)], git_history=True)
    units = list(run.plan())
    portion = units[-1].portion
    assert portion is not None
    program(repository, "a.py", "z")
    later = replace(portion, commits=(*portion.commits, commit(repository, "Later").encode()))
    made = run.make(replace(units[-1], portion=later))
    assert made.frame.height == 4
    assert made.counts["change_not_surveyed"] == 1


def test_versions_of_one_file_stay_together_when_it_has_near_duplicates() -> None:
    long = [" ".join(f"{name}{number}" for number in range(300)) for name in "xyz"]
    texts = [long[0], long[0] + " end", "a change of b", "another of b", long[2]]
    places = [Place("r", path, old) for path, old in (("b", "b"), ("a", "a"), ("b", "b"), ("c", "b"), ("d", "d"))]
    found = final_groups_of(places, sketch_documents(pl.Series(texts)), texts.__getitem__)
    assert found.names == ["r/a", "r/a", "r/a", "r/a", "r/d"]
    assert found.near_duplicates == 2


def test_no_document_has_no_group() -> None:
    assert final_groups_of([], np.empty((0, 256), dtype=np.uint8), Counter().get).names == []
