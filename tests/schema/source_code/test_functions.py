"""Functions of a source text: what is found, what is not, and where a completion ends."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema.source_code.functions import Function, end_of_function, functions_of, names_others

RUST_TEXT = """//! A crate.
use std::fmt;

/// Adds one: `{`.
#[inline]
pub const fn add_one(number: [u8; 2]) -> u8 {
    // }
    match "}" { _ => number[0] + 1 }
}

#[cfg(test)]
fn conditional() {
}

#[test]
fn tested() {
    assert!(true);
}

fn main() {
    run();
}

impl Thing {
    fn method(&self) {}
}

fn last(first: char) -> bool { first == '{' }
"""
PYTHON_TEXT = '''"""A module."""


@cache
def add_one(
    number: int,
) -> int:
    """Return one more.

    At the margin of no line.
    """
    if number:
        return number + 1

    return 1


class Thing:
    def method(self):
        pass


def last(): return 1
def very_last():
    return 2
'''


def test_functions_in_rust_begin_at_the_margin_and_end_with_their_brace() -> None:
    first, last = functions_of(RUST_TEXT, "rust")
    assert (first.line, last.line) == (4, 28)
    assert first.prompt == "/// Adds one: `{`.\n#[inline]\npub const fn add_one(number: [u8; 2]) -> u8 {"
    assert first.body == '\n    // }\n    match "}" { _ => number[0] + 1 }\n}'
    assert (last.prompt, last.body) == ("fn last(first: char) -> bool {", " first == '{' }")


def test_functions_in_python_have_their_docstring_in_the_prompt() -> None:
    first, last = functions_of(PYTHON_TEXT, "python")
    assert first.prompt.startswith("@cache\ndef add_one(")
    assert first.prompt.endswith('no line.\n    """\n')
    assert first.body == "    if number:\n        return number + 1\n\n    return 1\n\n\n"
    assert (last.prompt, last.body, last.line) == ("def very_last():\n", "    return 2\n", 24)


@pytest.mark.parametrize(
    ("prompt", "text", "language", "kept"),
    [
        ("fn f() {", " g(); } fn g() {}", "rust", " g(); }"),
        ("fn f() {", " if a { b } ", "rust", None),
        ("fn f() {", ' "}" }', "rust", ' "}" }'),
        ("fn f() {", "}", "rust", "}"),
        ("def f():\n", "    return 1\n\nprint()", "python", "    return 1\n\n"),
        ("def f():\n", "    return (\n)\n", "python", None),
        ("def f():\n", "    # a\n# b\n    return 1\n", "python", None),
    ],
)
def test_a_completion_ends_with_the_function(prompt: str, text: str, language: str, kept: str | None) -> None:
    end = end_of_function(prompt, text, language)
    assert (None if end is None else text[:end]) == kept


_PIECES = st.sampled_from(
    [
        "fn f",
        "pub ",
        "()",
        " {",
        "}",
        "\n",
        "    x",
        '"',
        "'a'",
        "/*",
        "*/",
        "// }",
        "def f",
        ":\n",
        '"""',
        "#[a]\n",
        "é",
    ]
)


@given(st.lists(_PIECES, max_size=40).map("".join), st.sampled_from(["rust", "python"]))
def test_a_function_is_a_part_of_its_text_at_its_line(text: str, language: str) -> None:
    found: list[Function] = list(functions_of(text, language))
    lines = text.split("\n")
    for function in found:
        rest = "\n".join(lines[function.line - 1 :])
        assert rest.startswith(function.prompt + function.body)
        end = end_of_function(function.prompt, function.body, language)
        assert end in (len(function.body), None if language == "python" else -1)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("fn f() {\n" * 20_000, "rust"),
        ("/// a\n" * 100_000, "rust"),
        ("def f(\n" * 20_000, "python"),
        ('def f():\n    """\n' * 20_000, "python"),
    ],
)
def test_hostile_texts_take_little_time(text: str, language: str) -> None:
    began = time.process_time()
    list(functions_of(text, language))
    assert time.process_time() - began < 30


@pytest.mark.parametrize(
    ("head", "others"),
    [
        ("fn f(x: &str, y: Option<Vec<u8>>) -> Result<String, std::fmt::Error> {", False),
        ("fn f<'a, T: Iterator<Item = u8>, const N: usize, F>(x: [T; N], f: F) -> Box<dyn Fn(T) -> F + 'a> {", False),
        ("const fn F_LIKE_C(x: u8) -> u8 {", False),
        ("/// Takes a `Thing`.\nfn f(x: u8) -> u8 {", False),
        ("fn f(x: Thing) {", True),
        ("fn f(x: [u8; SIZE]) {", True),
        ("fn f<T>(x: T) where T: Trait {", True),
    ],
)
def test_heads_that_name_other_things_are_known(head: str, others: bool) -> None:
    assert names_others(head, "rust") == others
    assert not names_others(head, "python")
