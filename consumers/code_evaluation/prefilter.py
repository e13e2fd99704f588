"""The pre-filter: samples that need no compiler to be refused, each with its reason.

Comments and placeholders are looked for in the generated part only, because a prompt may be one long comment.
"""

from __future__ import annotations

import re

from consumers.code_evaluation.samples import CodeSample
from schema.source_code.source_scan import RUST, SourceScan, has_main, scan

EMPTY = "empty"
TOO_LARGE = "too_large"
NO_MAIN = "no_main"
MOSTLY_COMMENTS = "mostly_comments"
INCOMPLETE = "incomplete"
REASONS = {
    EMPTY: "no code was generated",
    TOO_LARGE: "over 1 MiB of source",
    NO_MAIN: "a program was asked for, and there is no fn main",
    MOSTLY_COMMENTS: "over 4 lines of comments for a line of code",
    INCOMPLETE: "a bracket, string or comment is left open, or a placeholder stands for code",
}

_LARGEST_BYTES = 1024 * 1024
_COMMENTS_FOR_A_LINE = 4
_PLACEHOLDER = re.compile(r"\b(?:todo|unimplemented)!\s*[(\[{]")
_PYTHON_GOES_ON = (":", "\\", ",", "=")


def refused(sample: CodeSample) -> str | None:
    """Return the reason for which a sample is left out; None if it is to be compiled.

    >>> refused(CodeSample("1", "rust", "fn f() { g(", "fn f() { g("))
    'incomplete'
    """
    if not sample.generated.strip():
        return EMPTY
    if len(sample.program) + len(sample.tests) > _LARGEST_BYTES:
        return TOO_LARGE
    generated = scan(sample.generated, sample.language)
    if generated.comment_lines > _COMMENTS_FOR_A_LINE * generated.code_lines:
        return MOSTLY_COMMENTS
    if _is_incomplete(sample, generated):
        return INCOMPLETE
    if sample.is_program_asked_for and not has_main(sample.program):
        return NO_MAIN
    return None


def _is_incomplete(sample: CodeSample, generated: SourceScan) -> bool:
    whole = scan(sample.program, sample.language)
    if whole.open_brackets:
        return True
    if sample.language == RUST:
        return _PLACEHOLDER.search(generated.code) is not None
    return whole.code.rstrip().endswith(_PYTHON_GOES_ON)
