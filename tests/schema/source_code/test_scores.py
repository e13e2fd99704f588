"""Scores: marks on the syntax tree count, the same words in strings do not, and no text breaks the scoring."""

from __future__ import annotations

import time

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schema.source_code.columns import COLUMNS, COMPUTED
from schema.source_code.languages import LANGUAGES, WITH_GRAMMAR, language_of
from schema.source_code.roles import role_expression, role_of
from schema.source_code.scores import scored
from schema.source_code.syntax_marks import UNPARSABLE, marks_of
from tests.source_code import parses

RUST_PATTERNS = {
    "result": "fn a() -> io::Result<u8> { 1 }",
    "option": "fn a() -> Option<u8> { b }",
    "question_mark": "fn a() { b()?; }",
    "iterator_chain": "fn a() { b.iter().map(c); }",
    "derive": "#[derive(Debug)] struct A;",
    "trait_impl": "impl Display for A {}",
    "match": "fn a() { match b { _ => 1 } }",
    "if_let": "fn a() { if let Some(b) = c {} }",
    "while_let": "fn a() { while let Some(b) = c {} }",
}
RUST_LOW = [
    "// TODO: later",
    "/* a HACK */",
    "fn a() { println!(); }",
    "fn a() { dbg!(b); }",
    "fn a() { unsafe { b() } }",
]
PYTHON_PATTERNS = [
    "a: int = 1",
    'def a():\n    """Do it."""\n',
    "a = [b for b in c]",
    "with a as b:\n    pass\n",
    "def a():\n    yield b\n",
    "@a\ndef b():\n    pass\n",
    "a = f'{b}'",
]
PYTHON_LOW = ["try:\n    a\nexcept:\n    b\n", "print(a)", "a = eval(b)", "exec(b)", "a = 1  # FIXME: later\n"]


def counts(text: str, language: str) -> tuple[int, int]:
    marks = marks_of(text.encode(), language)
    assert marks.parses
    return marks.idiomatic, marks.low_quality


@pytest.mark.parametrize("text", RUST_PATTERNS.values(), ids=RUST_PATTERNS.keys())
def test_each_rust_pattern_counts_once(text: str) -> None:
    assert counts(text, "rust") == (1, 0)
    assert counts(f"{text}\n{text}", "rust") == (1, 0)


def test_all_rust_patterns_together_are_eight() -> None:
    assert counts("\n".join(RUST_PATTERNS.values()), "rust") == (8, 0)


@pytest.mark.parametrize("text", [*RUST_LOW, "#[allow(dead_code)]\nfn a() {}", "#![allow(dead_code)]"])
def test_each_low_quality_mark_of_rust_counts(text: str) -> None:
    assert counts(text, "rust") == (0, 1)


@pytest.mark.parametrize("text", PYTHON_PATTERNS)
def test_each_python_pattern_counts_once(text: str) -> None:
    assert counts(text, "python") == (1, 0)


def test_a_dataclass_is_also_a_decorator() -> None:
    assert counts("@dataclasses.dataclass(frozen=True)\nclass A:\n    pass\n", "python") == (2, 0)
    assert counts("@dataclassy\nclass A:\n    pass\n", "python") == (1, 0)


@pytest.mark.parametrize("text", PYTHON_LOW)
def test_each_low_quality_mark_of_python_counts(text: str) -> None:
    assert counts(text, "python") == (0, 1)


@pytest.mark.parametrize("text", [*RUST_LOW, *RUST_PATTERNS.values()])
def test_marks_in_strings_do_not_count(text: str) -> None:
    assert counts(f'const A: &str = r#"{text}"#;', "rust") == (0, 0)


def test_marks_in_python_strings_do_not_count() -> None:
    text = "\n".join([*PYTHON_LOW, *(each for each in PYTHON_PATTERNS if '"""' not in each)])
    assert counts(f'a = """{text}"""', "python") == (0, 0)


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("rust", "/// Says it.\nfn a() {}"),
        ("rust", "//! Says it."),
        ("rust", "/** Says it. */ fn a() {}"),
        ("python", '"""Says it."""\n'),
        ("javascript", "/** Says it. */ function a() {}"),
        ("typescript", "/** Says it. */ let a: number;"),
        ("java", "/** Says it. */ class A {}"),
        ("c", "/** Says it. */ int a;"),
        ("cpp", "/// Says it.\nint a;"),
        ("go", "package a\n\n// A says it.\nfunc A() {}\n"),
    ],
)
def test_documentation_is_found_and_ordinary_comments_are_none(language: str, text: str) -> None:
    assert marks_of(text.encode(), language).documented
    plain = text.replace("/**", "/*").replace("///", "//").replace("//!", "//").replace('"""', "#")
    if language != "go":
        assert not marks_of(plain.encode(), language).documented


@pytest.mark.parametrize("language", ["javascript", "typescript", "c", "cpp", "java"])
def test_branches_and_nesting_come_from_the_tree(language: str) -> None:
    body = "{ if (a) { while (b) { c(); } } }"
    text = f"class A {{ void f() {body} }}" if language == "java" else f"void f() {body}"
    if language in ("javascript", "typescript"):
        text = f"function f() {body}"
    marks = marks_of(text.encode(), language)
    assert (marks.branches, marks.nesting) == (2, 4 if language == "java" else 3)


@pytest.mark.parametrize("language", WITH_GRAMMAR)
@settings(max_examples=40, deadline=None)
@given(st.text(max_size=300) | st.text("(){}[]<>;:=\"'`#/*!?|&\n\t \\ax0\0", max_size=400))
def test_any_text_is_scored(language: str, text: str) -> None:
    frame = pl.DataFrame({"text": [text], "language": language, "path": "a", "kind": "snapshot"})
    row = scored(frame)
    assert dict(row.select(COMPUTED).schema) == {name: COLUMNS[name] for name in COMPUTED}
    assert row.select(COMPUTED).null_count().sum_horizontal().item() == 0
    assert row["parses"].item() == parses(text.encode(), language)
    assert row["lines"].item() == text.count("\n") + (text != "" and not text.endswith("\n"))


@pytest.mark.parametrize("unit", ["->", "*x=*"])
def test_text_that_the_parser_would_take_minutes_for_is_unparsable(unit: str) -> None:
    begun = time.process_time()
    assert marks_of(unit.encode() * 10_000, "javascript") == UNPARSABLE
    assert time.process_time() - begun < 10
    # The next document is not a continuation of the last.
    assert marks_of(b"let a = 1;", "javascript").parses


@pytest.mark.parametrize("language", WITH_GRAMMAR)
def test_deep_nesting_is_scored(language: str) -> None:
    for unit in ("(", "[", "{", "if (a) {"):
        assert marks_of(unit.encode() * 2_000, language).nesting <= 2_000


def test_a_missing_value_makes_only_dependent_columns_null() -> None:
    names = ("text", "language", "path", "kind")
    whole = {"text": "x = 1\n", "language": "python", "path": "a.py", "kind": "snapshot"}
    rows = scored(pl.DataFrame([{**whole, name: None} for name in names], schema=dict.fromkeys(names, pl.String)))
    assert rows["role"].null_count() == 1
    assert rows["characters"].null_count() == 1


@settings(max_examples=200)
@given(
    st.lists(
        st.sampled_from(["src", "core", "tests", "docs", "a", "test_a.py", "core.rs", "ATest.java", "a_test.go", "\n"])
        | st.text(max_size=5),
        max_size=5,
    ),
    st.sampled_from(LANGUAGES),
)
def test_the_role_of_a_path_is_the_same_in_python_and_polars(parts: list[str], language: str) -> None:
    path = "/".join(parts)
    frame = pl.DataFrame({"path": [path], "language": [language]})
    assert frame.select(role_expression(pl.col("path"), pl.col("language"))).item() == role_of(path, language)


def test_languages_are_known_by_name_and_extension() -> None:
    assert language_of("a/b.RS") == "rust"
    assert language_of("CMakeLists.txt") == "cmake"
    assert language_of("py") is None
