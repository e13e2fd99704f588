"""Changes of form are distinguished from changes of meaning."""

from __future__ import annotations

import time

import pytest

from producers.source_code.formatting import differ_in_form_only

SAME = [
    ("python", "x = [1, 2]\n", "x = [\n    1,\n    2,\n]\n"),
    ("python", "x = 'a'\n", 'x = "a"  # why\n'),
    ("python", "x = 1\n", "# only a comment\nx = 1\n"),
    ("rust", "fn f(a: u8) -> u8 { a }", "/// Doc\nfn f(a: u8) -> u8 {\n    a /* b */\n}"),
    ("javascript", "f(a,b); // x", "f(a, b);"),
    ("go", 'package m\nvar s = "a b"', 'package m\n\nvar s   =   "a b"'),
    ("yaml", "a:  1\n", "a: 1\n"),
    (None, "a b", "a  b"),
]
OTHER = [
    ("python", "if a:\n    b()\nc()\n", "if a:\n    b()\n    c()\n"),
    ("python", "'''a b'''\n", "'''a  b'''\n"),
    ("python", "x = 1\n", "x = 2\n"),
    ("rust", 'let s = "a b";', 'let s = "a  b";'),
    ("javascript", "f(`a b`)", "f(`ab`)"),
    ("c", "int a; // b", "int b; // b"),
    ("yaml", "a: 1\n", "a: 2\n"),
]


@pytest.mark.parametrize(("language", "before", "after"), SAME)
def test_a_change_of_form_is_recognised(language: str | None, before: str, after: str) -> None:
    assert differ_in_form_only(before, after, language)


@pytest.mark.parametrize(("language", "before", "after"), OTHER)
def test_a_change_of_meaning_is_recognised(language: str, before: str, after: str) -> None:
    assert not differ_in_form_only(before, after, language)


@pytest.mark.parametrize("text", ["(" * 500, "-" * 100_000 + "1", "x = '\\d'\n", "print 'two'\n", "\0"])
def test_text_that_python_cannot_parse_is_compared_without_whitespace(text: str) -> None:
    assert differ_in_form_only(text, f"{text}#", "python") == ("x =" in text)
    assert differ_in_form_only(text, f"{text}\n", "python")


@pytest.mark.slow
@pytest.mark.parametrize("language", ["c", "java"])
def test_a_text_that_parsing_cannot_finish_is_compared_without_whitespace(language: str) -> None:
    text = ("xxxxxxxxxxxxx=>" * 15 + "\n") * 270
    began = time.process_time()
    assert differ_in_form_only(text, f"{text}\n", language)
    assert not differ_in_form_only(text, f"{text}int x;\n", language)
    assert time.process_time() - began < 5
