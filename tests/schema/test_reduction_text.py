"""The facts of a term's text, compared with the plain reducer's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema.compiled import compiled
from schema.reduction.text import FACTS, facts
from tests import plain_reducer as plain

VARIABLES = st.integers(0, 61).map(lambda index: ("var", index))
TERMS = st.recursive(
    VARIABLES,
    lambda inner: st.one_of(
        st.tuples(st.just("abs"), inner),
        st.tuples(st.just("app"), inner, inner),
        # Redexes, because few random terms have one.
        st.tuples(st.just("app"), st.tuples(st.just("abs"), inner), inner),
    ),
    max_leaves=25,
)


def fact(text: str | None) -> dict[str, object]:
    return facts(pl.Series([text], dtype=pl.String)).row(0, named=True)


def expected(term: plain.Term) -> dict[str, object]:
    start, end = plain.redex_span(term) or (0, 0)
    return {
        "well_formed": True,
        "found_start": start,
        "found_end": end,
        "found_redex_depth": plain.redex_depth(term),
        "found_size": plain.size(term),
        "found_depth": plain.depth(term),
        "found_leading": plain.leading(term),
    }


MALFORMED = dict.fromkeys(FACTS, 0) | {"well_formed": False, "found_redex_depth": None}


@given(TERMS)
def test_a_written_term_is_read_back_unchanged(term: plain.Term) -> None:
    assert plain.read(plain.show(term)) == term


@given(st.lists(TERMS, min_size=1, max_size=5))
def test_facts_of_any_term_equal_those_of_the_plain_reducer(terms: list[plain.Term]) -> None:
    actual = facts(pl.Series([plain.show(term) for term in terms]))
    assert actual.schema == FACTS
    assert actual.rows(named=True) == [expected(term) for term in terms]


@given(TERMS, st.data())
def test_a_text_is_well_formed_only_in_canonical_form(term: plain.Term, data: st.DataObject) -> None:
    text = plain.show(term)
    at = data.draw(st.integers(0, len(text)))
    cut = data.draw(st.integers(0, 2))
    text = (
        text[:at]
        + data.draw(st.sampled_from(["", "(", ")", "\\", ".", "\\.", "0", "(0)", "()", "é"]))
        + text[at + cut :]
    )
    actual = fact(text)
    assert actual == (expected(plain.read(text)) if plain.is_canonical(text) else MALFORMED)


@given(st.text("()\\.01zZ", max_size=12))
def test_any_short_text_is_judged_as_the_plain_parser_judges_it(text: str) -> None:
    assert fact(text)["well_formed"] == plain.is_canonical(text)


@given(st.lists(st.one_of(st.none(), st.text(max_size=30)), max_size=6))
def test_any_strings_are_judged_and_no_row_is_lost(texts: list[str | None]) -> None:
    actual = facts(pl.Series(texts, dtype=pl.String))
    assert actual["well_formed"].to_list() == [text is not None and plain.is_canonical(text) for text in texts]


MALFORMED_TEXTS = [
    "",
    "()",
    "(",
    ")",
    "0()",
    "0)",
    "(0)",
    "0(1)",
    "(01)2",
    "0(1",
    "\\",
    r"\.",
    r"\0",
    r"0\.1",
    r"0(\.0",
]
MALFORMED_TEXTS += [
    r"(\.0)",
    r"\.(\.0)",
    r"(\.0)(0)",
    r"((\.0))0",
    r"((\.0)0)",
    "é",
    "0é",
    "0 1",
    "00\n",
    "-",
    "\0",
    "0\0",
]


@pytest.mark.parametrize("text", [None, *MALFORMED_TEXTS])
def test_texts_outside_the_grammar_are_malformed(text: str | None) -> None:
    assert fact(text) == MALFORMED


def test_facts_of_examples_are_right() -> None:
    actual = facts(pl.Series([r"(\.00)(\.00)", r"\.\.\.\.\.\.(\.0)5", r"0(1((\.0)2)3)", r"(\.M)ab", r"(\.0)12"]))
    assert actual["found_start"].to_list() == [0, 12, 4, 0, 0]
    assert actual["found_end"].to_list() == [12, 18, 10, 6, 6]
    assert actual["found_redex_depth"].to_list() == [0, 6, 3, 1, 1]


def test_a_slice_of_a_longer_series_is_read_from_its_own_start() -> None:
    terms = pl.Series([r"\.0", None, r"(\.0)1", "(", "01"] * 3)
    assert facts(terms[4:9]).equals(facts(terms)[4:9])
    assert facts(terms.append(pl.Series(["0"]))).height == 16


def test_an_empty_series_has_no_facts() -> None:
    assert facts(pl.Series([], dtype=pl.String)).schema == FACTS


@pytest.mark.parametrize("text", ["(", ")", "\\", "\\.", "0", r"0(\.", "0("])
def test_megabytes_of_one_pattern_are_judged_without_recursion(text: str) -> None:
    actual = fact(text * (2_000_000 // len(text)))
    assert actual["well_formed"] == (text == "0")


def test_terms_nested_a_hundred_thousand_deep_are_read() -> None:
    nested = 100_000
    text = r"0(\." * nested + "0" + ")" * nested
    assert fact(text) == expected(("var", 0)) | {
        "found_size": 3 * nested + 1,
        "found_depth": 2 * nested,
        "found_leading": 0,
    }
    text = r"(\." * nested + "0" + ")0" * nested
    actual = fact(text)
    assert (actual["well_formed"], actual["found_start"], actual["found_end"]) == (True, 0, len(text))


@pytest.mark.slow
def test_processes_that_compile_at_the_same_time_get_the_same_result(tmp_path: Path) -> None:
    code = r"""
import polars as pl
from schema.compiled import compiled
from schema.reduction.text import facts
print(facts(pl.Series([r"0((\.0)1)"]))["found_end"][0])
"""
    command = [sys.executable, "-c", code]
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) for _ in range(2)]
    assert [process.communicate()[0].strip() for process in processes] == [b"8"] * 2
    assert list(tmp_path.rglob("*.nbc"))


def test_code_is_compiled_even_if_it_cannot_be_cached() -> None:
    names: dict[str, Any] = {}
    exec("def double(x): return x * 2", names)  # noqa: S102  a function without a file cannot be cached
    assert compiled(names["double"])(21) == 42
