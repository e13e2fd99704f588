from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text

from consumers.reduction.samples import (
    BOTH,
    NORMAL_FORM,
    PREDICTED_ONLY,
    TRUE_ONLY,
    Sample,
    Span,
    character_span,
    highlight,
    render_sample,
)

TERM = "\\.(\\.00)(\\.0)"


def coloured(text: Text, style: str) -> str:
    """The characters of the first line that have `style`."""
    line = text.plain.index("\n")
    return "".join(text.plain[span.start : min(span.end, line)] for span in text.spans if span.style == style)


def test_the_right_characters_are_marked() -> None:
    shown = render_sample(TERM, (2, 12), (2, 7))
    assert coloured(shown, BOTH) == "(\\.00"
    assert coloured(shown, TRUE_ONLY) == ")(\\.0"
    assert coloured(shown, PREDICTED_ONLY) == ""
    assert shown.plain.split("\n") == [TERM, "  ^^^^^----- "]


def test_a_wrong_mark_differs_from_a_missed_one() -> None:
    shown = render_sample("0123", (0, 2), (1, 3))
    assert (coloured(shown, TRUE_ONLY), coloured(shown, BOTH), coloured(shown, PREDICTED_ONLY)) == ("0", "1", "2")
    assert shown.plain.split("\n")[1] == "-^x "


@pytest.mark.parametrize(
    ("true", "predicted", "note"),
    [
        (NORMAL_FORM, NORMAL_FORM, "normal form"),
        (NORMAL_FORM, (0, 1), "normal form, not seen"),
        ((0, 1), NORMAL_FORM, "taken for a normal form"),
        ((0, 1), (0, 1), ""),
    ],
)
def test_normal_forms_are_named(true: Span, predicted: Span, note: str) -> None:
    assert render_sample("00", true, predicted).plain.split("\n")[0] == f"00  {note}".rstrip()


def test_a_sample_is_correct_only_if_both_ends_are() -> None:
    assert Sample("00", (0, 2), (0, 2)).correct
    assert not Sample("00", (0, 2), (0, 1)).correct
    assert not Sample("00", NORMAL_FORM, (0, 1)).correct


def test_a_long_term_is_broken_into_lines_with_marks_below_each() -> None:
    shown = render_sample("0123456", (1, 5), (2, 7), width=3)
    assert shown.plain.split("\n") == ["012", " -^", "345", "^^x", "6", "x"]


@pytest.mark.parametrize(
    ("span", "marked"), [((2, 3), "b"), ((1, 2), "a"), ((1, 5), "abcd"), ((4, 5), "d"), ((3, 5), "cd"), ((0, 0), "")]
)
def test_token_spans_are_character_spans_plus_1(span: Span, marked: str) -> None:
    shown = highlight("abcd", span)
    assert coloured(shown, BOTH) == marked
    first, below = shown.plain.split("\n")
    assert first == ("abcd" if marked else "abcd  normal form")
    assert "".join(character for character, mark in zip("abcd", below, strict=True) if mark == "^") == marked


@given(st.integers(0, 30), st.integers(1, 30))
def test_the_highlighted_characters_are_those_of_the_span(start: int, length: int) -> None:
    term = "0123456789" * 6
    assert character_span((start + 1, start + length + 1)) == (start, start + length)
    assert coloured(highlight(term, (start + 1, start + length + 1)), BOTH) == term[start : start + length]
