"""A held-out term with its true and predicted redex, rendered for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from rich.text import Text

Span = tuple[int, int]

# No redex, as in the rows.
NORMAL_FORM: Span = (0, 0)

BOTH, TRUE_ONLY, PREDICTED_ONLY = "bold green", "bold yellow", "bold red"
# Marks on the line below a term show the same without colour.
_MARKS = {BOTH: "^", TRUE_ONLY: "-", PREDICTED_ONLY: "x", "": " "}


@dataclass(frozen=True)
class Sample:
    """A term, its redex and the predicted redex: half-open character offsets, `NORMAL_FORM` without a redex."""

    term: str
    true_span: Span
    predicted_span: Span

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Return the sample from its fields as JSON values."""
        true, predicted = (tuple(values[name]) for name in ("true_span", "predicted_span"))
        return cls(values["term"], true, predicted)

    @property
    def correct(self) -> bool:
        """Whether the prediction is exactly right."""
        return self.true_span == self.predicted_span


def character_span(token_span: Sequence[int]) -> Span:
    """Convert a span of tokens to characters: both ends move back by 1, because BOS comes first."""
    start, end = token_span
    return NORMAL_FORM if (start, end) == NORMAL_FORM else (start - 1, end - 1)


def highlight(term: str, token_span: Sequence[int]) -> Text:
    """Return the term with the characters of a half-open span of tokens coloured, and marked `^` on the line below.

    Token span (2, 3) of `abcd` is its `b`; (0, 0) marks nothing and names the term a normal form.
    """
    span = character_span(token_span)
    return render_sample(term, span, span)


def render_sample(term: str, true_span: Span, predicted_span: Span, width: int = 78) -> Text:
    """Return the term with both spans coloured, and below each of its lines a mark under each character of either.

    Spans are half-open character offsets, (0, 0) a normal form. A character in both spans is green and marked `^`; only
    in the true span, yellow and `-`; only in the predicted span, red and `x`. A note after the term names normal forms.
    A line holds at most `width` characters of the term.
    """
    styles = [_style(place, true_span, predicted_span) for place in range(len(term))]
    text = Text(no_wrap=True, overflow="ignore")
    for begin in range(0, max(len(term), 1), width):
        line = slice(begin, begin + width)
        if begin:
            text.append("\n")
        for character, style in zip(term[line], styles[line], strict=True):
            text.append(character, style)
        if line.stop >= len(term):
            text.append(_verdict(true_span, predicted_span), "dim")
        text.append("\n")
        for style in styles[line]:
            text.append(_MARKS[style], style)
    return text


def _style(place: int, true_span: Span, predicted_span: Span) -> str:
    true = true_span[0] <= place < true_span[1]
    predicted = predicted_span[0] <= place < predicted_span[1]
    if true and predicted:
        return BOTH
    return TRUE_ONLY if true else PREDICTED_ONLY if predicted else ""


def _verdict(true_span: Span, predicted_span: Span) -> str:
    if true_span == predicted_span:
        return "  normal form" if true_span == NORMAL_FORM else ""
    if NORMAL_FORM not in (true_span, predicted_span):
        return ""
    return "  normal form, not seen" if true_span == NORMAL_FORM else "  taken for a normal form"
