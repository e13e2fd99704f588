"""Decontamination, compared with plain sets of 13 words."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.source_code import decontamination
from producers.source_code.decontamination import contaminated_documents, is_contaminated, read_evaluation_sets, runs_of
from schema.errors import UsageError

WORDS = [f"word{number}" for number in range(400)]

# Few different words, so that runs of 13 are shared.
texts = st.lists(st.lists(st.sampled_from("ab"), max_size=30).map(" ".join), max_size=8)


def runs(text: str) -> set[tuple[str, ...]]:
    words = re.findall("[a-z0-9]+", text.lower())
    return {tuple(words[at : at + 13]) for at in range(len(words) - 12)}


def written(path: Path, *objects: object) -> Path:
    path.write_text("".join(f"{json.dumps(each)}\n" for each in objects))
    return path


def found(documents: list[str], *paths: Path) -> list[bool]:
    return is_contaminated(pl.Series(documents), read_evaluation_sets(paths)).to_list()


@given(texts, texts, texts)
def test_a_document_is_found_if_it_shares_a_run_of_13_words(
    first: list[str], second: list[str], documents: list[str]
) -> None:
    known = runs_of(pl.Series(second, dtype=pl.String), runs_of(pl.Series(first, dtype=pl.String)))
    expected = set().union(*(runs(text) for text in first + second))
    assert known.runs == len(expected)
    assert known.texts == sum(bool(runs(text)) for text in first + second)
    assert known.texts + known.short_texts == len(first) + len(second)
    marked = is_contaminated(pl.Series(documents, dtype=pl.String), known)
    assert marked.to_list() == [bool(runs(text) & expected) for text in documents]


def test_layout_case_and_punctuation_do_not_matter(tmp_path: Path) -> None:
    task = "Return True if the list has two numbers that are closer than the given threshold."
    path = written(tmp_path / "tasks.jsonl", {"task_id": "t/0", "prompt": task})
    code = "# return true\n    # if the list has\n    # two numbers that are closer than: the given threshold!"
    assert found([code, code.replace("numbers", "words")], path) == [True, False]


@pytest.mark.parametrize(
    "task",
    [
        {"code": " ".join(WORDS[:40])},
        {"text": " ".join(WORDS[:40])},
        {"messages": [{"role": "user", "content": " ".join(WORDS[:40])}], "n": 3, "none": None},
        {"tests": {"public": [[" ".join(WORDS[:13])], [" ".join(WORDS[5:40])]]}},
    ],
)
def test_every_string_of_a_task_is_read_at_any_depth(task: object, tmp_path: Path) -> None:
    path = written(tmp_path / "tasks.jsonl", task)
    assert found([" ".join(WORDS[8:23]), " ".join(WORDS[100:200])], path) == [True, False]


def test_the_versions_of_an_evolution_are_texts_of_the_document_too() -> None:
    known = runs_of(pl.Series([" ".join(WORDS[:13])]))
    long, other = " ".join(WORDS[:20]), " ".join(WORDS[100:120])
    documents = [{"text": other, name: long} for name in ("before", "after", "message")]
    assert contaminated_documents([*documents, {"text": long}, {"text": other}], known) == [
        True,
        True,
        False,
        True,
        False,
    ]
    assert contaminated_documents([], known) == []


def test_names_of_members_and_short_strings_are_not_compared(tmp_path: Path) -> None:
    path = written(tmp_path / "t.jsonl", {" ".join(WORDS[:20]): "short", "task": " ".join(WORDS[100:120])})
    assert found([" ".join(WORDS[:20]), "short", "", " ".join(WORDS[100:113])], path) == [False, False, False, True]
    assert read_evaluation_sets([path]).short_texts == 1


def test_several_files_and_an_array_of_tasks_are_read(tmp_path: Path) -> None:
    one = written(tmp_path / "one.jsonl", {"text": " ".join(WORDS[:20])}, {"text": " ".join(WORDS[20:40])})
    other = written(tmp_path / "other.json", [{"text": " ".join(WORDS[100:120])}])
    documents = [" ".join(WORDS[at : at + 15]) for at in (2, 22, 102, 200)]
    assert found(documents, one, other) == [True, True, True, False]


def test_texts_are_hashed_in_portions_and_the_table_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decontamination, "_BATCH_CHARACTERS", 500)
    numbers = np.random.default_rng(1).integers(0, 10**9, size=(600, 30)).astype(str)
    tasks = [" ".join(row) for row in numbers]
    path = written(tmp_path / "tasks.jsonl", *({"text": task} for task in tasks))
    known = read_evaluation_sets([path])
    assert (known.texts, known.runs) == (600, 600 * 18)
    assert is_contaminated(pl.Series(tasks), known).all()
    assert not is_contaminated(pl.Series([task[::-1] for task in tasks]), known).any()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"text": "too short"}\n', "no string has 13 words or more"),
        ("", "no string has 13 words or more"),
        ('{"text": 1}\n{"text"\n', "line 2 is not JSON"),
        ('{"text": 1}\n[1]\n', "line 2 is a JSON list instead of an object"),
    ],
)
def test_a_file_that_is_no_evaluation_set_is_refused(content: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl"
    path.write_text(content)
    with pytest.raises(UsageError, match=rf"--decontaminate tasks\.jsonl: {said}.*: (give|correct)"):
        read_evaluation_sets([path])


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--decontaminate absent\.jsonl cannot be read .*: give a JSONL file"):
        read_evaluation_sets([tmp_path / "absent.jsonl"])


def test_too_many_runs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decontamination, "MOST_RUNS", 20)
    path = written(tmp_path / "tasks.jsonl", {"text": " ".join(WORDS[:40])})
    with pytest.raises(UsageError, match="over 20 different runs of 13 words: give fewer files"):
        read_evaluation_sets([path])


def test_a_lone_surrogate_is_read_as_another_character(tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl"
    path.write_text('{"text": "\\ud800 ' + " ".join(WORDS[:20]) + '"}\n')
    assert found([" ".join(WORDS[:13])], path) == [True]
