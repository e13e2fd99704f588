"""Augmented documents: valid rows, counted losses, comments, whitespace, and texts that must not stop a worker."""

from __future__ import annotations

import ast
import logging
from collections import Counter
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schema.source_code import FAMILY
from schema.source_code.columns import COMPUTED
from schema.source_code.grammar import parse
from streams.augmentation.source_code import LARGEST_BYTES, augment, augmented_documents, comments
from streams.augmentation.source_code.documents import Document, LeftOut
from streams.augmentation.source_code.edits import Edit, edited
from tests import source_code
from tests.source_code import parses
from tests.streams.augmented import copies, judged

KINDS = ("renamed", "comments", "reformatted")
PYTHON = '''#!/usr/bin/env python
# -*- coding: utf-8 -*-
# Copyright 2024 A. B.
import os  # noqa: F401

# about f
def f(a, b):  # two numbers
    """Add two numbers. Slowly."""
    c = [
        a,  # first
        # second
        b,
    ]
    return sum(c)


class A:
    @staticmethod
    def g(x=1, *, y): return "# no comment"
'''
RUST = """//! Doc.
/*
 * Copyright 2024 A. B. */
/// Adds.
fn f(a: u8, b: u8) -> u8 { // two
    /* sum */ a/**/+ b
}

#[inline]
fn g(s: &str) -> String { format!("{s} // no comment") }
"""


def edits_of(text: str, language: str, way: str) -> str:
    source = text.encode()
    tree = parse(source, language)
    assert tree is not None
    return edited(source, getattr(comments, way)(source, tree, language)).decode()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 100_000), st.integers(1, 12))
def test_copies_are_valid_rows_of_their_origins_group(first: int, count: int) -> None:
    origins = source_code.valid_rows(count, first)
    made, left_out = augmented_documents(copies(origins, 4))
    assert dict(made.schema) == {**FAMILY.wire, "record": pl.UInt32()}
    assert made["example_id"].null_count() == made["split"].null_count() == made.height
    valid = judged(made, FAMILY)
    both = valid.join(origins, left_on="augmented_from", right_on="example_id", suffix="_origin", validate="m:1")
    assert both.height == made.height and made.height + left_out.total() == 4 * count
    for name in ("repository", "path", "group", "language", "license", "commit"):
        assert both[name].eq_missing(both[f"{name}_origin"]).all()
    assert not (both["text"] == both["text_origin"]).any()
    assert both["split"].equals(both["split_origin"])
    # Two of four copies are renamed, one has other comments and one another layout.
    assert Counter(made["kind"]) == {"renamed": 2 * count, "comments": count, "reformatted": count}


def test_a_row_has_the_same_copies_in_any_company() -> None:
    rows = copies(source_code.valid_rows(6), 4)
    together = augment(rows).sort("augmented_from", "text")
    apart = pl.concat([augment(rows.filter(pl.col("copy") == copy).reverse()) for copy in range(4)])
    assert together.drop("record").equals(apart.sort("augmented_from", "text").drop("record"))


def test_copy_0_of_many_rows_is_of_every_kind() -> None:
    made = augment(copies(source_code.valid_rows(60), 1))
    assert set(made["kind"]) == set(KINDS)


def test_evolutions_augmentations_and_other_languages_are_left_out_and_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rows = source_code.valid_rows(5)
    rows = rows.with_columns(
        kind=pl.Series(["evolution", "renamed", "snapshot", "snapshot", "snapshot"]),
        language=pl.Series(["python", "python", "go", "python", "python"]),
        text=pl.concat_list("text").list.first(),
    )
    rows = rows.with_columns(
        text=pl.when(pl.int_range(pl.len()) == 3)
        .then(pl.lit("x = " + "1 + " * (LARGEST_BYTES // 4) + "1\n"))
        .when(pl.int_range(pl.len()) == 4)
        .then(pl.lit("x = = 1\n"))
        .otherwise("text")
    )
    made, left_out = augmented_documents(copies(rows, 1))
    assert made.is_empty()
    assert left_out == {"not_source_code": 3, "too_large": 1, "not_parsed": 1}
    with caplog.at_level(logging.INFO):
        augment(copies(rows, 1))
    assert "0 of 5 copies made; left out: 1 not_parsed, 3 not_source_code, 1 too_large" in caplog.text


def test_a_copy_that_repeats_another_is_left_out_and_counted() -> None:
    row = source_code.frame([source_code.document(0, text="x = 1  # one\n")])
    made, left_out = augmented_documents(copies(row, 16))
    assert made.height == made["text"].n_unique()
    assert left_out["repeated"] >= 3 and left_out["unchanged"] >= 8
    assert made.height + left_out.total() == 16


def test_comments_are_removed_except_those_that_tools_or_owners_need() -> None:
    assert edits_of(PYTHON, "python", "removed") == PYTHON.replace("# about f\n", "").replace(
        "  # two numbers", ""
    ).replace("  # first", "").replace("        # second\n", "")
    assert edits_of(RUST, "rust", "removed") == RUST.replace(" // two", "").replace("/* sum */", " ").replace(
        "/**/", " "
    )


def test_comments_are_added_above_functions_that_have_none() -> None:
    text = PYTHON.replace("# about f\n", "")
    new = edits_of(text, "python", "added")
    assert new == text.replace("def f", "# Add two numbers.\ndef f").replace(
        "    @static", "    # g: takes x, y.\n    @static"
    )
    assert edits_of(PYTHON, "python", "added").count("\n") == PYTHON.count("\n") + 1
    assert edits_of(RUST, "rust", "added") == RUST.replace("#[inline]", "// g: takes s, returns String.\n#[inline]")


@pytest.mark.parametrize("seed", range(0, 64, 2))
def test_other_layouts_keep_strings_comments_and_python_code(seed: int) -> None:
    test = "(a == b and\n            a\n            != 1)"
    text = f'def f(a, b):\n    if {test}:\n        # one\n        return """x,  y\n    z""", a\n'
    new = Document(text, "python").augmented("reformatted", seed)
    assert ast.dump(ast.parse(new)) == ast.dump(ast.parse(text))
    assert '"""x,  y\n    z"""' in new and "# one" in new


def test_a_layout_of_rust_leaves_macros_as_they_are() -> None:
    text = 'fn f(a: u8) -> u8 {\n    g(a, a as V<u8> == 1);\n    m!(a, b == c);\n    "x, y\n    z"\n}\n'
    results = {Document(text, "rust").augmented("reformatted", seed) for seed in range(0, 64, 2)}
    assert len(results) > 6
    for new in results:
        assert parses(new.encode(), "rust")
        assert "m!(a, b == c)" in new and '"x, y\n    z"' in new
        assert new.replace(" ", "").replace("\t", "") == text.replace(" ", "")


def test_edits_that_overlap_are_refused() -> None:
    with pytest.raises(ValueError, match="overlap"):
        edited(b"abc", [Edit(0, 2, b""), Edit(1, 3, b"")])


PIECES = st.sampled_from(
    [
        *(
            "def f(a, *b):\n",
            "    ",
            "\t",
            "x = a\n",
            "return x\n",
            "# c\n",
            "'''",
            '"',
            "f'{x!r:>{a}}'",
            "(",
            ")",
            "\\\n",
        ),
        *(
            "lambda *q: q",
            "[i for i in j]",
            "match x:\n",
            "case [y, *z]:\n",
            "pass\n",
            "é",
            "\r\n",
            "\r",
            "\f",
            "\ufeff",
        ),
        *("except E as e:\n", "try:\n", "class A:\n", ":", ",", "==", "\n", "if x:\n", "@d\n", "\x00", "global x\n"),
        *(
            "fn f(a: u8) {\n",
            "let b = a;\n",
            "}\n",
            "{",
            "// c\n",
            "/* d */",
            "/// e\n",
            "m!{a}",
            "'a",
            "|x| x",
            "S { a }",
        ),
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES, max_size=25).map("".join) | st.text(max_size=60), st.sampled_from(["python", "rust"]))
def test_odd_texts_raise_nothing_and_results_parse(text: str, language: str) -> None:
    for kind in KINDS:
        try:
            new = Document(text, language).augmented(kind, 5)
        except LeftOut:
            continue
        assert language == "rust" or ast.parse(new) is not None


@pytest.mark.parametrize(
    "text",
    [
        *(f"x = {piece * 20_000}1\n" for piece in ("-", "not ", "1+", "1 if a else ", "lambda: ", "1**", "1<")),
        *(f"x = {piece * 20_000}\n" for piece in ("[", "a(", "f'{", "(")),
        *(f"x = a{piece * 20_000}\n" for piece in (".b", "()", "[0]")),
        "if a: pass\n" + "elif b: pass\n" * 20_000,
        "x = '" + "y" * 900_000 + "'  # z\n",
        "def f():\n    a = 1\n" + "    a = a + 1  # c\n" * 20_000,
        "x = " + "f'{" * 3 + "'" * 5,
    ],
    ids=range(18),
)
def test_deep_and_long_texts_neither_stop_nor_stall_a_worker(text: str) -> None:
    row = source_code.frame([source_code.document(0, text=text)])
    made, left_out = augmented_documents(copies(row, 4))
    assert made.height + left_out.total() == 4
    # The next row is not affected.
    assert augment(copies(source_code.valid_rows(1), 4)).height == 4


@pytest.mark.slow
def test_every_copy_of_a_file_of_the_standard_library_parses() -> None:
    root = Path(ast.__file__).parent
    documents = []
    for number, path in enumerate(sorted(root.rglob("*.py"))):
        if "site-packages" in path.parts or number % 12:
            continue
        try:
            text = path.read_bytes().decode()
        except UnicodeDecodeError:
            continue
        documents.append(source_code.document(0, text=text, path=str(path.relative_to(root))))
    rows = source_code.frame(documents).unique("text", maintain_order=True)
    made, left_out = augmented_documents(copies(rows, 4).sort("record", maintain_order=True))
    assert set(left_out) <= {"unchanged", "not_parsed", "repeated"}, left_out
    assert made.height > 2.5 * rows.height
    assert made["parses"].all() and all(parses(text.encode(), "python") for text in made["text"])
    assert set(COMPUTED) < set(made.columns)
