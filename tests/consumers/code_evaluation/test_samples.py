"""Rows become samples, lines that are no sample are counted, and the pre-filter gives its reasons."""

from __future__ import annotations

import doctest
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.code_evaluation import (
    prefilter,
    python_judge,
    rust_crates,
    rust_diagnostics,
    sample_files,
    samples,
    verdicts,
)
from consumers.code_evaluation.prefilter import refused
from consumers.code_evaluation.rust_crates import named_crates
from consumers.code_evaluation.rust_diagnostics import diagnostics_of
from consumers.code_evaluation.sample_files import SampleFile
from consumers.code_evaluation.samples import sample_of
from schema.errors import RecordError, UsageError
from schema.source_code import source_scan
from schema.source_code.source_scan import has_main, scan


@pytest.mark.parametrize(
    "module", [prefilter, python_judge, rust_crates, rust_diagnostics, samples, source_scan, verdicts]
)
def test_the_examples_of_the_docstrings_hold(module: Any) -> None:
    found = doctest.testmod(module)
    assert found.attempted
    assert not found.failed


@pytest.mark.parametrize(
    ("text", "code", "open_brackets"),
    [
        ('let a = "{\\"{"; // {', "let a = 0; ", 0),
        ("let a = '{'; let b: &'static str;", "let a = 0; let b: &'static str;", 0),
        ('r##"{"#"## { br"\\"', "0 { 0", 1),
        ("/* { /* */ { */ }", " }", 0),
        ('"{', "0", 1),
        ("/* {", "", 1),
    ],
)
def test_a_scan_of_rust_sees_no_bracket_in_a_literal_or_comment(text: str, code: str, open_brackets: int) -> None:
    scanned = scan(text, "rust")
    assert (scanned.code, scanned.open_brackets) == (code, open_brackets)


@given(st.text(alphabet="fn(){}[]\"'/*#r\\\n b"), st.sampled_from(["rust", "python"]))
def test_a_scan_ends_and_keeps_the_lines_of_any_text(text: str, language: str) -> None:
    assert scan(text, language).code.count("\n") == text.count("\n")


# HumanEval-X: the declaration holds the imports, and a main is missing.
HUMAN_EVAL = {
    "task_id": "Rust/0",
    "prompt": "/*\n One.\n*/\nfn one() -> i32 {\n",
    "declaration": "use std::fmt;\n\n",
    "canonical_solution": "    1\n}\n",
    "test": "#[cfg(test)]\nmod tests {}\n",
}


def test_a_row_of_humaneval_x_becomes_a_program() -> None:
    sample = sample_of(HUMAN_EVAL, "rust", "line 1")
    assert sample.program.startswith("use std::fmt;\n\n/*\n One.\n*/\nfn one() -> i32 {\n    1\n}\n")
    assert has_main(sample.program)
    assert (sample.task_id, sample.generated, sample.tests) == ("Rust/0", "    1\n}\n", HUMAN_EVAL["test"])
    generated = sample_of({**HUMAN_EVAL, "generation": "    2\n}\n"}, "rust", "line 1")
    assert generated.generated == "    2\n}\n"


def test_a_declaration_that_repeats_the_head_of_the_function_is_no_import() -> None:
    row = {**HUMAN_EVAL, "declaration": "use std::fmt;\nfn one() -> i32 {\n"}
    assert sample_of(row, "rust", "line 1").program.count("fn one") == 1


@pytest.mark.parametrize(
    ("row", "program"),
    [
        ({"code": "fn f() {}"}, "fn f() {}"),
        ({"text": "fn f() {}"}, "fn f() {}"),
        ({"prompt": "fn f() {", "completion": "}"}, "fn f() {}"),
        ({"prompt": "fn f() {", "code": "}"}, "fn f() {}"),
        ({"prompt": "fn f() {", "code": "fn f() {}"}, "fn f() {}"),
        ({"prompt": "Write a function.", "code": "fn f() {}"}, "fn f() {}"),
    ],
)
def test_code_is_a_whole_program_unless_the_prompt_leaves_a_bracket_open(row: dict[str, str], program: str) -> None:
    assert sample_of(row, "rust", "line 1").program == program


def test_python_code_goes_on_with_the_prompt_if_it_is_indented() -> None:
    assert (
        sample_of({"prompt": "def f():\n", "code": "    return 1\n"}, "python", "").program
        == "def f():\n    return 1\n"
    )
    assert sample_of({"prompt": "def f():\n", "code": "x = 1\n"}, "python", "").program == "x = 1\n"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({}, "no_code"),
        ({"prompt": "a"}, "no_code"),
        ({"code": 3}, "wrong_type"),
        ({"code": "a", "tests": []}, "wrong_type"),
    ],
)
def test_a_row_without_a_text_of_code_is_no_sample(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(RecordError) as caught:
        sample_of(row, "rust", "line 1")
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"code": "  \n"}, "empty"),
        ({"code": "// One.\n" * 9 + "fn f() {}\n"}, "mostly_comments"),
        ({"code": "/// One.\n" * 3 + "fn f() {}\n"}, None),
        ({"code": "fn f() { g("}, "incomplete"),
        ({"code": 'fn f() -> &str { "abc'}, "incomplete"),
        ({"code": "fn f() -> i32 { todo!() }"}, "incomplete"),
        ({"code": "// todo!() was here\nfn f() {}"}, None),
        ({"code": "fn f() {}"}, None),
        ({"code": "fn f() {}", "prompt": "fn main() {}\nComplete it."}, "no_main"),
        ({"code": "x" * 1_100_000}, "too_large"),
        # The prompt is one long comment; the generated part is not.
        ({**HUMAN_EVAL, "prompt": "/*\n" + "One.\n" * 30 + "*/\nfn one() -> i32 {\n"}, None),
    ],
)
def test_the_prefilter_gives_a_reason(row: dict[str, str], reason: str | None) -> None:
    assert refused(sample_of(row, "rust", "line 1")) == reason


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("def f():\n    return 1\n", None),
        ("def f():\n", "incomplete"),
        ("x = [1,", "incomplete"),
        ('x = """a', "incomplete"),
        ("# a\n" * 9 + "x = 1\n", "mostly_comments"),
    ],
)
def test_the_prefilter_knows_python(code: str, reason: str | None) -> None:
    assert refused(sample_of({"code": code}, "python", "line 1")) == reason


@pytest.mark.parametrize("name", ["a b", "x" * 201, "a\0b", "import os\nf"])
def test_an_entry_point_that_is_no_name_is_no_sample(name: str) -> None:
    with pytest.raises(RecordError, match="entry_point is not the name of a function"):
        sample_of({"code": "x = 1", "entry_point": name}, "python", "line 1")


def test_the_function_that_the_prompt_begins_is_the_entry_point() -> None:
    row = {"prompt": "def g():\n    pass\n\ndef f():\n", "completion": "    pass\n"}
    assert sample_of(row, "python", "").entry_point == "f"
    assert sample_of({**row, "entry_point": "g"}, "python", "").entry_point == "g"


def test_with_programs_every_sample_needs_a_main() -> None:
    assert refused(sample_of({"code": "fn f() {}"}, "rust", "", programs=True)) == "no_main"
    assert refused(sample_of({"code": "fn main() {}"}, "rust", "", programs=True)) is None


def test_bad_lines_are_counted_with_their_numbers_and_end_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample_files, "LINE_MAX_BYTES", 200)
    lines = [
        b'{"code": "fn a() {}"}',
        b"not json",
        b"",
        b"[1]",
        b'{"code": 1}',
        b'{"code": "' + b"x" * 500 + b'"}',
        b'{"id": 9}',
        b"[" * 150,
        # No UTF-8: the compiler refuses it, and the row keeps its id.
        b'{"id": "bad bytes", "code": "fn a() { \xff }"}',
        b'{"code": "fn b() {}"}',
    ]
    path = tmp_path / "samples.jsonl"
    path.write_bytes(b"\n".join(lines))
    file = SampleFile(path, "rust")
    assert [sample.task_id for sample in file] == ["line 1", "bad bytes", "line 10"]
    assert file.bad_lines == {"not_json": 2, "not_an_object": 1, "wrong_type": 1, "too_long": 1, "no_code": 1}
    assert file.bad_places[0] == (2, "not_json")
    assert file.bad_places[3] == (6, "too_long")


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), lambda path: None])
def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "f")
    with pytest.raises(UsageError, match=r"f cannot be read .* give a file of JSON lines"):
        SampleFile(tmp_path / "f", "rust").check()


def test_summaries_of_the_compiler_are_not_counted() -> None:
    entries = [
        {"level": "warning", "message": "unneeded `return`", "code": {"code": "clippy::needless_return"}},
        {"level": "warning", "message": "unused variable", "code": {"code": "unused_variables"}},
        {"level": "warning", "message": "2 warnings emitted", "code": None},
        {"level": "error", "message": "expected one of", "code": None},
        {"level": "error", "message": "denied", "code": {"code": "clippy::all"}},
        {"level": "error", "message": "aborting due to 2 previous errors; 2 warnings emitted", "code": None},
        {"level": "failure-note", "message": "For more information", "code": None},
    ]
    lines = "\n".join([*map(json.dumps, entries), "warning: `sample` generated 3 warnings", "{broken", "[1]"])
    counts = diagnostics_of(lines.encode())
    assert counts.warnings == {"clippy::needless_return": 1}
    assert counts.denied == {"clippy::all": 1}
    assert counts.errors == {"uncoded": 1}


@pytest.mark.parametrize("name", ["", "a b", "a=", "a=latest", '"', "a\nb", "../a"])
def test_a_crate_that_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="NAME=VERSION"):
        named_crates([name])
