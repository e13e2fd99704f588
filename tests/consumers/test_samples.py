from __future__ import annotations

import pytest
from rich.text import Text

from consumers.reduction.samples import BOTH, NORMAL_FORM, PREDICTED_ONLY, TRUE_ONLY, Sample, Span, render_sample

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
    ("true", "predicted", "said"),
    [
        (NORMAL_FORM, NORMAL_FORM, "normal form"),
        (NORMAL_FORM, (0, 1), "normal form, not seen"),
        ((0, 1), NORMAL_FORM, "taken for a normal form"),
        ((0, 1), (0, 1), ""),
    ],
)
def test_normal_forms_are_named(true: Span, predicted: Span, said: str) -> None:
    assert render_sample("00", true, predicted).plain.split("\n")[0] == f"00  {said}".rstrip()


def test_a_sample_is_correct_only_if_both_ends_are() -> None:
    assert Sample("00", (0, 2), (0, 2)).correct
    assert not Sample("00", (0, 2), (0, 1)).correct
    assert not Sample("00", NORMAL_FORM, (0, 1)).correct


def test_a_long_term_is_broken_with_its_marks_below_each_line() -> None:
    shown = render_sample("0123456", (1, 5), (2, 7), width=3)
    assert shown.plain.split("\n") == ["012", " -^", "345", "^^x", "6", "x"]
